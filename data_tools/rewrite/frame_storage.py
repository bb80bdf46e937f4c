"""Camera frames in an HDF5 dataset, whatever their storage, and rewritten to one frame a chunk.

The JPEG files of an episode's camera: as they are stored, or encoded once.
"""

import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal

import h5py
import hdf5plugin
import numpy as np
import numpy.typing as npt

from data_tools.episode import Episode, StoresJpeg
from data_tools.errors import UserError, describe
from data_tools.formats.layouts import native
from data_tools.rewrite.unfinished import require_room
from data_tools.storage.frames.images import (
    JPEG_START,
    PNG_START,
    UndecodableFrameError,
    decode_frame,
    encode_jpeg,
    encode_png,
)

DEFAULT_QUALITY: Final = 95


def require_quality(quality: int) -> None:
    """UserError unless JPEG has such a quality."""
    if not 1 <= quality <= 100:
        expected, remedy = "a whole number from 1 to 100", "95 is a good value."
        raise UserError(describe("quality", repr(quality), expected, remedy))


def jpeg_frames(episode: Episode, camera: str, quality: int) -> list[bytes]:
    """The JPEG of every frame: the stored bytes where there are any, else encoded at `quality`.

    A lossy image is never encoded a second time unless its size was changed. Every frame is decoded
    all the same: what is copied can be read.

    Raises:
        UserError: a frame's stored bytes are no whole image of the declared size.
    """
    return [_jpeg(episode, camera, step, quality) for step in range(episode.num_steps)]


def _jpeg(episode: Episode, camera: str, step: int, quality: int) -> bytes:
    frame = episode.image(camera, step)
    stored = episode.jpeg(camera, step) if isinstance(episode, StoresJpeg) else None
    return stored or encode_jpeg(frame, quality)


