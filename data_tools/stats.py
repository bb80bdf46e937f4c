"""Exact statistics of states and actions: from the low-dimensional arrays only, in seconds.

They also tell which columns count as ones that never move. A column is divided by what it spans, so
one that stands still would turn the noise of its sensor into values in the thousands. Its name and
unit tell how small a motion can be meant: an arm repeats a position to some hundredths of a
millimetre, and an encoder of 16 bits counts 0.1 mrad.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, StrictInt, model_validator

from data_tools.conventions import Conventions
from data_tools.declaration import Declaration
from data_tools.episode import Dataset
from data_tools.errors import UserError, describe, raise_faults
from data_tools.finite import nonfinite_faults, nonfinite_values

Column = tuple[float, ...]

STATISTICS: Final = ("mean", "std", "min", "max", "q01", "q10", "q90", "q99")
# Pairs of which the first is never above the second.
_ORDERED: Final = (("min", "max"), ("q01", "q99"), ("q10", "q90"))


class NormalizationStats(Declaration):
    """Statistics of the columns of one array, over all its frames together.

    Ours are complete. A foreign checkpoint's hold what its makers kept, and null for the rest.
    """

    mean: Column | None = Field(None, description="Mean of each column.")
    std: Column | None = Field(None, description="Population standard deviation of each column.")
    min: Column | None = Field(None, description="Smallest value of each column.")
    max: Column | None = Field(None, description="Largest value of each column.")
    q01: Column | None = Field(None, description="1 % quantile of each column.")
    q10: Column | None = Field(None, description="10 % quantile of each column.")
    q90: Column | None = Field(None, description="90 % quantile of each column.")
    q99: Column | None = Field(None, description="99 % quantile of each column.")
    num_frames: StrictInt | None = Field(
        None, gt=0, description="Number of frames they were computed from; null where unknown."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        columns = {name: getattr(self, name) for name in self.present}
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(
                f"statistics: found {lengths} columns; expected as many in each. "
                "Compute them again."
            )
        faults = list(_value_faults(columns))
        if faults:
            raise ValueError("\n".join(faults))
        return self

    @property
    def present(self) -> tuple[str, ...]:
        """Names of the statistics there are, in the order of STATISTICS."""
        return tuple(name for name in STATISTICS if getattr(self, name) is not None)

    @property
    def dim(self) -> int:
        """Number of columns."""
        return len(getattr(self, self.present[0]))

    def row(self, name: str) -> npt.NDArray[np.float64]:
        """float64[d], one statistic of every column; UserError where the source lacks it."""
        values = getattr(self, name)
        if values is None:
            remedy = (
                "Choose a normalization that needs only these, or compute the statistics from data "
                "(statistics: data)."
            )
            raise UserError(
                describe("statistics", f"only {', '.join(self.present)}", f"{name} too", remedy)
            )
        return np.array(values)

    def leading(self, dim: int) -> Self:
        """The statistics of the first `dim` columns.

        A checkpoint may hold more columns than the robot has (openpi pads some to the model's
        width, and cuts them off in `transforms.py`).

        Raises:
            UserError: there are fewer columns than that.
        """
        if dim > self.dim:
            remedy = (
                "Name the embodiment the checkpoint was trained for, or compute them from data."
            )
            raise UserError(describe("statistics", f"{self.dim} columns", f"{dim}", remedy))
        cut = {name: getattr(self, name)[:dim] for name in self.present}
        return type(self)(**cut, num_frames=self.num_frames)


def _value_faults(columns: Mapping[str, Column]) -> Iterator[str]:
    """A fault for each value that no data can have."""
    remedy = "Compute them again."
    for name, row in columns.items():
        for index, value in enumerate(row):
            place = f"{name}, column {index}"
            if not math.isfinite(value):
                yield describe(place, repr(value), "a finite number", remedy)
            elif name == "std" and value < 0:
                yield describe(place, repr(value), "no less than 0", remedy)
    for low, high in _ORDERED:
        pairs = zip(columns.get(low, ()), columns.get(high, ()), strict=False)
        for index, (below, above) in enumerate(pairs):
            if below > above:
                expected = f"no more than {above!r}, its {high}"
                yield describe(f"{low}, column {index}", repr(below), expected, remedy)


def exact_stats(array: npt.ArrayLike) -> NormalizationStats:
    """Mean, standard deviation, extremes and 1, 10, 90 and 99 % quantiles of each column.

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
    q01, q10, q90, q99 = np.quantile(values, [0.01, 0.1, 0.9, 0.99], axis=0)
    rows = {
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "q01": q01,
        "q10": q10,
        "q90": q90,
        "q99": q99,
    }
    columns = {name: tuple(row.tolist()) for name, row in rows.items()}
    return NormalizationStats(**columns, num_frames=len(values))


def side_by_side(parts: Sequence[NormalizationStats]) -> NormalizationStats:
    """The statistics of all parts' columns, in order; num_frames is the smallest of theirs."""
    joined = {name: np.concatenate([part.row(name) for part in parts]) for name in parts[0].present}
    frames = [part.num_frames for part in parts if part.num_frames is not None]
    columns = {name: tuple(row.tolist()) for name, row in joined.items()}
    return NormalizationStats(**columns, num_frames=min(frames, default=None))


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


