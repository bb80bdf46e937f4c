"""Extents: the few numbers a column leaves behind, so that one pass over the episodes is enough."""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from data_tools.doctor.checks.recording import FloatArray

# A glitch is in fewer of the steps, and a fast movement in more.
MOST: Final = 0.99


@dataclass(frozen=True)
class Extent:
    """Moments and extremes of the columns of one array, with the steps of the extremes.

    Attributes:
        num_steps: rows.
        mean: float64[d].
        squares: float64[d], sum of squared deviations from the mean.
        low: float64[d], smallest values; low_step their int[d] steps.
        high: float64[d], largest values; high_step their int[d] steps.
        motion: float64[d], what 99 % of the differences between two rows are at most.
    """

    num_steps: int
    mean: FloatArray
    squares: FloatArray
    low: FloatArray
    low_step: npt.NDArray[np.intp]
    high: FloatArray
    high_step: npt.NDArray[np.intp]
    motion: FloatArray

    @classmethod
    def of(cls, array: FloatArray) -> Self:
        """Of float64[t, d] with at least one row."""
        mean = array.mean(axis=0)
        low_step, high_step = array.argmin(axis=0), array.argmax(axis=0)
        columns = np.arange(array.shape[1])
        # a row before the first changes nothing where there is only one
        steps = np.abs(np.diff(array, axis=0, prepend=array[:1]))
        return cls(
            num_steps=len(array),
            mean=mean,
            squares=((array - mean) ** 2).sum(axis=0),
            low=array[low_step, columns],
            low_step=low_step,
            high=array[high_step, columns],
            high_step=high_step,
            motion=np.quantile(steps, MOST, axis=0),
        )


@dataclass(frozen=True)
class Spread:
    """Mean, deviation and extremes of the columns over all episodes: float64[d] each.

    And the usual motion: in half of the episodes 99 % of the differences of rows are at most this.
    """

    mean: FloatArray
    std: FloatArray
    low: FloatArray
    high: FloatArray
    motion: FloatArray

    @classmethod
    def of(cls, extents: list[Extent]) -> Self:
        """Of all episodes together, each step counting once; exact (Chan et al. 1979)."""
        counts = np.array([extent.num_steps for extent in extents], dtype=np.float64)[:, None]
        means = np.array([extent.mean for extent in extents])
        mean = (counts * means).sum(axis=0) / counts.sum()
        within = np.sum([extent.squares for extent in extents], axis=0)
        squares = within + (counts * (means - mean) ** 2).sum(axis=0)
        return cls(
            mean=mean,
            std=np.sqrt(squares / counts.sum()),
            low=np.min([extent.low for extent in extents], axis=0),
            high=np.max([extent.high for extent in extents], axis=0),
            motion=np.median([extent.motion for extent in extents], axis=0),
        )
