"""Resizing of whole frames at their aspect ratio."""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image


def resize_center_pad(
    image: npt.NDArray[np.uint8], height: int, width: int
) -> npt.NDArray[np.uint8]:
    """uint8[height, width, 3]: the whole image at its aspect ratio, centred on black.

    A 100 x 200 image for 64 x 64 becomes 32 x 64, with 16 black rows above and below. PIL's
    bilinear filter (antialiased) on uint8; sizes and borders round down, as in openpi's
    `image_tools.py`, so that pretrained weights see the pixels they were trained on.

    Args:
        image: uint8[y, x, 3].
        height: rows of the result.
        width: columns of the result.
    """
    rows, columns = image.shape[:2]
    if (rows, columns) == (height, width):
        return image
    new_rows, new_columns = fitting_size(rows, columns, height, width)
    resized: Any = Image.fromarray(image).resize((new_columns, new_rows), Image.Resampling.BILINEAR)
    top, left = (height - new_rows) // 2, (width - new_columns) // 2
    padded = np.zeros((height, width, 3), dtype=np.uint8)
    padded[top : top + new_rows, left : left + new_columns] = np.asarray(resized)
    return padded


def fitting_size(rows: int, columns: int, height: int, width: int) -> tuple[int, int]:
    """Largest (rows, columns) of the same aspect ratio within height and width, rounded down."""
    ratio = max(columns / width, rows / height)
    return int(rows / ratio), int(columns / ratio)
