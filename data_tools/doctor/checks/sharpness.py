"""How sharp a picture is, by its steepest edges."""

from typing import Final

import numpy as np
import numpy.typing as npt

# The edges that count [quantile], and the pixels over which their contrast is taken.
STEEPEST: Final = 0.99
EDGE: Final = 4
# Below this contrast [of 255] there is no edge to judge by.
MIN_CONTRAST: Final = 12.0
# So many rows and columns are enough.
MAX_LINES: Final = 64


def steepness(frame: npt.NDArray[np.uint8]) -> float:
    """Which share of the contrast of the steepest edges lies within one pixel, 0 to 1; else NaN.

    An ideal edge has 1, and one that a lens blurs has less; noise and light change it little.
    """
    height, width = frame.shape[:2]
    if min(height, width) <= EDGE:
        return float("nan")
    rows = np.linspace(0, height - 1, min(height, MAX_LINES)).astype(int)
    columns = np.linspace(0, width - 1, min(width, MAX_LINES)).astype(int)
    lines = [frame[rows], frame[:, columns].transpose(1, 0, 2)]
    greys = [each.mean(axis=2, dtype=np.float32) for each in lines]
    one, four = (
        float(
            np.quantile(
                np.concatenate([np.abs(g[:, gap:] - g[:, :-gap]).ravel() for g in greys]), STEEPEST
            )
        )
        for gap in (1, EDGE)
    )
    return one / four if four >= MIN_CONTRAST else float("nan")
