"""Exact statistics of states and actions: from the low-dimensional arrays only, in seconds."""

from collections.abc import Iterable
from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, StrictInt, model_validator

from data_tools.conventions import Declaration
from data_tools.episode import Dataset
from data_tools.errors import UserError, describe, raise_faults
from data_tools.finite import nonfinite_faults, nonfinite_values


class NormalizationStats(Declaration):
    """Statistics of the columns of one array, over all its frames together."""

    mean: tuple[float, ...] = Field(description="Mean of each column.")
    std: tuple[float, ...] = Field(description="Population standard deviation of each column.")
    min: tuple[float, ...] = Field(description="Smallest value of each column.")
    max: tuple[float, ...] = Field(description="Largest value of each column.")
    q01: tuple[float, ...] = Field(description="1 % quantile of each column.")
    q99: tuple[float, ...] = Field(description="99 % quantile of each column.")
    num_frames: StrictInt = Field(gt=0, description="Number of frames they were computed from.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        columns = {
            name: getattr(self, name) for name in ("mean", "std", "min", "max", "q01", "q99")
        }
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(
                f"statistics: found {lengths} columns; expected as many in each. "
                "Compute them again."
            )
        table = np.array(list(columns.values()))
        if not np.isfinite(table).all():
            raise ValueError(
                f"statistics: found {columns}; expected finite numbers. Compute them again."
            )
        if (table[1] < 0).any() or (table[2] > table[3]).any() or (table[4] > table[5]).any():
            raise ValueError(
                f"statistics: found {columns}; expected std >= 0, min <= max and q01 <= q99. "
                "Compute them again."
            )
        return self

    @property
    def dim(self) -> int:
        """Number of columns."""
        return len(self.mean)


def exact_stats(array: npt.ArrayLike) -> NormalizationStats:
    """Mean, standard deviation, minimum, maximum and 1 % and 99 % quantiles of each column.

    Exact: computed in float64 from every row; quantiles interpolate linearly (numpy's default).

    Args:
        array: float[n, d], one row a frame, at least one row.

    Raises:
        UserError: another shape, no rows, or a value that is not finite.
    """
    values = np.asarray(array, dtype=np.float64)
    if values.ndim != 2 or len(values) == 0:
        found, remedy = f"shape {list(values.shape)}", "Give one row a frame."
        raise UserError(describe("statistics", found, "[n, d] with n at least 1", remedy))
    faults = nonfinite_faults("statistics", values, [str(i) for i in range(values.shape[1])])
    raise_faults(faults)
    q01, q99 = np.quantile(values, [0.01, 0.99], axis=0)
    rows = {
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "q01": q01,
        "q99": q99,
    }
    columns = {name: tuple(row.tolist()) for name, row in rows.items()}
    return NormalizationStats(**columns, num_frames=len(values))


def dataset_stats(
    dataset: Dataset, episodes: Iterable[int] | None = None
) -> dict[str, NormalizationStats]:
    """Exact statistics of 'state' and 'actions' as they are stored; decodes no image.

    Args:
        dataset: where the episodes are.
        episodes: indices of the episodes to use, for training those of the training split; all of
            them when not given.

    Raises:
        UserError: a value is NaN or infinite; the fault names episode, step and column.
    """
    indices = list(range(len(dataset)) if episodes is None else episodes)
    faults = nonfinite_values(dataset, indices)
    raise_faults(faults)
    chosen = [dataset[index] for index in indices]
    return {
        "state": exact_stats(np.concatenate([episode.state() for episode in chosen])),
        "actions": exact_stats(np.concatenate([episode.actions() for episode in chosen])),
    }
