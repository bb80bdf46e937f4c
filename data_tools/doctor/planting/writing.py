"""Numbers, frames and rows of an episode, written where its file stores them; in copies only."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import h5py
import numpy as np
import numpy.typing as npt

from data_tools.errors import UserError, describe
from data_tools.formats.layouts import native
from data_tools.formats.reading.hdf5_store import row_of
from data_tools.formats.reading.records import ArraySource, ColumnSource, EpisodeRecord, ImageSource
from data_tools.rewrite.frame_storage import DEFAULT_QUALITY
from data_tools.rewrite.tree import copy_attributes
from data_tools.storage.frames.images import (
    JPEG_START,
    PNG_START,
    encode_jpeg,
    encode_png,
    pad_rows,
    to_rgb_upright,
)
from data_tools.storage.hdf5.frame_encoding import frame_bytes

_NEW: Final = ".planted"

Numbers = npt.NDArray[np.floating]
Rows = npt.NDArray[np.int64]
Frame = npt.NDArray[np.uint8]


def write_numbers(
    file: h5py.File, record: EpisodeRecord, source: ArraySource, old: Numbers, new: Numbers
) -> None:
    """Store float[t, d] where the columns lie; what is equal in both keeps every bit.

    Args:
        file: a copy, open for writing.
        record: the episode.
        source: its state or its actions.
        old: what is read now.
        new: what is to be read.
    """
    is_new = (old != new) & ~(np.isnan(old) & np.isnan(new))
    rows = np.arange(record.num_steps) if record.kept is None else record.kept
    begin = 0
    for part in source.parts:
        width = len(part.columns) or int(np.prod(file[part.dataset].shape[1:]))
        columns = part.columns or range(width)
        values = new[:, begin : begin + width] / np.asarray(part.scale or 1.0)
        for dataset, steps, places in _places(file, part, source.first + rows):
            stored = dataset[()]
            flat = stored.reshape(len(stored), -1)
            for column, values_of, is_new_of in zip(
                columns, values.T, is_new[:, begin : begin + width].T, strict=True
            ):
                chosen = is_new_of[steps]
                flat[places[chosen], column] = _as_type(
                    values_of[steps][chosen], dataset, record.name
                )
            dataset[...] = stored
        begin += width


def _places(
    file: h5py.File, part: ColumnSource, rows: Rows
) -> Iterator[tuple[h5py.Dataset, Rows, Rows]]:
    """Each dataset that gives some of the rows, with their steps and their places in it."""
    dataset = file[part.dataset]
    if not part.fill:
        yield dataset, np.arange(len(rows)), rows
        return
    given = np.asarray(file[part.index][()]).ravel().astype(np.int64)
    is_given = np.isin(rows, given)
    is_whole = len(dataset) == len(file[part.fill])
    places = rows if is_whole else np.searchsorted(given, rows)
    yield dataset, np.flatnonzero(is_given), places[is_given]
    yield file[part.fill], np.flatnonzero(~is_given), rows[~is_given]


def _as_type(values: Numbers, dataset: h5py.Dataset, where: str) -> npt.NDArray[Any]:
    if dataset.dtype.kind not in "iu":
        return values.astype(dataset.dtype)
    limits = np.iinfo(dataset.dtype)
    if (
        not np.isfinite(values).all()
        or (np.rint(values).clip(limits.min, limits.max) != values).any()
    ):
        found = f"{dataset.dtype} in {dataset.name}"
        remedy = "Plant another fault, or plant it in a copy that robot-data convert made."
        raise UserError(describe(where, found, "a dataset that can hold the fault", remedy))
    return values.astype(dataset.dtype)


def write_times(file: h5py.File, record: EpisodeRecord, times: npt.NDArray[np.float64]) -> None:
    """Store seconds since the first step in the clock's own unit and type."""
    assert record.times is not None
    source, unit_s = record.times
    dataset = file[source.parts[0].dataset]
    rows = np.array([row_of(record, source.first, step) for step in range(record.num_steps)])
    stored = dataset[()]
    flat = stored.reshape(len(stored))
    readings = times / unit_s
    if dataset.dtype.kind in "iu":
        flat[rows] = flat[rows[0]] + np.rint(readings).astype(np.int64).astype(dataset.dtype)
    else:
        flat[rows] = flat[rows[0]] + readings
    dataset[...] = stored


