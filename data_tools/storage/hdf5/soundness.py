"""Whether what HDF5 stored of a dataset is all there, before HDF5 is asked to read it.

Files of HDF5's old format carry no checksums, and the library trusts them: a chunk that is missing
reads as zeros, numbers of a type with one changed bit read as other numbers, and a heap whose
header was overwritten with zeros is read without end (H5HG, HDF5 1.14 and 2.0).

Source: the HDF5 File Format Specification, II.A "Superblock", III.E "Global Heap", VIII.B (heap
identifiers).
"""

import math
import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import h5py

# What h5py raises where HDF5 cannot read: OSError mostly, the others in damaged headers.
UNREADABLE: Final = (OSError, RuntimeError, KeyError)
MAX_HEAP_OBJECTS: Final = 1 << 16
MAX_TEXT_BYTES: Final = 1 << 20
_HEAP_MARK: Final = b"GCOL"
_HEAP_PREFIX_BYTES: Final = 16
_OBJECT_PREFIX_BYTES: Final = 16
IDENTIFIER_BYTES: Final = 16  # length, address of the collection, number of the object
_SUPERBLOCK_BYTES: Final = 48
_STATED_LENGTH_PLACE: Final = {0: 40, 1: 44, 2: 28, 3: 28}  # by the superblock's version
_SIZES: Final = (8, 8)  # bytes of addresses and lengths in every file that h5py writes


class UnsoundStorageError(OSError):
    """What is stored cannot be what was written; the message says why."""


def surplus_bytes(file: h5py.File) -> int:
    """By how many bytes the file is longer than it says, for files of this machine's disk.

    HDF5 cuts a file to the length it states when it closes it, and reads a longer one without a
    word, though bytes may have been put in between.
    """
    if not has_known_sizes(file.id):
        return 0
    descriptor = file.id.get_vfd_handle()
    start = os.pread(descriptor, 64, file.userblock_size)
    place = _STATED_LENGTH_PLACE.get(start[8] if len(start) == 64 else -1)
    if place is None:
        return 0
    stated = file.userblock_size + number(start[place : place + 8])
    return max(0, os.fstat(descriptor).st_size - stated)


def storage_fault(dataset: h5py.Dataset) -> str:
    """What is wrong with the storage of a dataset of numbers, in words; '' when nothing is."""
    stored = dataset.id.get_type()
    if not stored.equal(h5py.h5t.py_create(dataset.dtype)):
        return f"numbers of no known type, read as {dataset.dtype}"
    if dataset.is_virtual or dataset.shape is None or 0 in dataset.shape:
        return ""
    if dataset.id.get_storage_size() == 0:
        return "nothing was ever written"
    if dataset.chunks is None:
        return ""
    expected = math.prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
    found = dataset.id.get_num_chunks()
    if found != expected:
        return f"{found} of {expected} chunks were ever written"
    return _chunk_fault(dataset, found)


def _chunk_fault(dataset: h5py.Dataset, count: int) -> str:
    """A chunk for rows there are none of, of another size than they have, or lying on another."""
    num_filters = dataset.id.get_create_plist().get_nfilters()
    whole = math.prod(dataset.chunks) * dataset.dtype.itemsize
    places: set[int] = set()

    def look(chunk: "h5py.h5d.StoreInfo") -> str | None:
        places.add(chunk.byte_offset)
        if chunk.byte_offset < _SUPERBLOCK_BYTES:
            return f"a chunk lies at byte {chunk.byte_offset}, where the file says what it is"
        if any(start >= n for start, n in zip(chunk.chunk_offset, dataset.shape, strict=True)):
            return f"a chunk is for the place {list(chunk.chunk_offset)}"
        if chunk.filter_mask and not chunk.filter_mask >> num_filters and chunk.size != whole:
            return f"a chunk of {chunk.size} bytes that skipped its filters, for {whole} of rows"
        if not num_filters and chunk.size != whole:
            return f"a chunk of {chunk.size} bytes for {whole} of rows"
        return None

    # asked for one by one, each chunk is found by a walk over all before it
    fault = dataset.id.chunk_iter(look)
    return fault or ("" if len(places) == count else "two chunks lie at one place")


