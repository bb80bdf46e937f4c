"""Exact statistics as LeRobot keeps them: of numbers by column, of images by colour channel."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

QUANTILES: Final = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
LEVELS: Final = 256

Statistics = dict[str, list[object]]


def vector_statistics(arrays: Sequence[npt.NDArray[np.generic]]) -> Statistics:
    """min, max, mean, std, count and quantiles of each column of arrays[n, d], taken together.

    Computed in float64 over every row, one column at a time; quantiles interpolate linearly.
    LeRobot itself takes them from histograms, and over a dataset from the bounds of its episodes.
    """
    columns = []
    for index in range(arrays[0].shape[1]):
        column = np.concatenate([array[:, index] for array in arrays]).astype(np.float64)
        quantiles = np.quantile(column, list(QUANTILES.values()))
        columns.append((column.min(), column.max(), column.mean(), column.std(), *quantiles))
    rows = np.array(columns).T.tolist()
    names = ("min", "max", "mean", "std", *QUANTILES)
    return {**dict(zip(names, rows, strict=True)), "count": [sum(map(len, arrays))]}


def channel_counts(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """int64[3, 256]: how many pixels of uint8[y, x, 3] have each level of each channel."""
    return np.stack([np.bincount(frame[..., c].ravel(), minlength=LEVELS) for c in range(3)])


def image_statistics(counts: npt.NDArray[np.int64], num_frames: int) -> Statistics:
    """The statistics of pixels divided by 255, each as [[[red]], [[green]], [[blue]]].

    Exact over every pixel of every frame; LeRobot samples frames and rows of them.

    Args:
        counts: int64[3, 256], of `channel_counts`, summed over frames.
        num_frames: how many frames they come from, the count.
    """
    levels = np.arange(LEVELS) / (LEVELS - 1)
    total = counts.sum(axis=1)
    mean = counts @ levels / total
    deviations = (levels[None] - mean[:, None]) ** 2
    present = counts > 0
    table = {
        "min": levels[present.argmax(axis=1)],
        "max": levels[LEVELS - 1 - present[:, ::-1].argmax(axis=1)],
        "mean": mean,
        "std": np.sqrt((counts * deviations).sum(axis=1) / total),
        **{name: _quantile(counts, levels, at) for name, at in QUANTILES.items()},
    }
    statistics: Statistics = {name: row.reshape(3, 1, 1).tolist() for name, row in table.items()}
    return {**statistics, "count": [num_frames]}


def _quantile(
    counts: npt.NDArray[np.int64], levels: npt.NDArray[np.float64], at: float
) -> npt.NDArray[np.float64]:
    """float64[3]: between the two pixels around that rank, as numpy's default does."""
    values = []
    for channel in counts:
        ranks = np.cumsum(channel)
        place = (ranks[-1] - 1) * at
        low, high = (
            levels[np.searchsorted(ranks, rank, side="right")]
            for rank in (np.floor(place), np.ceil(place))
        )
        values.append(low + (high - low) * (place - np.floor(place)))
    return np.array(values)
