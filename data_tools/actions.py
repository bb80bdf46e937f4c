"""Maths of states and actions both ways: relative and absolute, normalized and in robot units.

Everything here is float64, and each function has its exact inverse beside it.
"""

from collections.abc import Sequence
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from data_tools.errors import UserError, describe, nearest
from data_tools.stats import NormalizationStats

Normalization = Literal["identity", "mean_std", "quantiles", "min_max"]
KINDS: Final[tuple[Normalization, ...]] = get_args(Normalization)

# A column whose scale is below the larger of these is near-constant: dividing by it would turn
# sensor noise into values in the thousands (openpi#814 saw -3200). The absolute bound is a range of
# 1e-4, as in robomimic; the relative one is some ten steps of float32 at the column's magnitude.
MIN_SCALE: Final = 0.5e-4
MIN_RELATIVE_SCALE: Final = 1e-6

FloatArray = npt.NDArray[np.float64]


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


def normalize(x: npt.ArrayLike, stats: NormalizationStats, kind: Normalization) -> FloatArray:
    """float64[..., d]: the columns of x centred and scaled.

    mean_std gives mean 0 and deviation 1; quantiles maps q01 to -1 and q99 to +1; min_max does so
    for the extremes; identity changes nothing. A near-constant column is centred, not scaled.
    Values beyond the statistics are not clipped: clipping has no inverse.

    Args:
        x: float[..., d] in robot units.
        stats: statistics of the d columns.
        kind: the rule.

    Raises:
        UserError: x has another number of columns, or the kind is unknown.
    """
    center, scale = center_and_scale(stats, kind)
    return (_columns(x, stats) - center) / scale


def unnormalize(x: npt.ArrayLike, stats: NormalizationStats, kind: Normalization) -> FloatArray:
    """float64[..., d] in robot units: the inverse of `normalize` with the same statistics."""
    center, scale = center_and_scale(stats, kind)
    return _columns(x, stats) * scale + center


def center_and_scale(
    stats: NormalizationStats, kind: Normalization
) -> tuple[FloatArray, FloatArray]:
    """Two float64[d]: what `normalize` subtracts and then divides by; the scale is never small.

    Raises:
        UserError: the kind is unknown; the message names the nearest.
    """
    center, scale = _declared_center_and_scale(stats, kind)
    scale[list(near_constant_columns(stats, kind))] = 1.0
    return center, scale


def near_constant_columns(stats: NormalizationStats, kind: Normalization) -> tuple[int, ...]:
    """Indices of the columns too still to be scaled under this rule; their normalized value is ~ 0.

    A column is still when its scale (the deviation for mean_std, else half the range between the
    bounds) is below 0.5e-4, or below 1e-6 of its largest magnitude. None is under identity.
    """
    if kind == "identity":
        return ()
    _, scale = _declared_center_and_scale(stats, kind)
    magnitude = np.maximum(np.abs(stats.min), np.abs(stats.max))
    floor = np.maximum(MIN_SCALE, MIN_RELATIVE_SCALE * magnitude)
    return tuple(np.flatnonzero(scale < floor).tolist())


def _declared_center_and_scale(
    stats: NormalizationStats, kind: Normalization
) -> tuple[FloatArray, FloatArray]:
    match kind:
        case "identity":
            return np.zeros(stats.dim), np.ones(stats.dim)
        case "mean_std":
            return np.array(stats.mean), np.array(stats.std)
        case "quantiles":
            low, high = np.array(stats.q01), np.array(stats.q99)
        case "min_max":
            low, high = np.array(stats.min), np.array(stats.max)
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