FloatArray = npt.NDArray[np.float64]

SMALLEST_MOTION: Final = 1e-4
"""In m, rad, their rates, and of columns without a unit or with one that is not known."""

_PER_UNIT: Final = {
    **dict.fromkeys(("cm", "centimetre", "centimeter", "%", "percent"), 1e2),
    **dict.fromkeys(("mm", "millimetre", "millimeter"), 1e3),
    **dict.fromkeys(("um", "micrometre", "micrometer", "micron"), 1e6),
    **dict.fromkeys(("deg", "degree"), 180 / np.pi),
}
"""Unit -> how many of it are one metre, one radian or the whole."""

_UNIT: Final = re.compile(r"(?P<factor>\d+(\.\d+)?(e-?\d+)?)?\s*(?P<unit>[^/]*?)s?(/.*)?")
_RANGES: Final = (("min", "max"), ("q01", "q99"), ("q10", "q90"))
# A displacement is one of many: what a second of them moves is compared.
_STEPS_A_SECOND: Final = 100.0
# Some ten steps of float32 at the column's magnitude; half of what it spans is compared.
_RELATIVE: Final = 1e-6


def smallest_motion(unit: str) -> float:
    """The smallest motion that a column of this unit can mean: 1e-4 for 'rad', 0.1 for 'mm'.

    A factor before the unit counts: one '0.04 m' is 0.04 m, so 2.5e-3 of it are 0.1 mm.
    """
    match = _UNIT.fullmatch(unit.strip().lower())
    if match is None:
        return SMALLEST_MOTION
    factor = float(match["factor"] or 1)
    return SMALLEST_MOTION * _PER_UNIT.get(match["unit"], 1.0) / (factor or 1)


def state_motions(conventions: Conventions) -> FloatArray:
    """float64[s], the smallest motion of each state column."""
    return np.array([smallest_motion(unit) for unit in conventions.state.units])


def action_motions(conventions: Conventions) -> FloatArray:
    """float64[a], the smallest motion of each action column; of displacements, in one step.

    Where nobody says what a column is relative to, it may be a displacement.
    """
    action, rate = conventions.action, conventions.control_hz or _STEPS_A_SECOND
    smallest = np.array([smallest_motion(unit) for unit in action.units])
    is_step = np.isin(action.references, ("delta", "unknown"))
    return np.where(is_step, smallest / rate, smallest)


def still_columns(
    stats: NormalizationStats, motions: npt.ArrayLike = SMALLEST_MOTION
) -> tuple[int, ...]:
    """Indices of the columns that never move, by all that the statistics tell.

    Half of what it spans, its deviation and half the range between its quantiles are each below
    half the smallest motion, or below 1e-6 of the column's largest magnitude, which is rounding. A
    column that moves in rare moments is none, for its extremes, or its deviation, tell of them.

    Args:
        stats: of d columns.
        motions: the smallest motion of each column; one for all where nothing is known of them.
    """
    spreads = list(_spreads(stats))
    is_still = np.all([narrow(spread, stats, motions) for spread in spreads], axis=0)
    return tuple(np.flatnonzero(is_still).tolist()) if spreads else ()


def floor(magnitude: npt.ArrayLike, motions: npt.ArrayLike = SMALLEST_MOTION) -> FloatArray:
    """float64[d], half of what a column must span to count as one that moves.

    Args:
        magnitude: float[d], the largest magnitude in each column.
        motions: as in `still_columns`.
    """
    half = np.asarray(motions, dtype=np.float64) / 2
    return np.maximum(half, _RELATIVE * np.asarray(magnitude, dtype=np.float64))


def narrow(
    spread: npt.ArrayLike, stats: NormalizationStats, motions: npt.ArrayLike
) -> npt.NDArray[np.bool_]:
    """bool[d], where half of a range, or a deviation, is less than any motion."""
    # of the extremes, which bound all other locations, where they are known
    places = [name for name in stats.present if name != "std"]
    extremes = [name for name in ("min", "max") if name in places]
    rows = [np.abs(stats.row(name)) for name in extremes or places]
    magnitude = np.max(rows, axis=0) if rows else 0.0
    return np.asarray(spread, dtype=np.float64) < floor(magnitude, motions)


def whole_spread(stats: NormalizationStats) -> FloatArray:
    """float64[d], half of what each column spans; its widest spread where that is not known."""
    if stats.min is not None and stats.max is not None:
        return (stats.row("max") - stats.row("min")) / 2
    return np.max(list(_spreads(stats)), axis=0)


def constants(stats: NormalizationStats) -> FloatArray:
    """float64[d], the middle of each column's extremes, its mean or the middle of its quantiles."""
    if stats.mean is not None and "min" not in stats.present:
        return stats.row("mean")
    low, high = next((low, high) for low, high in _RANGES if {low, high} <= {*stats.present})
    return (stats.row(low) + stats.row(high)) / 2


def _spreads(stats: NormalizationStats) -> Iterator[FloatArray]:
    """The deviation and half of each range, as far as they are there."""
    if stats.std is not None:
        yield stats.row("std")
    for low, high in _RANGES:
        if {low, high} <= {*stats.present}:
            yield (stats.row(high) - stats.row(low)) / 2
