"""Resizing of camera images: on uint8 in data workers, or on floats on the device."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

from policy_ft.config.transforms import Resize


@dataclass(frozen=True)
class FloatResize:
    """A resize on the device, bilinear without antialiasing, the aspect ratio kept.

    Attributes:
        is_centred: whether the padding lies around the centre, else on the left and at the top.
        padding: its value in [0, 1], before images are scaled to [-1, 1].
    """

    is_centred: bool
    padding: float


FLOAT_RESIZES: Final[dict[Resize, FloatResize]] = {
    "torch_bilinear_lefttop_pad": FloatResize(is_centred=False, padding=0.0),
    "torch_bilinear_center_pad": FloatResize(is_centred=True, padding=0.0),
    "torch_bilinear_center_pad_minus_three": FloatResize(is_centred=True, padding=-1.0),
}


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
    new_rows, new_columns = _fitting_size(rows, columns, height, width)
    resized: Any = Image.fromarray(image).resize((new_columns, new_rows), Image.Resampling.BILINEAR)
    top, left = (height - new_rows) // 2, (width - new_columns) // 2
    padded = np.zeros((height, width, 3), dtype=np.uint8)
    padded[top : top + new_rows, left : left + new_columns] = np.asarray(resized)
    return padded


def to_model_images(cameras: Sequence[Tensor], height: int, width: int, resize: Resize) -> Tensor:
    """float32[b, k, 3, height, width], RGB in [-1, 1], of k cameras on their device.

    Args:
        cameras: uint8[b, y, x, 3] each; of the model's size unless `resize` is one of
            FLOAT_RESIZES, for which every camera may have its own.
        height: rows of the result.
        width: columns of the result.
        resize: what is still to be done.
    """
    size = (len(cameras[0]), len(cameras), 3, height, width)
    images = torch.empty(size, dtype=torch.float32, device=cameras[0].device)
    if resize not in FLOAT_RESIZES:
        for slot, frames in enumerate(cameras):
            images[:, slot] = frames.permute(0, 3, 1, 2)
        return images.div_(127.5).sub_(1.0)
    for slot, frames in enumerate(cameras):
        unit = frames.permute(0, 3, 1, 2).to(torch.float32).div_(255.0)
        images[:, slot] = resize_float(unit, height, width, FLOAT_RESIZES[resize])
    return images.mul_(2.0).sub_(1.0)


def resize_float(images: Tensor, height: int, width: int, how: FloatResize) -> Tensor:
    """float32[b, 3, height, width]: whole images at their aspect ratio, padded.

    A 100 x 200 image for 64 x 64 becomes 32 x 64, below 32 padded rows or between 16 and 16. Sizes
    round down, as in lerobot's `resize_with_pad` (SmolVLA) and `resize_with_pad_torch` (pi0).

    Args:
        images: float32[b, 3, y, x] in [0, 1].
        height: rows of the result.
        width: columns of the result.
        how: where the padding lies, and its value.
    """
    rows, columns = images.shape[2:]
    if (rows, columns) == (height, width):
        return images
    new_rows, new_columns = _fitting_size(rows, columns, height, width)
    resized = interpolate(images, (new_rows, new_columns), mode="bilinear", align_corners=False)
    above, before = height - new_rows, width - new_columns
    below, behind = 0, 0
    if how.is_centred:
        below, behind = above - above // 2, before - before // 2
    edges = (before - behind, behind, above - below, below)
    return pad(resized, edges, value=how.padding)


def _fitting_size(rows: int, columns: int, height: int, width: int) -> tuple[int, int]:
    """Largest (rows, columns) of the same aspect ratio within height and width, rounded down."""
    ratio = max(columns / width, rows / height)
    return int(rows / ratio), int(columns / ratio)
