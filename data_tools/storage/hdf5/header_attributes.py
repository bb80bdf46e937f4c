"""Attributes read out of an object's header, and whether their texts lie in sound heaps.

Asking HDF5 for an attribute takes 30 microseconds, and an index of many episodes asks for a dozen
of each. HDF5 must not be asked for a text in a broken heap at all, and does not tell where an
attribute's value is. So the messages of the object's header are read here: a single number or text
as h5py writes it is taken from them, anything else is left to HDF5. Attributes in dense storage
(new files with more than 8 on one object) are not looked at.

Source: the HDF5 File Format Specification, IV.A.1 "Data Object Header Prefix", IV.A.2.m
(attribute) and q (continuation).
"""

import os
import struct
import threading
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import h5py
import numpy as np

from data_tools.storage.files.cache import LruCache
from data_tools.storage.hdf5.soundness import (
    IDENTIFIER_BYTES,
    UnsoundStorageError,
    has_known_sizes,
    number,
    require_sound_identifier,
    text_of,
)

MAX_BLOCK_BYTES: Final = 1 << 24
MAX_BLOCKS: Final = 1 << 12
_ATTRIBUTE: Final = 0x0C
_CONTINUATION: Final = 0x10
_VARIABLE: Final = 9  # class of types of variable length
_SCALARS: Final = (b"\1" + bytes(7), b"\2" + bytes(3))  # by the version of the message
_SHARED: Final = 2
_HEAD_1: Final = struct.Struct("<HHB3x")  # of a message: type, length, flags
_HEAD_2: Final = struct.Struct("<BHB")
_HEAD: Final = struct.Struct("<BBHHH")  # of an attribute: version, flags, bytes of each part

# The types that h5py gives single numbers and texts, as a header holds them: of a text, it holds
# the heap identifier, and memory a pointer.
_NUMBERS: Final = {
    h5py.h5t.py_create(np.dtype(code), logical=True).encode()[2:]: struct.Struct(f"<{code}")
    for code in "?bBhHiIqQefd"
}
_TEXTS: Final = {
    kind[2:6] + IDENTIFIER_BYTES.to_bytes(4, "little") + kind[10:]
    for encoding in ("utf-8", "ascii")
    for kind in [h5py.h5t.py_create(h5py.string_dtype(encoding), logical=True).encode()]
}


class _Attribute(NamedTuple):
    """An attribute message: its type and shape as encoded, and its value with padding behind."""

    kind: bytes
    shape: bytes
    value: bytes


class _Place(NamedTuple):
    """An open file: its descriptor, the bytes before HDF5 starts in it, whether it can change."""

    descriptor: int
    base: int
    is_writable: bool


# By HDF5's number of the open file, which it gives once, and the object's address.
_PLACES: Final[LruCache[_Place | None]] = LruCache(1 << 10, weigh=lambda _: 1)
_KNOWN: Final[LruCache[Mapping[bytes, _Attribute]]] = LruCache(
    1 << 22, weigh=lambda found: 256 + sum(256 + len(one.value) for one in found.values())
)
_LOCK: Final = threading.Lock()


def plain_attribute(holder: h5py.Group | h5py.Dataset, name: str) -> float | bool | bytes | None:
    """A single number or text; None where HDF5 must be asked, which knows more kinds.

    Raises:
        UnsoundStorageError: it is a text in a broken heap.
    """
    place, found = _attributes(holder)
    one = found.get(name.encode())
    if place is None or place.is_writable or one is None or one.shape not in _SCALARS:
        return None
    numbers = _NUMBERS.get(one.kind)
    if numbers is not None and len(one.value) >= numbers.size:
        value: float | bool = numbers.unpack_from(one.value)[0]
        return value
    if one.kind in _TEXTS:
        return text_of(place.descriptor, place.base, one.value[:IDENTIFIER_BYTES])
    return None


