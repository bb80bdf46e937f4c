"""Finding NaN and infinity before they reach a loss: one bad action is enough to end a run."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from data_tools.episode import Dataset
from data_tools.errors import describe

MAX_NAMED_VALUES = 3


def nonfinite_faults(
    where: str, array: npt.NDArray[np.floating], columns: Sequence[str]
) -> list[str]:
    """One fault for each of the first NaN or infinite values, then their count; empty without any.

    Args:
        where: the array's place, e.g. 'pick.hdf5:data/demo_3 actions'.
        array: float[t, d], one row a step.
        columns: the name of each of the d columns.
    """
    steps, dimensions = np.nonzero(~np.isfinite(array))
    first = list(zip(steps.tolist(), dimensions.tolist(), strict=True))[:MAX_NAMED_VALUES]
    faults = [
        describe(
            f"{where}, step {step}, column {columns[dimension]!r}",
            str(array[step, dimension]),
            "a finite number",
            "Correct this value, or leave the episode out.",
        )
        for step, dimension in first
    ]
    if len(steps) > MAX_NAMED_VALUES:
        faults.append(
            describe(
                where,
                f"{len(steps)} values that are NaN or infinite",
                "none",
                "Leave the episode out.",
            )
        )
    return faults


def nonfinite_values(dataset: Dataset, episodes: Iterable[int] | None = None) -> list[str]:
    """Faults naming every NaN or infinity in states and actions; empty when all are finite.

    Reads the low-dimensional arrays only, never an image, so it is cheap enough to run before every
    training.

    Args:
        dataset: the episodes to look at.
        episodes: indices of the episodes to look at; all of them when not given.
    """
    faults: list[str] = []
    for index in range(len(dataset)) if episodes is None else episodes:
        episode = dataset[index]
        conventions = dataset.conventions
        faults += nonfinite_faults(
            f"{episode.name} actions", episode.actions(), conventions.action.names
        )
        faults += nonfinite_faults(
            f"{episode.name} state", episode.state(), conventions.state.names
        )
    return faults
