"""Whether the texts of an object's attributes lie in sound heaps, before HDF5 is asked for one.

HDF5 tells where a dataset's rows are but not where an attribute's value is, so the messages of the
object's header are read here. Attributes in dense storage (new files with more than 8 on one
object) are not looked at.

Source: the HDF5 File Format Specification, IV.A.1 "Data Object Header Prefix", IV.A.2.m
(attribute) and q (continuation).
"""

import os
import threading
from collections.abc import Iterator
from typing import Final

import h5py

from data_tools.files.cache import LruCache
from data_tools.layouts.storage import (
    IDENTIFIER_BYTES,
    UnsoundStorageError,
    has_known_sizes,
    number,
    require_sound_identifier,
)

MAX_BLOCK_BYTES: Final = 1 << 24
MAX_BLOCKS: Final = 1 << 12
_ATTRIBUTE: Final = 0x0C
_CONTINUATION: Final = 0x10
_VARIABLE: Final = 9  # class of types of variable length

Message = tuple[int, bytes]

# Objects found sound, by HDF5's number of the open file and their address: each has several texts.
_SOUND: Final[LruCache[None]] = LruCache(1 << 14, weigh=lambda _: 1)
_LOCK: Final = threading.Lock()


def require_sound_texts(holder: h5py.Group | h5py.Dataset) -> None:
    """UnsoundStorageError where an attribute of variable length lies in a broken heap."""
    # H5Oget_info would visit the whole index of the chunks to tell its size
    info = h5py.h5g.get_objinfo(holder.id, b".")
    address = info.objno[0] | info.objno[1] << 32  # in two parts where a C long has 32 bits
    with _LOCK:
        _SOUND.get_or_make((info.fileno, address), lambda: _look_at(holder, address))


def _look_at(holder: h5py.Group | h5py.Dataset, address: int) -> None:
    file = h5py.h5i.get_file_id(holder.id)
    if not has_known_sizes(file):
        return
    descriptor = file.get_vfd_handle()
    base = file.get_create_plist().get_userblock()
    for kind, data in _messages(descriptor, base, address):
        if kind == _ATTRIBUTE:
            for identifier in _identifiers(data):
                require_sound_identifier(descriptor, base, identifier)


def _messages(descriptor: int, base: int, address: int) -> Iterator[Message]:
    """The messages of an object header of either format, with those of its continuations."""
    prefix = os.pread(descriptor, 32, base + address)
    if prefix.startswith(b"OHDR"):
        flags, width = prefix[5], 1 << (prefix[5] & 3)
        start = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        length = number(prefix[start : start + width])
        blocks, fields = [(address + start + width, length)], 6 if flags & 4 else 4
    else:
        blocks, fields = [(address + 16, number(prefix[8:12]))], 8
    for place, length in blocks:  # grows as continuations are met
        if length > MAX_BLOCK_BYTES or len(blocks) > MAX_BLOCKS:
            raise UnsoundStorageError("an object header that goes on without end")
        if place > os.fstat(descriptor).st_size:
            raise UnsoundStorageError("an object header that goes on behind the file's end")
        block = os.pread(descriptor, length, base + place)
        at = 4 if block.startswith(b"OCHK") else 0
        while at + fields <= len(block):
            kind = number(block[at : at + 2]) if fields == 8 else block[at]
            size = number(block[at + 2 : at + 4] if fields == 8 else block[at + 1 : at + 3])
            data = block[at + fields : at + fields + size]
            if kind == _CONTINUATION and size >= 16:
                blocks.append((number(data[:8]), number(data[8:16])))
            yield kind, data
            at += fields + size


def _identifiers(data: bytes) -> Iterator[bytes]:
    """The heap identifiers that an attribute message ends with; none for other types."""
    if len(data) < 9 or data[0] not in (1, 2, 3):
        return
    name, kind, space = (number(data[at : at + 2]) for at in (2, 4, 6))
    start = 9 if data[0] == 3 else 8
    if data[0] == 1:
        name, kind, space = (-(-size // 8) * 8 for size in (name, kind, space))
    type_start = start + name
    if type_start >= len(data) or data[type_start] & 0x0F != _VARIABLE or data[1] & 1:
        return
    first = type_start + kind + space
    for at in range(first, len(data) - IDENTIFIER_BYTES + 1, IDENTIFIER_BYTES):
        yield data[at : at + IDENTIFIER_BYTES]
