"""How frames are stored in a dataset, told by its shape, its type and its first bytes."""

import math
from typing import Literal

import h5py
import numpy as np

from data_tools.storage.frames.images import encoded_size
from data_tools.storage.hdf5.soundness import require_sound_heap

Encoding = Literal["raw", "raw_chw", "rows", "variable", "video"]
MAX_FRAME_BYTES = 256 << 20


def encoding_of(dataset: h5py.Dataset) -> Encoding | None:
    """How a dataset may hold frames; None when its shape and type are no frames at all.

    uint8[t, y, x, c] with 1, 3 or 4 channels is pixels, uint8[t, c, y, x] with 1 or 3 is pixels,
    channels first; uint8[t, n] is a row of bytes a frame; one value a frame of variable length or
    of bytes is an encoded frame. A frame of more than 256 MiB, or of none, is a damaged header.
    """
    shape, dtype = dataset.shape, dataset.dtype  # looked up once: each costs microseconds
    if (
        not shape
        or 0 in shape[1:]
        or math.prod(shape[1:] or (1,)) * dtype.itemsize > MAX_FRAME_BYTES
    ):
        return None
    if dtype == np.uint8 and len(shape) == 4:
        if shape[3] in (1, 3, 4):
            return "raw"
        return "raw_chw" if shape[1] in (1, 3) else None
    if dtype == np.uint8 and len(shape) == 2:
        return "rows"
    if len(shape) == 1 and (dtype.kind == "S" or _is_variable_bytes(dataset)):
        return "variable"
    return None


def frame_bytes(dataset: h5py.Dataset, row: int) -> bytes:
    """The stored bytes of an encoded frame.

    Raises:
        OSError: the storage is damaged.
    """
    if dataset.dtype.kind == "O":
        require_sound_heap(dataset, row)
    value = dataset[row]
    return value if isinstance(value, bytes) else bytes(value)


def frame_size(
    dataset: h5py.Dataset, encoding: Encoding, raw_sizes: tuple[tuple[int, int], ...]
) -> tuple[int, int] | None:
    """(height, width) of the first frame; None when there is none.

    Raises:
        UndecodableFrameError: the first bytes are no image.
    """
    if encoding == "raw":
        return dataset.shape[1], dataset.shape[2]
    if encoding == "raw_chw":
        return dataset.shape[2], dataset.shape[3]
    if len(dataset) == 0:
        return None
    return encoded_size(frame_bytes(dataset, 0), raw_sizes)


def _is_variable_bytes(dataset: h5py.Dataset) -> bool:
    of = h5py.check_vlen_dtype(dataset.dtype)
    return of is not None and bool(np.dtype(of) == np.uint8)
