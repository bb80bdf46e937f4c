"""Maths of states and actions both ways: relative and absolute, normalized and in robot units.

Everything here is float64, and each function has its exact inverse beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from data_tools.errors import UserError, describe, nearest
from data_tools.stats import NormalizationStats

Normalization = Literal["identity", "mean_std", "quantiles", "quantiles_10_90", "min_max"]
KINDS: Final[tuple[Normalization, ...]] = get_args(Normalization)

# A column whose scale is below the larger of these is near-constant: dividing by it would turn
# sensor noise into values in the thousands (openpi#814 saw -3200). The absolute bound is a range of
# 1e-4, as in robomimic; the relative one is some ten steps of float32 at the column's magnitude.
MIN_SCALE: Final = 0.5e-4
MIN_RELATIVE_SCALE: Final = 1e-6

FloatArray = npt.NDArray[np.float64]

StillColumns = Literal["center", "divide"]
RangeEpsilon = Literal["added", "for_zero"]


@dataclass(frozen=True)
class ScaleRule:
    """How small scales are treated.

    Attributes:
        epsilon: what keeps a divisor from zero; 1e-6 in openpi, 1e-8 in LeRobot. A deviation has it
            added.
        range_epsilon: "added" to every range of bounds (openpi), or "for_zero", taking the place of
            a range that is exactly zero (LeRobot).
        still_columns: "center" a near-constant column without scaling it, or "divide" it like any
            other (both references), which turns sensor noise into values in the thousands.
    """

    epsilon: float = 0.0
    range_epsilon: RangeEpsilon = "added"
    still_columns: StillColumns = "center"


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


def normalize(
    x: npt.ArrayLike,
    stats: NormalizationStats,
    kind: Normalization,
    rule: ScaleRule = OWN_RULE,
) -> FloatArray:
    """float64[..., d]: the columns of x centred and scaled.

    mean_std gives mean 0 and deviation 1; quantiles maps q01 to -1 and q99 to +1, quantiles_10_90
    q10 and q90; min_max does so for the extremes; identity changes nothing. A near-constant column
    is centred, not scaled, unless the rule says otherwise. Values beyond the statistics are not
    clipped: clipping has no inverse.

    Args:
        x: float[..., d] in robot units.
        stats: statistics of the d columns.
        kind: what is centred on, and what is divided by.
        rule: how small scales are treated.

    Raises:
        UserError: x has another number of columns, the kind is unknown, or a statistic is missing.
    """
    center, scale = center_and_scale(stats, kind, rule)
    return (_columns(x, stats) - center) / scale


def unnormalize(
    x: npt.ArrayLike,
    stats: NormalizationStats,
    kind: Normalization,
    rule: ScaleRule = OWN_RULE,
) -> FloatArray:
    """float64[..., d] in robot units: the inverse of `normalize` with the same statistics."""
    center, scale = center_and_scale(stats, kind, rule)
    return _columns(x, stats) * scale + center


def center_and_scale(
    stats: NormalizationStats, kind: Normalization, rule: ScaleRule = OWN_RULE
) -> tuple[FloatArray, FloatArray]:
    """Two float64[d]: what `normalize` subtracts and then divides by; the scale is never zero.

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
    if rule.still_columns == "center":
        scale[list(near_constant_columns(stats, kind))] = 1.0
    if (scale == 0).any():
        columns = np.flatnonzero(scale == 0).tolist()
        found, expected = f"no spread in the columns {columns}", "one to divide by"
        remedy = "Set still_columns to center, or epsilon above 0."
        raise UserError(describe("normalization", found, expected, remedy))
    return center, scale


def near_constant_columns(stats: NormalizationStats, kind: Normalization) -> tuple[int, ...]:
    """Indices of the columns too still to be scaled by us; their normalized value is ~ 0.

    A column is still when its scale (the deviation for mean_std, else half the range between the
    bounds) is below 0.5e-4, or below 1e-6 of its largest magnitude. None is under identity.
    """
    if kind == "identity":
        return ()
    _, scale = _declared_center_and_scale(stats, kind)
    # of the extremes, which bound all other locations, where they are known
    places = [name for name in stats.present if name != "std"]
    extremes = [name for name in ("min", "max") if name in places]
    magnitude = np.abs([stats.row(name) for name in extremes or places]).max(axis=0)
    floor = np.maximum(MIN_SCALE, MIN_RELATIVE_SCALE * magnitude)
    return tuple(np.flatnonzero(scale < floor).tolist())


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


def _columns(x: npt.ArrayLike, stats: NormalizationStats) -> FloatArray:
    values = np.asarray(x, dtype=np.float64)
    if values.ndim == 0 or values.shape[-1] != stats.dim:
        expected = f"[..., {stats.dim}], the columns of the statistics"
        remedy = "Use the statistics of this array, computed on the same columns."
        raise UserError(describe("normalization", f"shape {list(values.shape)}", expected, remedy))
    return values


def _shift(
    actions: npt.ArrayLike, state: npt.ArrayLike, pairs: Sequence[tuple[int, int]], sign: float
) -> FloatArray:
    shifted = np.array(actions, dtype=np.float64)
    start = np.asarray(state, dtype=np.float64)
    for action_column, state_column in pairs:
        shifted[..., action_column] += sign * start[state_column]
    return shifted
