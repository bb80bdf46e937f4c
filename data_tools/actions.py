"""Maths of states and actions both ways: relative and absolute, normalized and in robot units.

Everything here is float64, and each function has its exact inverse beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from data_tools.errors import UserError, describe, nearest
from data_tools.stats import (
    SMALLEST_MOTION,
    NormalizationStats,
    constants,
    narrow,
    still_columns,
    whole_spread,
)

Normalization = Literal["identity", "mean_std", "quantiles", "quantiles_10_90", "min_max"]
KINDS: Final[tuple[Normalization, ...]] = get_args(Normalization)

FloatArray = npt.NDArray[np.float64]

StillColumns = Literal["hold", "center", "divide"]
RangeEpsilon = Literal["added", "for_zero"]


@dataclass(frozen=True)
class ScaleRule:
    """How small scales are treated.

    Attributes:
        epsilon: what keeps a divisor from zero; 1e-6 in openpi, 1e-8 in LeRobot. A deviation has it
            added.
        range_epsilon: "added" to every range of bounds (openpi), or "for_zero", taking the place of
            a range that is exactly zero (LeRobot).
        still_columns: "hold" a column that never moves: it is 0 to the model whatever it reads, and
            comes back as its constant; one that moves in rare moments alone is scaled by all that
            it spans. "center" the same, but for a column that moves rarely, which is not scaled,
            and under identity, which then is that. "divide" all alike (both references), which
            turns a sensor's noise into values in the thousands.
    """

    epsilon: float = 0.0
    range_epsilon: RangeEpsilon = "added"
    still_columns: StillColumns = "hold"


OWN_RULE: Final = ScaleRule()


def to_delta(
    actions: npt.ArrayLike, state: npt.ArrayLike, pairs: Sequence[tuple[int, int]]
) -> FloatArray:
    """float64[h, a]: the paired columns relative to the state when the chunk starts, as in openpi.

    Every step of the chunk is relative to the same state, not to the step before it. Subtraction is
    only right for positions and joints, not for the columns of a rotation.

    Args:
        actions: float[h, a], the chunk; paired columns are absolute targets.
        state: float[s], the state when the chunk starts.
        pairs: (action column, state column) of each target, by index.
    """
    return _shift(actions, state, pairs, sign=-1.0)


def to_absolute(
    actions: npt.ArrayLike, state: npt.ArrayLike, pairs: Sequence[tuple[int, int]]
) -> FloatArray:
    """float64[h, a]: the inverse of `to_delta` with the same state and pairs."""
    return _shift(actions, state, pairs, sign=1.0)


@dataclass(frozen=True)
class Scaling:
    """How d columns are normalized: what is subtracted, what is divided by, what is held.

    Attributes:
        center: float64[d].
        scale: float64[d], never zero.
        is_held: bool[d], True where a column never moves.
    """

    center: FloatArray
    scale: FloatArray
    is_held: npt.NDArray[np.bool_]

    def normalize(self, x: npt.ArrayLike) -> FloatArray:
        """float64[..., d], centred and scaled; 0 in the columns that are held.

        Values beyond the statistics are not clipped: clipping has no inverse.
        """
        return np.where(self.is_held, 0.0, (self._columns(x) - self.center) / self.scale)

    def unnormalize(self, x: npt.ArrayLike) -> FloatArray:
        """float64[..., d], the inverse; the constants in the columns that are held."""
        moved = self._columns(x) * self.scale + self.center
        return np.where(self.is_held, self.center, moved)

    def _columns(self, x: npt.ArrayLike) -> FloatArray:
        values, width = np.asarray(x, dtype=np.float64), len(self.center)
        if values.ndim == 0 or values.shape[-1] != width:
            found, expected = f"shape {list(values.shape)}", f"[..., {width}], the columns of the"
            remedy = "Use the statistics of this array, computed on the same columns."
            raise UserError(describe("normalization", found, f"{expected} statistics", remedy))
        return values


def scaling(
    stats: NormalizationStats,
    kind: Normalization,
    rule: ScaleRule = OWN_RULE,
    motions: npt.ArrayLike = SMALLEST_MOTION,
) -> Scaling:
    """How the columns of these statistics are normalized.

    mean_std gives mean 0 and deviation 1; quantiles maps q01 to -1 and q99 to +1, quantiles_10_90
    q10 and q90; min_max does so for the extremes; identity changes nothing. Columns that never
    move, and those that do in rare moments alone, are treated as the rule says.

    Args:
        stats: statistics of the d columns.
        kind: what is centred on, and what is divided by.
        rule: how small scales are treated.
        motions: the smallest motion of each column, see `data_tools.stats`.

    Raises:
        UserError: the kind is unknown (the message names the nearest), a statistic is missing, or a
            column would be divided by zero.
    """
    center, scale = _declared_center_and_scale(stats, kind)
    if kind == "mean_std":
        scale += rule.epsilon
    elif kind != "identity":
        is_widened = (scale == 0) | (rule.range_epsilon == "added")
        half = np.where(is_widened, rule.epsilon / 2, 0.0)
        # both: the low bound stays at -1
        center, scale = center + half, scale + half
    is_held = np.zeros(stats.dim, dtype=bool)
    if rule.still_columns == "hold" or (rule.still_columns == "center" and kind != "identity"):
        is_held[list(still_columns(stats, motions))] = True
    if rule.still_columns != "divide":
        near = list(near_constant_columns(stats, kind, motions))
        scale[near] = whole_spread(stats)[near] if rule.still_columns == "hold" else 1.0
    if is_held.any():
        center = np.where(is_held, constants(stats), center)
        scale = np.where(is_held, 1.0, scale)
    if (scale == 0).any():
        columns = np.flatnonzero(scale == 0).tolist()
        found, expected = f"no spread in the columns {columns}", "one to divide by"
        remedy = "Set still_columns to hold, or epsilon above 0."
        raise UserError(describe("normalization", found, expected, remedy))
    return Scaling(center, scale, is_held)


def near_constant_columns(
    stats: NormalizationStats, kind: Normalization, motions: npt.ArrayLike = SMALLEST_MOTION
) -> tuple[int, ...]:
    """Indices of the columns too narrow to be divided by their usual spread, as seen by `kind`.

    They never move, or in rare moments alone. None is under identity. Arguments as `scaling`.
    """
    if kind == "identity":
        return ()
    _, scale = _declared_center_and_scale(stats, kind)
    return tuple(np.flatnonzero(narrow(scale, stats, motions)).tolist())


def _declared_center_and_scale(
    stats: NormalizationStats, kind: Normalization
) -> tuple[FloatArray, FloatArray]:
    match kind:
        case "identity":
            return np.zeros(stats.dim), np.ones(stats.dim)
        case "mean_std":
            return stats.row("mean"), stats.row("std")
        case "quantiles":
            low, high = stats.row("q01"), stats.row("q99")
        case "quantiles_10_90":
            low, high = stats.row("q10"), stats.row("q90")
        case "min_max":
            low, high = stats.row("min"), stats.row("max")
        case _:
            hint = nearest(str(kind), KINDS)
            remedy = f"Choose one of these{f'; {hint}' if hint else '.'}"
            raise UserError(describe("normalization", repr(kind), f"one of {list(KINDS)}", remedy))
    return (low + high) / 2, (high - low) / 2


def _shift(
    actions: npt.ArrayLike, state: npt.ArrayLike, pairs: Sequence[tuple[int, int]], sign: float
) -> FloatArray:
    shifted = np.array(actions, dtype=np.float64)
    start = np.asarray(state, dtype=np.float64)
    for action_column, state_column in pairs:
        shifted[..., action_column] += sign * start[state_column]
    return shifted
