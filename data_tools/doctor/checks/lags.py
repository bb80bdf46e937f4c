"""Lags: how well one column explains another so many steps later, over all episodes at once.

Episodes lie one after the other with gaps between them, so that a lag is one shift of everything
and never pairs the end of an episode with the start of the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from data_tools.doctor.checks.recording import FloatArray

IntArray = npt.NDArray[np.int64]

MIN_STEPS: Final = 30
# More delays than this tell no more about where a robot is; at 50 Hz these are all.
MAX_LAGS: Final = 101
# What is left of a constant when its mean is taken away, as a share of its square.
ROUNDING: Final = 1e-12


def spread_lags(first: int, last: int) -> list[int]:
    """All lags from `first` to `last`, or MAX_LAGS evenly spread: places change little in one."""
    count = min(MAX_LAGS, last - first + 1)
    return np.unique(np.linspace(first, last, count).astype(int)).tolist()


@dataclass(frozen=True)
class Fit:
    """A line through pairs (x, y) of all episodes together.

    Attributes:
        correlation: in [-1, 1]; 0 where either side does not move, or of fewer than MIN_STEPS.
        slope: of y on x.
    """

    correlation: float
    slope: float

    @property
    def explained(self) -> float:
        """Share of the variance of y."""
        return self.correlation**2


@dataclass(frozen=True)
class Columns:
    """Two columns of several episodes, laid out for lags up to `gap` steps either way.

    Attributes:
        x: float64[n], 0 in the gaps, of which one comes first and one last.
        y: float64[n], likewise.
        sums: float64[4, n + 1], of x, y and their squares over all rows before each.
        starts: int[e], the row where each episode begins.
        lengths: int[e, 2], of its x and its y.
        gap: steps between two episodes.
        about_own_mean: whether a constant that an episode adds to x or y says nothing.
    """

    x: FloatArray
    y: FloatArray
    sums: FloatArray
    starts: IntArray
    lengths: IntArray
    gap: int
    about_own_mean: bool

    @classmethod
    def of(
        cls,
        episodes: Sequence[tuple[FloatArray, FloatArray]],
        gap: int,
        *,
        about_own_mean: bool = False,
    ) -> Self:
        """Lays the columns out.

        Args:
            episodes: (x, y) of each, whose first rows are of one step.
            gap: the largest lag that will be asked for.
            about_own_mean: whether a constant that an episode adds to x or y says nothing.
        """
        lengths = np.array([[len(x), len(y)] for x, y in episodes])
        ends = np.cumsum(lengths.max(axis=1) + gap) + gap
        starts = np.concatenate([[gap], ends[:-1]])
        laid = np.zeros((2, int(ends[-1])))
        for side, columns in enumerate(zip(*episodes, strict=True)):
            mean = np.concatenate(columns).mean()
            for start, column in zip(starts, columns, strict=True):
                if len(column):
                    # large constants would cost digits in the sums
                    middle = column.mean() if about_own_mean else mean
                    laid[side, start : start + len(column)] = column - middle
        sums = np.zeros((4, laid.shape[1] + 1))
        np.cumsum(np.concatenate([laid, laid**2]), axis=1, out=sums[:, 1:])
        return cls(laid[0], laid[1], sums, starts, lengths, gap, about_own_mean)

    def fit(self, lag: int) -> Fit:
        """The line through all (x[t], y[t + lag]), for -gap <= lag <= gap."""
        first = self.starts + max(0, -lag)
        ends = self.starts + np.minimum(self.lengths[:, 0], self.lengths[:, 1] - lag)
        counts = np.maximum(0, ends - first)
        if counts.sum() < MIN_STEPS:
            return Fit(0.0, 0.0)
        # of each episode, the sums over the rows that have a partner
        x, xx = (each[first + counts] - each[first] for each in self.sums[::2])
        y, yy = (each[first + lag + counts] - each[first + lag] for each in self.sums[1::2])
        end = len(self.x) - self.gap
        xy = float(self.x[self.gap : end] @ self.y[self.gap + lag : end + lag])
        squares_x, squares_y = float(xx.sum()), float(yy.sum())
        if not self.about_own_mean:
            counts, x, y = (each.sum(keepdims=True) for each in (counts, x, y))
        counts = np.maximum(counts, 1)
        spread_x, spread_y = squares_x - np.sum(x * x / counts), squares_y - np.sum(y * y / counts)
        if spread_x <= ROUNDING * squares_x or spread_y <= ROUNDING * squares_y:
            return Fit(0.0, 0.0)
        shared = xy - float(np.sum(x * y / counts))
        return Fit(float(shared / np.sqrt(spread_x * spread_y)), float(shared / spread_x))