def write_frames(
    file: h5py.File,
    record: EpisodeRecord,
    source: ImageSource,
    frames: Mapping[int, Frame | bytes],
) -> None:
    """Store frames as their neighbours are stored: turned, encoded, padded.

    Args:
        file: a copy, open for writing.
        record: the episode.
        source: its camera, which is no video.
        frames: step -> uint8[y, x, 3], RGB and upright; or the bytes of an image file as stored.
    """
    dataset = file[source.dataset]
    like = b"" if source.encoding.startswith("raw") else frame_bytes(dataset, 0)
    files: dict[int, bytes] = {}
    for step, frame in frames.items():
        row = row_of(record, source.first, step)
        if isinstance(frame, bytes):
            files[row] = frame
            continue
        # flips, turns and swaps undo themselves
        pixels = to_rgb_upright(frame, source.camera)
        if source.encoding in ("raw", "raw_chw"):
            dataset[row] = _channels_of(pixels, dataset[row], source.encoding)
        else:
            quality = int(dataset.attrs.get(native.QUALITY_ATTRIBUTE, DEFAULT_QUALITY))
            files[row] = _encoded(pixels, like, quality)
    _write_encoded(dataset, files)


def _write_encoded(dataset: h5py.Dataset, files: Mapping[int, bytes]) -> None:
    """Store the bytes of image files in these rows; rows that are too short get longer."""
    if not files:
        return
    longest = max(map(len, files.values()))
    if dataset.dtype.kind == "O":
        for row, data in files.items():
            dataset[row] = np.frombuffer(data, np.uint8)
        return
    width = dataset.dtype.itemsize if dataset.dtype.kind == "S" else dataset.shape[1]
    if longest > width:
        rows = [frame_bytes(dataset, row) for row in range(len(dataset))]
        for row, data in files.items():
            rows[row] = data
        is_text = dataset.dtype.kind == "S"
        values = np.array(rows, f"S{longest}") if is_text else pad_rows(rows)
        chunks = None if dataset.chunks is None else (dataset.chunks[0], *values.shape[1:])
        replace_dataset(dataset, values, chunks)
        return
    for row, data in files.items():
        padded = data.ljust(width, b"\0")
        dataset[row] = padded if dataset.dtype.kind == "S" else np.frombuffer(padded, np.uint8)


def replace_dataset(
    dataset: h5py.Dataset, values: npt.NDArray[Any], chunks: tuple[int, ...] | None
) -> None:
    """Other values, of another shape, in the dataset's place, with its filter and attributes."""
    above, _, name = dataset.name.rpartition("/")
    group = dataset.file[above or "/"]
    filters = {} if chunks is None else {"compression": dataset.compression}
    fresh = group.create_dataset(
        f"{name}{_NEW}", data=values, dtype=values.dtype, chunks=chunks, **filters
    )
    copy_attributes(dataset, fresh)
    del group[name]
    group.move(f"{name}{_NEW}", name)


def take_rows(group: h5py.Group, num_rows: int, rows: Sequence[int] | Rows) -> None:
    """Every dataset below a group that has a row a step, or one more, with these rows instead.

    Args:
        group: the episode's, which shares no dataset with other episodes.
        num_rows: of its actions.
        rows: of them, in the new order.
    """
    found: list[h5py.Dataset] = []

    def look(_: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.shape and len(item) - num_rows in (0, 1):
            found.append(item)

    group.visititems(look)
    for dataset in found:
        last = [len(dataset) - 1] * (len(dataset) - num_rows)
        values = dataset[()][[*rows, *last]]
        chunks = dataset.chunks
        small = None if chunks is None else (min(chunks[0], len(values)), *chunks[1:])
        replace_dataset(dataset, values.astype(dataset.dtype), small)
    if native.NUM_SAMPLES_ATTRIBUTE in group.attrs:
        group.attrs[native.NUM_SAMPLES_ATTRIBUTE] = len(rows)


def _channels_of(pixels: Frame, there: Frame, encoding: str) -> Frame:
    """Colour pixels in the channels that the dataset has: grey, colour, or with its alpha."""
    if encoding == "raw_chw":
        there = there.transpose(1, 2, 0)
    if there.shape[2] == 1:
        pixels = pixels.mean(axis=2, keepdims=True).astype(np.uint8)
    elif there.shape[2] == 4:
        pixels = np.concatenate([pixels, there[:, :, 3:]], axis=2)
    return pixels.transpose(2, 0, 1) if encoding == "raw_chw" else pixels


def _encoded(pixels: Frame, like: bytes, quality: int) -> bytes:
    if like.startswith(JPEG_START):
        return encode_jpeg(pixels, quality)
    return encode_png(pixels) if like.startswith(PNG_START) else pixels.tobytes()