def require_sound_texts(holder: h5py.Group | h5py.Dataset) -> None:
    """UnsoundStorageError where an attribute of variable length lies in a broken heap."""
    place, found = _attributes(holder)
    if place is None:
        return
    for one in found.values():
        if one.kind[:1] and one.kind[0] & 0x0F == _VARIABLE:
            for at in range(0, len(one.value) - IDENTIFIER_BYTES + 1, IDENTIFIER_BYTES):
                identifier = one.value[at : at + IDENTIFIER_BYTES]
                require_sound_identifier(place.descriptor, place.base, identifier)


def _attributes(
    holder: h5py.Group | h5py.Dataset,
) -> tuple[_Place | None, Mapping[bytes, _Attribute]]:
    """The attributes in the header of an object of a file on a disk of this machine."""
    # H5Oget_info would visit the whole index of the chunks to tell its size
    info = h5py.h5g.get_objinfo(holder.id, b".")
    address = info.objno[0] | info.objno[1] << 32  # in two parts where a C long has 32 bits
    with _LOCK:
        place = _PLACES.get_or_make(info.fileno, lambda: _place_of(holder))
        if place is None:
            return None, {}
        of = (info.fileno, address)
        return place, _KNOWN.get_or_make(of, lambda: dict(_read(place, address)))


def _place_of(holder: h5py.Group | h5py.Dataset) -> _Place | None:
    file = h5py.h5i.get_file_id(holder.id)
    if not has_known_sizes(file):
        return None
    base = file.get_create_plist().get_userblock()
    return _Place(file.get_vfd_handle(), base, file.get_intent() != h5py.h5f.ACC_RDONLY)


def _read(place: _Place, address: int) -> Iterator[tuple[bytes, _Attribute]]:
    """Names and attributes of a header, but for those with a type or shape that lies elsewhere."""
    for message, message_flags, data in _messages(place, address):
        if message != _ATTRIBUTE or message_flags & _SHARED or len(data) < 9:
            continue
        version, flags, name, kind, shape = _HEAD.unpack_from(data)
        if version not in (1, 2, 3) or (version > 1 and flags & 3):
            continue
        step = 8 if version == 1 else 1  # the parts are padded to
        name_start = 9 if version == 3 else 8
        kind_start = name_start + -(-name // step) * step
        shape_start = kind_start + -(-kind // step) * step
        yield (
            data[name_start : name_start + name].partition(b"\0")[0],
            _Attribute(
                data[kind_start : kind_start + kind],
                data[shape_start : shape_start + shape],
                data[shape_start + -(-shape // step) * step :],
            ),
        )


def _messages(place: _Place, address: int) -> Iterator[tuple[int, int, bytes]]:
    """Type, flags and content of the messages of an object header of either format."""
    prefix = os.pread(place.descriptor, 32, place.base + address)
    if prefix.startswith(b"OHDR"):
        flags, width = prefix[5], 1 << (prefix[5] & 3)
        start = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        length = number(prefix[start : start + width])
        blocks, head, fields = [(address + start + width, length)], _HEAD_2, 6 if flags & 4 else 4
    else:
        blocks, head, fields = [(address + 16, number(prefix[8:12]))], _HEAD_1, 8
    for start, length in blocks:  # grows as continuations are met
        if length > MAX_BLOCK_BYTES or len(blocks) > MAX_BLOCKS:
            raise UnsoundStorageError("an object header that goes on without end")
        if start > os.fstat(place.descriptor).st_size:
            raise UnsoundStorageError("an object header that goes on behind the file's end")
        block = os.pread(place.descriptor, length, place.base + start)
        at = 4 if block.startswith(b"OCHK") else 0
        while at + fields <= len(block):
            kind, size, flags = head.unpack_from(block, at)
            data = block[at + fields : at + fields + size]
            if kind == _CONTINUATION and size >= 16:
                blocks.append((number(data[:8]), number(data[8:16])))
            yield kind, flags, data
            at += fields + size
