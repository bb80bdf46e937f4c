"""Store: open files and the numbers read last, for the episodes of one HDF5 dataset."""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from data_tools.formats.reading.records import ArraySource, ColumnSource, EpisodeRecord, ImageSource
from data_tools.storage.files.cache import LruCache
from data_tools.storage.frames.images import (
    UndecodableFrameError,
    decode_frame,
    three_channels,
    to_rgb_upright,
)
from data_tools.storage.frames.videos import UndecodableVideoError, VideoFrames
from data_tools.storage.hdf5.frame_encoding import frame_bytes
from data_tools.storage.hdf5.opening import FileHandles, Stamp
from data_tools.storage.hdf5.soundness import require_chunk

ARRAY_CACHE_BYTES = 256 << 20
MAX_OPEN_VIDEOS = 16


class Store:
    """Reads what episode records point at. Picklable: a worker starts empty and opens its own.

    Files cannot be shared between processes, and sending the arrays would cost more than reading
    them.

    Args:
        stamps: path -> size and time of each file that must not change while it is read.
    """

    def __init__(self, stamps: Mapping[str, Stamp]) -> None:
        self._handles = FileHandles(stamps)
        self._arrays: LruCache[npt.NDArray[np.float32]] = LruCache(
            ARRAY_CACHE_BYTES, weigh=lambda array: array.nbytes
        )
        self._forget_videos()

    def __getstate__(self) -> Mapping[str, Stamp]:
        return self._handles.stamps

    def __setstate__(self, stamps: Mapping[str, Stamp]) -> None:
        self.__init__(stamps)  # type: ignore[misc]

    def low_dim(self, record: EpisodeRecord, source: ArraySource) -> npt.NDArray[np.float32]:
        """float32[t, d], read-only: the columns of a source at every step."""
        with self._handles.lock:
            return self._arrays.get_or_make(
                (record.path, source, record.num_steps),
                lambda: self._read_low_dim(record, source),
            )

    def holding(self) -> AbstractContextManager[None]:
        """Within it numbers that were read stay in memory, all of them."""
        return self._arrays.holding()

    def times(
        self, record: EpisodeRecord, source: ArraySource, unit_s: float
    ) -> npt.NDArray[np.float64]:
        """float64[t]: seconds since the first step, from clock readings."""
        with self._handles.lock:
            dataset = self._handles.open(record.path)[source.parts[0].dataset]
            readings = _at_steps(dataset, source, record)
        # A clock in nanoseconds since 1970 has more digits than float64: subtract first, in numbers
        # that have a sign, for a clock may have been set back.
        if readings.dtype.kind in "iu":
            readings = readings.astype(np.int64)
        since = readings.reshape(len(readings)) - readings.reshape(-1)[0]
        return since.astype(np.float64) * unit_s

    def frame(self, record: EpisodeRecord, source: ImageSource, step: int) -> npt.NDArray[np.uint8]:
        """uint8[y, x, 3], RGB, upright.

        Raises:
            UndecodableFrameError: the stored bytes are no whole image.
            OSError: the file's storage is damaged.
        """
        row = row_of(record, source.first, step)
        if source.encoding == "video":
            return to_rgb_upright(self._video_frame(source.dataset, row), source.camera)
        if source.encoding in ("raw", "raw_chw"):
            with self._handles.lock:
                pixels = _pixels(self._handles.open(record.path), source, row)
            if source.encoding == "raw_chw":
                pixels = pixels.transpose(1, 2, 0)
            return to_rgb_upright(three_channels(pixels), source.camera)
        size = (source.camera.height, source.camera.width)
        decoded = decode_frame(self.encoded(record, source, step), size)
        return to_rgb_upright(decoded, source.camera)

    def encoded(self, record: EpisodeRecord, source: ImageSource, step: int) -> bytes:
        """The stored bytes of a frame in rows or of variable length, padding included."""
        row = row_of(record, source.first, step)
        with self._handles.lock:
            file = self._handles.open(record.path)
            if source.is_chunk_per_frame:
                return _chunk(file, source.dataset, row)
            return frame_bytes(file[source.dataset], row)

    def _read_low_dim(self, record: EpisodeRecord, source: ArraySource) -> npt.NDArray[np.float32]:
        file = self._handles.open(record.path)
        parts = [_columns(file, part, source, record) for part in source.parts]
        joined = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
        joined.setflags(write=False)
        return joined

    def _video_frame(self, path: str, number: int) -> npt.NDArray[np.uint8]:
        with self._handles.lock:
            if self._videos_pid != os.getpid():
                self._forget_videos()
            try:
                return self._videos.get_or_make(path, lambda: VideoFrames(path)).frame(number)
            except UndecodableVideoError as error:
                raise UndecodableFrameError(f"{path}: {error}") from error

    def _forget_videos(self) -> None:
        self._videos_pid = os.getpid()
        self._videos: LruCache[VideoFrames] = LruCache(
            MAX_OPEN_VIDEOS, weigh=lambda _: 1, on_evict=VideoFrames.close
        )