def as_float32(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """float32[t, d], the type every format we write keeps numbers in."""
    return np.asarray(values, dtype=np.float32)


Encoding = Literal["raw", "jpeg", "png"]
Storage = Literal["jpeg", "png", "blosc", "raw"]

MIN_SIDE: Final = 8
MIN_SIDE_WITHOUT_COLOR: Final = 32
# Bit depth and colour type in a PNG's header: 8-bit RGB, which JPEG can hold. Grey levels, a
# palette, an alpha channel or 16 bits are masks and depth, whose every number counts.
PNG_KIND: Final = slice(24, 26)
PNG_RGB: Final = b"\x08\x02"
SLAB_BYTES: Final = 64 << 20
SPOOL_BYTES: Final = 256 << 20

Pixels = npt.NDArray[Any]
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Frames:
    """A dataset with one camera frame a row.

    Attributes:
        dataset: the open dataset.
        encoding: pixels, or the bytes of an image file a row.
        is_color: whether rows of pixels are uint8[y, x, 3], which JPEG and PNG can hold; depth and
            channels-first frames are not.
    """

    dataset: h5py.Dataset
    encoding: Encoding
    is_color: bool

    def __len__(self) -> int:
        return len(self.dataset)

    def row(self, step: int) -> Pixels | bytes:
        """The pixels, or the bytes without their padding."""
        value = self.dataset[step]
        return value if self.encoding == "raw" else _unpadded(value)

    def pixels(self, step: int) -> Pixels:
        """One frame as an array; encoded ones are decoded, channels in their stored order."""
        value = self.row(step)
        return decode_frame(value) if isinstance(value, bytes) else value

    def rows(self) -> Iterator[Pixels | bytes]:
        """Every row in order; each stored chunk is read once."""
        size = max(1, self.dataset.dtype.itemsize * int(np.prod(self.dataset.shape[1:])))
        per_chunk = self.dataset.chunks[0] if self.dataset.chunks else 1
        step = max(1, SLAB_BYTES // size // per_chunk) * per_chunk
        for start in range(0, len(self.dataset), step):
            for value in self.dataset[start : start + step]:
                yield value if self.encoding == "raw" else _unpadded(value)


def find_frames(dataset: h5py.Dataset) -> Frames | None:
    """The dataset as camera frames, None when it holds anything else.

    Frames are rows of at least 8 x 8 colour pixels, 32 x 32 of depth or channels first, or rows of
    bytes that start as a JPEG or an RGB PNG file: padded to one length, of variable length, or
    strings.
    """
    if dataset.shape is None or dataset.ndim == 0 or len(dataset) == 0:
        return None
    if dataset.dtype.kind in "uif" and dataset.ndim in (3, 4):
        is_color = dataset.dtype == np.uint8 and dataset.ndim == 4 and dataset.shape[3] == 3
        side = sorted(dataset.shape[1:])[-2]
        is_image = side >= (MIN_SIDE if is_color else MIN_SIDE_WITHOUT_COLOR)
        return Frames(dataset, "raw", is_color) if is_image else None
    if not _holds_bytes(dataset):
        return None
    start = _unpadded(dataset[0])[: PNG_KIND.stop]
    if start.startswith(JPEG_START):
        return Frames(dataset, "jpeg", True)
    is_png = start.startswith(PNG_START) and start[PNG_KIND] == PNG_RGB
    return Frames(dataset, "png", True) if is_png else None


def write_frames(
    frames: Frames, group: h5py.Group, name: str, storage: Storage, quality: int, advance: Advance
) -> h5py.Dataset:
    """A new dataset of the same frames, one frame a chunk, with an `encoding` attribute if encoded.

    JPEG and PNG bytes stay as they are where the source has them, and byte strings stay strings.
    Frames that JPEG and PNG cannot hold (depth, channels first) keep their pixels, gzipped one by
    one.

    Args:
        frames: what to write.
        group: where, in a file open for writing.
        name: of the new dataset.
        storage: jpeg (lossy), png, blosc (LZ4 through hdf5plugin) or raw.
        quality: of JPEG, 1 to 100.
        advance: called with the number of source bytes done.

    Raises:
        UserError: a frame's bytes are not a whole image.
    """
    keeps_bytes = frames.encoding == "jpeg" or (frames.encoding, storage) == ("png", "png")
    if keeps_bytes and storage in ("jpeg", "png") and frames.dataset.dtype.kind in "SV":
        return _write_strings(frames, group, name, advance)
    if storage in ("jpeg", "png") and frames.is_color:
        encode = None if keeps_bytes else _encoder(storage, quality)
        return _write_encoded(frames, group, name, encode, advance)
    return _write_pixels(frames, group, name, storage, advance)


def _write_encoded(
    frames: Frames,
    group: h5py.Group,
    name: str,
    encode: Callable[[Pixels], bytes] | None,
    advance: Advance,
) -> h5py.Dataset:
    """Rows of bytes, zero-padded to the longest, which is known only when all are encoded."""
    lengths: list[int] = []
    folder = str(Path(group.file.filename).parent)
    with tempfile.SpooledTemporaryFile(SPOOL_BYTES, dir=folder) as spool:
        for step, row in enumerate(frames.rows()):
            pixels = _pixels_of(frames, row, step)  # what is copied can be decoded
            data = row if encode is None else encode(pixels)
            assert isinstance(data, bytes)
            spool.write(data)
            lengths.append(len(data))
            advance(frames.dataset.nbytes // len(frames))
        spool.seek(0)
        dataset = write_padded_rows(group, name, spool, lengths)
    kind = frames.encoding if encode is None else _kind_of(dataset[0])
    dataset.attrs[native.ENCODING_ATTRIBUTE] = kind
    return dataset


def _write_strings(frames: Frames, group: h5py.Group, name: str, advance: Advance) -> h5py.Dataset:
    """The same byte strings, by which some layouts are known, one a chunk."""
    old = frames.dataset
    dataset = group.create_dataset(name, shape=old.shape, dtype=old.dtype, chunks=(1,))
    for step in range(len(old)):
        value = old[step]
        _pixels_of(frames, _unpadded(value), step)  # what is copied can be decoded
        dataset[step] = value
        advance(old.nbytes // len(old))
    return dataset


def write_padded_rows(
    group: h5py.Group, name: str, stream: IO[bytes], lengths: list[int]
) -> h5py.Dataset:
    """A new dataset uint8[t, n] of the rows that follow one another in a stream, a row a chunk."""
    width = max(lengths)
    dataset = group.create_dataset(
        name, shape=(len(lengths), width), dtype=np.uint8, chunks=(1, width)
    )
    for step, length in enumerate(lengths):
        dataset.id.write_direct_chunk((step, 0), stream.read(length).ljust(width, b"\0"))
    return dataset


def _write_pixels(
    frames: Frames, group: h5py.Group, name: str, storage: Storage, advance: Advance
) -> h5py.Dataset:
    shape, dtype = frames.dataset.shape, frames.dataset.dtype
    if frames.encoding != "raw":
        shape, dtype = (len(frames), *_first(frames).shape), np.dtype(np.uint8)
    match storage:
        case "blosc":
            filters = dict(hdf5plugin.Blosc(cname="lz4", clevel=5))
        case "raw":
            filters = {}
            num_bytes = math.prod(shape) * dtype.itemsize
            require_room(Path(group.file.filename), num_bytes)
        case _:
            filters = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
    dataset = group.create_dataset(
        name, shape=shape, dtype=dtype, chunks=(1, *shape[1:]), **filters
    )
    for step, row in enumerate(frames.rows()):
        pixels = _pixels_of(frames, row, step)
        if pixels.shape != shape[1:]:
            raise UserError(_other_size(frames, step, pixels.shape, shape[1:]))
        dataset[step] = pixels
        advance(frames.dataset.nbytes // len(frames))
    if frames.encoding != "raw":
        dataset.attrs[native.ENCODING_ATTRIBUTE] = "raw"
    return dataset


def _first(frames: Frames) -> Pixels:
    row = frames.row(0)
    return _pixels_of(frames, row, 0)


def _pixels_of(frames: Frames, row: Pixels | bytes, step: int) -> Pixels:
    if not isinstance(row, bytes):
        return row
    try:
        return decode_frame(row)
    except UndecodableFrameError as error:
        where = f"{frames.dataset.file.filename}:{frames.dataset.name.lstrip('/')}, step {step}"
        remedy = "Leave it out (--drop); robot-data salvage copies the episodes that are whole."
        raise UserError(describe(where, str(error), "a whole image", remedy)) from error


def _other_size(
    frames: Frames, step: int, found: tuple[int, ...], expected: tuple[int, ...]
) -> str:
    where = f"{frames.dataset.file.filename}:{frames.dataset.name.lstrip('/')}, step {step}"
    remedy = "Resize the frames, or keep them encoded (--images jpeg)."
    return describe(
        where, f"an image of shape {list(found)}", f"{list(expected)} as at step 0", remedy
    )


def _encoder(storage: Storage, quality: int) -> Callable[[Pixels], bytes]:
    return encode_png if storage == "png" else lambda pixels: encode_jpeg(pixels, quality)


def _kind_of(row: npt.NDArray[np.uint8]) -> Encoding:
    return "jpeg" if bytes(row[:3]) == JPEG_START else "png"


def _holds_bytes(dataset: h5py.Dataset) -> bool:
    if dataset.dtype == np.uint8:
        return dataset.ndim == 2
    is_variable = h5py.check_vlen_dtype(dataset.dtype) == np.uint8
    return dataset.ndim == 1 and (is_variable or dataset.dtype.kind in "SV")


def _unpadded(value: object) -> bytes:
    """The bytes of a row; an image file never ends with the zeros it is padded with."""
    data = value if isinstance(value, bytes) else np.asarray(value).tobytes()
    return data.rstrip(b"\0")