def require_chunk(dataset: h5py.Dataset, row: int) -> None:
    """UnsoundStorageError where the row's first chunk was never written: it would read as zeros."""
    if dataset.chunks is None or dataset.is_virtual:
        return
    start = (row // dataset.chunks[0] * dataset.chunks[0], *(0,) * (dataset.ndim - 1))
    if dataset.id.get_chunk_info_by_coord(start).byte_offset is None:
        raise UnsoundStorageError(f"row {row} was never written")


def require_sound_heap(dataset: h5py.Dataset, row: int) -> None:
    """UnsoundStorageError where the bytes of a row of variable length lie in a broken heap.

    Looks at rows whose identifier lies in the file as it is: not compressed, and the file on a
    disk of this machine.
    """
    file = h5py.h5i.get_file_id(dataset.id)
    place = _identifier_place(dataset, row) if has_known_sizes(file) else None
    if place is not None:
        descriptor = file.get_vfd_handle()
        identifier = os.pread(descriptor, IDENTIFIER_BYTES, place)
        base = file.get_create_plist().get_userblock()
        require_sound_identifier(descriptor, base, identifier)


def require_sound_identifier(descriptor: int, base: int, identifier: bytes) -> None:
    """UnsoundStorageError where what a heap identifier names lies in a broken heap.

    Args:
        descriptor: the open file.
        base: bytes before the HDF5 file starts in it.
        identifier: length, address of the heap and number of the object, 16 bytes.
    """
    _sound_objects(descriptor, base, identifier)


def text_of(descriptor: int, base: int, identifier: bytes) -> bytes | None:
    """The text that a heap identifier names; None where it is empty, long or left to HDF5.

    Raises:
        UnsoundStorageError: as `require_sound_identifier`, which has the same arguments.
    """
    objects = _sound_objects(descriptor, base, identifier)
    place, size = objects.get(number(identifier[12:16]), (0, 0))
    if size != number(identifier[:4]) or not 0 < size <= MAX_TEXT_BYTES:
        return None
    text = os.pread(descriptor, size, place)
    return text.partition(b"\0")[0] if len(text) == size else None


def _sound_objects(descriptor: int, base: int, identifier: bytes) -> Mapping[int, tuple[int, int]]:
    """The objects in the heap of an identifier, by number; none of an empty one."""
    length, address = number(identifier[:4]), number(identifier[4:12])
    if not (length and address):
        return {}
    found = os.fstat(descriptor)
    state = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    return _sound_collection(descriptor, address + base, state)


def has_known_sizes(file: h5py.h5f.FileID) -> bool:
    """Whether a file lies on a disk of this machine and has the addresses that h5py writes."""
    is_on_disk = file.get_access_plist().get_driver() == h5py.h5fd.SEC2
    return is_on_disk and file.get_create_plist().get_sizes() == _SIZES


def _identifier_place(dataset: h5py.Dataset, row: int) -> int | None:
    """Where in the file the heap identifier of a row is; None when that cannot be told."""
    start = dataset.id.get_offset()
    if start is not None:
        return int(start) + row * IDENTIFIER_BYTES
    is_plain = dataset.chunks and dataset.id.get_create_plist().get_nfilters() == 0
    if not is_plain or dataset.ndim != 1:
        return None
    first = row // dataset.chunks[0] * dataset.chunks[0]
    chunk = dataset.id.get_chunk_info_by_coord((first,))
    if chunk.byte_offset is None:
        return None
    return int(chunk.byte_offset) + (row - first) * IDENTIFIER_BYTES


@lru_cache(maxsize=256)  # hundreds of texts lie in one heap
def _sound_collection(
    descriptor: int, start: int, state: tuple[int, ...]
) -> Mapping[int, tuple[int, int]]:
    """Number of each object of a heap -> its place and size, of a file in this state."""
    if start > os.fstat(descriptor).st_size:
        raise UnsoundStorageError("bytes that lie behind the file's end")
    prefix = os.pread(descriptor, _HEAP_PREFIX_BYTES, start)
    if not prefix.startswith(_HEAP_MARK):
        raise UnsoundStorageError("bytes that lie in no heap")
    stop = start + number(prefix[8:16])
    place = start + _HEAP_PREFIX_BYTES
    objects: dict[int, tuple[int, int]] = {}
    for _ in range(MAX_HEAP_OBJECTS):
        if stop - place < _OBJECT_PREFIX_BYTES:
            return objects
        header = os.pread(descriptor, _OBJECT_PREFIX_BYTES, place)
        index, size = number(header[:2]), number(header[8:16])
        step = _OBJECT_PREFIX_BYTES + -(-size // 8) * 8 if index else size
        if step < _OBJECT_PREFIX_BYTES or place + step > stop:
            raise UnsoundStorageError("bytes in a heap whose list of objects is broken")
        objects[index] = (place + _OBJECT_PREFIX_BYTES, size)
        place += step
    raise UnsoundStorageError(f"bytes in a heap of more than {MAX_HEAP_OBJECTS} objects")


def number(data: bytes) -> int:
    """A whole number as HDF5 stores it, least byte first."""
    return int.from_bytes(data, "little")
