"""Resizing of camera images on the device, on floats, and their scaling to [-1, 1]."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from data_tools.storage.frames.images import fitting_size
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
    new_rows, new_columns = fitting_size(rows, columns, height, width)
    resized = interpolate(images, (new_rows, new_columns), mode="bilinear", align_corners=False)
    above, before = height - new_rows, width - new_columns
    below, behind = 0, 0
    if how.is_centred:
        below, behind = above - above // 2, before - before // 2
    edges = (before - behind, behind, above - below, below)
    return pad(resized, edges, value=how.padding)
