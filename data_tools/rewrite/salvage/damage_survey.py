"""What of an HDF5 file can be read: every object by itself, every dataset block by block."""

import hashlib
from collections import Counter
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from typing import Final

import h5py
import numpy as np

from data_tools.storage.frames.images import (
    JPEG_START,
    PNG_START,
    UndecodableFrameError,
    decode_frame,
)
from data_tools.storage.hdf5.header_attributes import require_sound_texts
from data_tools.storage.hdf5.soundness import require_sound_heap

# What h5py and numpy raise about a damaged object.
DAMAGE: Final = (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError)
MAX_BLOCK_BYTES: Final = 1 << 30
CONTIGUOUS_BLOCK_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 32
# Names looked up one by one where the list of a group's members is lost.
GUESSED_NAMES: Final = tuple(
    f"{word}_{n}" for word in ("demo", "episode", "traj") for n in range(1000)
)

Digest = bytes
Advance = Callable[[str], None]


@dataclass
class Item:
    """One object of the file: what could be read of it, and what could not.

    Attributes:
        path: from the root, without a leading slash; '' for the root.
        is_group: a group, else a dataset.
        num_rows: length of the first axis, 1 for a scalar, 0 for a group.
        faults: what is wrong with the object as a whole, in words.
        attributes: digest of each attribute that could be read.
        blocks: first row -> (row after the last, digest of the rows).
        lost: rows that cannot be read, were never written or do not decode, with the reason.
    """

    path: str
    is_group: bool
    num_rows: int = 0
    faults: list[str] = field(default_factory=list)
    attributes: dict[str, Digest] = field(default_factory=dict)
    blocks: dict[int, tuple[int, Digest]] = field(default_factory=dict)
    lost: dict[int, str] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether nothing of it is lost."""
        return not self.faults and not self.lost


def survey(file: h5py.File, advance: Advance, mended: Container[int] = ()) -> dict[str, Item]:
    """Every object that a hard link leads to, by path; reads all their bytes.

    Links to other files are never followed.

    Args:
        file: the open file, damaged or not.
        advance: called with the path of each object before it is read.
        mended: addresses of objects whose header was cut off and is shown without its end.
    """
    items: dict[str, Item] = {}
    seen: set[int] = set()
    pending: list[tuple[h5py.Group | h5py.Dataset, str, int]] = [(file["/"], "", 0)]
    while pending:
        found, path, depth = pending.pop()
        item = Item(path, isinstance(found, h5py.Group))
        try:
            address = h5py.h5o.get_info(found.id).addr
        except DAMAGE as error:
            items[path] = item
            item.faults.append(f"cannot be read ({_short(error)})")
            continue
        if address in seen:
            continue
        seen.add(address)
        advance(path)
        items[path] = item
        if address in mended:
            item.faults.append("some of its attributes lie in the part that was cut off")
        _read_attributes(found, item)
        if isinstance(found, h5py.Dataset):
            _read_rows(found, item)
        elif depth < MAX_DEPTH:
            below = list(_members(found, item))
            pending += [(each, f"{path}/{name}".lstrip("/"), depth + 1) for name, each in below]
        else:
            item.faults.append(f"lies more than {MAX_DEPTH} groups deep")
    return items


def compare_surveys(first: dict[str, Item], second: dict[str, Item]) -> dict[str, Item]:
    """The first survey, where whatever the second one read differently counts as lost.

    The surveys are of one file whose missing end was filled with two different bytes: what reads
    the same in both does not depend on the end.
    """
    reason = "lies in the part that was cut off"
    for path, item in first.items():
        other = second.get(path)
        if other is None:
            item.faults.append(reason)
            continue
        item.faults += [fault for fault in other.faults if fault not in item.faults]
        for name in {*item.attributes, *other.attributes}:
            if item.attributes.get(name) != other.attributes.get(name):
                item.faults.append(f"attribute {name!r} {reason}")
        for row, why in other.lost.items():
            item.lost.setdefault(row, why)
        for start, (stop, digest) in item.blocks.items():
            if other.blocks.get(start, (stop, b""))[1] != digest:
                item.lost |= dict.fromkeys(range(start, stop), reason)
    return first | {
        path: Item(path, other.is_group, other.num_rows, [reason])
        for path, other in second.items()
        if path not in first
    }


def _members(group: h5py.Group, item: Item) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    try:
        names: tuple[str, ...] = tuple(group)
    except DAMAGE as error:
        item.faults.append(f"the list of its members cannot be read ({_short(error)})")
        names = GUESSED_NAMES
    for name in names:
        try:
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                continue
            found = group[name]
        except DAMAGE as error:
            if names is not GUESSED_NAMES:
                item.faults.append(f"its member {name!r} cannot be opened ({_short(error)})")
            continue
        if isinstance(found, h5py.Group | h5py.Dataset):
            yield name, found


def _read_attributes(found: h5py.Group | h5py.Dataset, item: Item) -> None:
    try:
        require_sound_texts(found)
        names = list(found.attrs)
    except DAMAGE as error:
        item.faults.append(f"its attributes cannot be read ({_short(error)})")
        return
    for name in names:
        try:
            value = found.attrs[name]
            item.attributes[name] = _digest(np.asarray(value))
        except DAMAGE as error:
            item.faults.append(f"attribute {name!r} cannot be read ({_short(error)})")


def _read_rows(dataset: h5py.Dataset, item: Item) -> None:
    try:
        item.num_rows = 1 if not dataset.shape else dataset.shape[0]
        written, per_block = _written_blocks(dataset)
    except DAMAGE as error:
        item.faults.append(f"cannot be read ({_short(error)})")
        return
    num_blocks = -(-item.num_rows // per_block)
    if len(written) < num_blocks:
        # A declared length may be absurd: then name no rows, for there are too many to list.
        if num_blocks - len(written) > 1_000_000:
            item.faults.append(f"declares {item.num_rows} rows, most of them never written")
            return
        for block in set(range(num_blocks)) - set(written):
            stop = min(item.num_rows, (block + 1) * per_block)
            item.lost |= dict.fromkeys(range(block * per_block, stop), "never written")
    for block in written:
        _read_block(dataset, item, block * per_block, min(item.num_rows, (block + 1) * per_block))
    _lose_undecodable(dataset, item)


def _read_block(dataset: h5py.Dataset, item: Item, start: int, stop: int) -> None:
    try:
        if dataset.dtype.kind == "O" and dataset.ndim < 2:
            for row in range(start, stop):
                require_sound_heap(dataset, row)
        rows = dataset[start:stop] if dataset.shape else dataset[()]
        item.blocks[start] = (stop, _digest(np.asarray(rows)))
    except DAMAGE as error:
        item.lost |= dict.fromkeys(range(start, stop), f"cannot be read ({_short(error)})")


def _lose_undecodable(dataset: h5py.Dataset, item: Item) -> None:
    """Decode every frame, where rows are encoded images, and count what does not as lost."""
    if dataset.ndim not in (1, 2) or not item.blocks or not _may_hold_images(dataset):
        return
    readable = [row for start, (stop, _) in item.blocks.items() for row in range(start, stop)]
    starts = (bytes(dataset[row])[:8] for row in readable[:8])
    if not any(start.startswith((JPEG_START, PNG_START)) for start in starts):
        return
    for row in readable:
        try:
            decode_frame(bytes(dataset[row]))
        except UndecodableFrameError as error:
            item.lost[row] = f"is no whole image: {error}"


def _may_hold_images(dataset: h5py.Dataset) -> bool:
    if dataset.dtype == np.uint8 and dataset.ndim == 2:
        return True
    if dataset.ndim != 1:
        return False
    text = h5py.check_string_dtype(dataset.dtype)
    is_bytes = text is not None and text.encoding == "ascii"
    return is_bytes or h5py.check_vlen_dtype(dataset.dtype) == np.uint8


def _written_blocks(dataset: h5py.Dataset) -> tuple[list[int], int]:
    """Blocks of rows that lie in the file, and the rows in each.

    Raises:
        ValueError: the data lie in another file, or a block is too large to be real.
    """
    plist = dataset.id.get_create_plist()
    if plist.get_layout() == h5py.h5d.VIRTUAL or dataset.external:
        raise ValueError("its data lie in other files, which are not read")
    num_rows = 1 if not dataset.shape else dataset.shape[0]
    row_bytes = dataset.dtype.itemsize * int(np.prod(dataset.shape[1:], dtype=object) or 1)
    if dataset.chunks is None:
        per_block = max(1, CONTIGUOUS_BLOCK_BYTES // max(1, row_bytes)) if row_bytes else 1
        is_written = (
            dataset.size == 0
            or plist.get_layout() == h5py.h5d.COMPACT
            or dataset.id.get_offset() is not None
        )
        _require_real(min(per_block, num_rows) * row_bytes)
        return list(range(-(-num_rows // per_block))) if is_written else [], per_block
    _require_real(dataset.chunks[0] * row_bytes)
    across = int(
        np.prod([-(-s // c) for s, c in zip(dataset.shape[1:], dataset.chunks[1:], strict=True)])
    )
    found: Counter[int] = Counter()

    def count(chunk: "h5py.h5d.StoreInfo") -> None:
        found[chunk.chunk_offset[0] // dataset.chunks[0]] += 1

    dataset.id.chunk_iter(count)
    return sorted(block for block, times in found.items() if times >= across), dataset.chunks[0]


def _require_real(block_bytes: int) -> None:
    if block_bytes > MAX_BLOCK_BYTES:
        raise ValueError(f"declares {block_bytes} bytes in one piece, which is no real data")


def _digest(values: np.ndarray) -> Digest:
    """Equal iff the values are; objects (strings, rows of variable length) one by one."""
    made = hashlib.blake2b(f"{values.dtype}{values.shape}".encode(), digest_size=16)
    if values.dtype.hasobject:
        for value in values.flat:
            made.update(repr(value.tobytes() if isinstance(value, np.ndarray) else value).encode())
    else:
        made.update(np.ascontiguousarray(values).tobytes())
    return made.digest()


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:120]