def row_of(record: EpisodeRecord, first: int, step: int) -> int:
    """The row of a dataset that belongs to a step."""
    return first + (step if record.kept is None else int(record.kept[step]))


def _at_steps(
    dataset: h5py.Dataset, source: ArraySource, record: EpisodeRecord
) -> npt.NDArray[Any]:
    """The rows of the steps, in the dataset's own numbers."""
    if record.kept is None:
        return np.asarray(dataset[source.first : source.first + record.num_steps])
    last = int(record.kept[-1])
    return np.asarray(dataset[source.first : source.first + last + 1])[record.kept]


def _columns(
    file: h5py.File, part: ColumnSource, source: ArraySource, record: EpisodeRecord
) -> npt.NDArray[np.float32]:
    """float32[t, d] of one dataset."""
    if part.fill:
        whole = _filled(file, part)
        rows = np.arange(record.num_steps) if record.kept is None else record.kept
        values = whole[source.first + rows]
    else:
        values = _at_steps(file[part.dataset], source, record)
    values = values.reshape(len(values), -1)
    if part.columns:
        values = values[:, list(part.columns)]
    if part.scale:
        values = values * np.asarray(part.scale)
    with np.errstate(over="ignore"):  # infinite then, which the doctor tells
        return np.asarray(values, dtype=np.float32)


def _filled(file: h5py.File, part: ColumnSource) -> npt.NDArray[Any]:
    """The dataset's values in the rows its index names, and the other dataset's elsewhere."""
    whole = np.array(file[part.fill][()])
    values = file[part.dataset][()]
    rows = np.asarray(file[part.index][()]).ravel().astype(np.int64)
    if len(values):
        whole[rows] = values[rows] if len(values) == len(whole) else values
    return whole


def _pixels(file: h5py.File, source: ImageSource, row: int) -> npt.NDArray[np.uint8]:
    """The stored pixels of one frame; straight from its chunk where that is all there is to it."""
    if not source.is_chunk_per_frame:
        dataset = file[source.dataset]
        require_chunk(dataset, row)
        return np.asarray(dataset[row])
    stored = h5py.h5d.open(file.id, source.dataset.encode())
    pixels = np.empty(stored.shape[1:], dtype=np.uint8)
    start = (row, *(0,) * pixels.ndim)
    # h5py writes a longer chunk past the end of `out`, and leaves the rest of it for a shorter one.
    size = stored.get_chunk_info_by_coord(start).size
    if size != pixels.nbytes:
        raise UndecodableFrameError(f"{size} stored bytes for a frame of {pixels.nbytes}")
    stored.read_direct_chunk(start, out=pixels.reshape(-1))
    return pixels


def _chunk(file: h5py.File, name: str, row: int) -> bytes:
    """The bytes of one chunk without filters.

    Past h5py's indexing and HDF5's chunk cache: a fifth of the time of indexing.
    """
    dataset = h5py.h5d.open(file.id, name.encode())
    try:
        return bytes(dataset.read_direct_chunk((row, 0))[1])
    except RuntimeError as error:
        # How h5py reports a chunk that was never written.
        raise UndecodableFrameError(f"no stored bytes ({error})") from error
