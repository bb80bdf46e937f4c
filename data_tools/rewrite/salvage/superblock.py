"""The first bytes of an HDF5 file: how long it should be, and whether its writer closed it.

HDF5 refuses a file that is shorter than its superblock says, or that is marked as open for writing.
Both can be read past safely by showing the library other bytes than those on the disk: the missing
end filled with a pattern, the mark cleared. The file itself is never touched.

Source of the fields: the HDF5 File Format Specification, III.A "Disk Format: Level 0A".

Groups whose header goes on in the part of a file that was cut off: how to read past that.

HDF5 lets an object's header grow by a message that says where it goes on, often at the end of the
file, because attributes are added last. When that place is gone, HDF5 refuses the object and all
below it. But in files of the old format the entry that leads to a group repeats where the list of
its members is; with it the message can be replaced, and all but some attributes is read.

Source: the HDF5 File Format Specification, III.B "Symbol Table Node", III.C "Symbol Table Entry",
IV.A.1.a "Version 1 Data Object Header Prefix", IV.A.2.q and r (continuation, symbol table).
"""

import io
import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from data_tools.errors import UserError, describe
from data_tools.storage.files.disk import try_to_lock

SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
# Where the address of the end of the file is, with addresses of 8 bytes.
_EOF_PLACE: Final = {0: 40, 1: 44, 2: 28, 3: 28}
_FLAGS_PLACE: Final = 11
_CHECKED_BYTES: Final = 44
_MARKED_VERSION: Final = 3
_UINT32: Final = 0xFFFFFFFF


@dataclass(frozen=True)
class Superblock:
    """What the start of the file says about the whole.

    Attributes:
        version: 0 to 3.
        size: bytes on the disk.
        stored_size: bytes there were when the writer last flushed.
        is_marked_open: whether its writer (of `libver='latest'`) never closed it.
    """

    version: int
    size: int
    stored_size: int
    is_marked_open: bool

    @property
    def missing_bytes(self) -> int:
        """How many bytes were cut off."""
        return max(0, self.stored_size - self.size)


def read_superblock(path: Path) -> Superblock:
    """The superblock of a file.

    Raises:
        UserError: the file is too short to have one, or its fields are none that HDF5 writes.
    """
    with path.open("rb") as file:
        start = file.read(64)
    size = path.stat().st_size
    remedy = "Nothing of it can be read: copy, download or record it again."
    if not start.startswith(SIGNATURE):
        found = f"a start of {start[:8]!r}" if start else "an empty file (0 bytes)"
        raise UserError(describe(str(path), found, f"the signature {SIGNATURE!r}", remedy))
    version = start[8] if len(start) > 8 else -1
    place = _EOF_PLACE.get(version)
    size_of_address = start[13 if version < 2 else 9] if len(start) > 13 else 0
    if place is None or size_of_address != 8 or len(start) < place + 8:
        found = f"superblock version {version} in a file of {size} bytes"
        expected = "a whole superblock of version 0 to 3 with addresses of 8 bytes"
        raise UserError(describe(str(path), found, expected, remedy))
    stored_size = int.from_bytes(start[place : place + 8], "little")
    is_marked = version >= _MARKED_VERSION and start[_FLAGS_PLACE] != 0
    return Superblock(version, size, stored_size, is_marked)


def require_no_writer(path: Path) -> None:
    """UserError when a living process holds the file's lock: what it writes is not damaged."""
    with path.open("rb") as file:
        try:
            try_to_lock(file, is_shared=True)
        except BlockingIOError as error:
            found, remedy = "a file locked by a process that writes it", "Wait until it is done."
            raise UserError(describe(str(path), found, "a file nobody writes", remedy)) from error


class PatchedFile(io.RawIOBase):
    """The bytes of a file as they would be, had it been closed and never cut.

    Args:
        path: the file, only ever read.
        superblock: of this file.
        fill: the byte that stands for each one that was cut off.
        patches: other bytes to show, by their place.
    """

    def __init__(
        self, path: Path, superblock: Superblock, fill: int, patches: Mapping[int, bytes]
    ) -> None:
        super().__init__()
        # unbuffered: closing the object closes it
        self._file = path.open("rb", buffering=0)
        self._size = superblock.size
        self._whole = max(superblock.size, superblock.stored_size)
        self._fill = bytes([fill])
        self._place = 0
        self._patches = dict(patches)
        if superblock.is_marked_open:
            self._patches[0] = _without_mark(self._file.read(_CHECKED_BYTES + 4))

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place counted from the start, from here or from the whole file's end."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._whole}[whence]
        self._place = base + offset
        return self._place

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        """Fill the buffer with the file's bytes, then with the pattern; number of bytes given."""
        count = min(len(buffer), max(0, self._whole - self._place))
        data = bytearray()
        if self._place < self._size:
            self._file.seek(self._place)
            data += self._file.read(min(count, self._size - self._place)) or b""
        for place, patch in self._patches.items():
            first = max(place, self._place)
            last = min(place + len(patch), self._place + len(data))
            if first < last:
                shown = patch[first - place : last - place]
                data[first - self._place : last - self._place] = shown
        buffer[:count] = bytes(data).ljust(count, self._fill)
        self._place += count
        return count

    def close(self) -> None:
        """Close the file below."""
        self._file.close()
        super().close()


def _without_mark(start: bytes) -> bytes:
    """The superblock of version 3 with its flags cleared and its checksum made anew."""
    cleared = bytearray(start)
    cleared[_FLAGS_PLACE] = 0
    checksum = lookup3(bytes(cleared[:_CHECKED_BYTES]))
    cleared[_CHECKED_BYTES : _CHECKED_BYTES + 4] = checksum.to_bytes(4, "little")
    return bytes(cleared)


def lookup3(data: bytes) -> int:
    """Bob Jenkins' lookup3 hash (hashlittle, initial value 0), HDF5's checksum of its metadata."""
    a = b = c = (0xDEADBEEF + len(data)) & _UINT32
    blocks = [data[i : i + 12] for i in range(0, len(data), 12)]
    for block in blocks[:-1]:
        x, y, z = (int.from_bytes(block[i : i + 4], "little") for i in (0, 4, 8))
        a, b, c = _mixed((a + x) & _UINT32, (b + y) & _UINT32, (c + z) & _UINT32)
    if not data:
        return c
    last = blocks[-1].ljust(12, b"\0")
    x, y, z = (int.from_bytes(last[i : i + 4], "little") for i in (0, 4, 8))
    return _finished((a + x) & _UINT32, (b + y) & _UINT32, (c + z) & _UINT32)


def _mixed(a: int, b: int, c: int) -> tuple[int, int, int]:
    for bits in (4, 6, 8, 16, 19, 4):
        a = ((a - c) & _UINT32) ^ _rotated(c, bits)
        c = (c + b) & _UINT32
        a, b, c = b, c, a  # each round plays the next letter's part
    return a, b, c


def _finished(a: int, b: int, c: int) -> int:
    c = ((c ^ b) - _rotated(b, 14)) & _UINT32
    a = ((a ^ c) - _rotated(c, 11)) & _UINT32
    b = ((b ^ a) - _rotated(a, 25)) & _UINT32
    c = ((c ^ b) - _rotated(b, 16)) & _UINT32
    a = ((a ^ c) - _rotated(c, 4)) & _UINT32
    b = ((b ^ a) - _rotated(a, 14)) & _UINT32
    return ((c ^ b) - _rotated(b, 24)) & _UINT32


def _rotated(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & _UINT32


_NODE: Final = b"SNOD"
_ENTRY_BYTES: Final = 40
_CACHED_GROUP: Final = 1
_PREFIX_BYTES: Final = 16
_MESSAGE_PREFIX_BYTES: Final = 8
_NIL, _CONTINUATION, _SYMBOL_TABLE = 0x00, 0x10, 0x11
_MAX_MESSAGES: Final = 65_535  # as many as a header can count


@dataclass(frozen=True)
class Mended:
    """What to show of a file instead of its own bytes.

    Attributes:
        patches: place in the file -> other bytes.
        groups: addresses of the groups that can be read because of them, without the attributes
            that were cut off.
    """

    patches: Mapping[int, bytes] = field(default_factory=dict)
    groups: frozenset[int] = frozenset()


def mended_headers(path: Path, superblock: Superblock) -> Mended:
    """How to read the groups whose header goes on in the lost part.

    Nothing for files of the new format (superblock version 2 and 3), whose entries repeat nothing.
    """
    if superblock.missing_bytes == 0 or superblock.version > 1:
        return Mended()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        patches: dict[int, bytes] = {}
        groups = set()
        for address, members in _group_entries(data):
            made = _patches(data, address, members)
            if made:
                groups.add(address)
                patches |= made
    return Mended(patches, frozenset(groups))


def _group_entries(data: mmap.mmap) -> Iterator[tuple[int, bytes]]:
    """Address of each group's header, and the 16 bytes that say where its members are listed."""
    node = data.find(_NODE)
    while node >= 0:
        count = _number(data, node + 6, 2)
        for place in range(node + 8, node + 8 + count * _ENTRY_BYTES, _ENTRY_BYTES):
            if _number(data, place + 16, 4) == _CACHED_GROUP and place + _ENTRY_BYTES <= len(data):
                yield _number(data, place + 8, 8), data[place + 24 : place + _ENTRY_BYTES]
        node = data.find(_NODE, node + 1)


def _patches(data: mmap.mmap, address: int, members: bytes) -> dict[int, bytes]:
    """What makes a group's header whole again; nothing when it needs no mending or has no sense."""
    if data[address : address + 1] != b"\x01":
        return {}
    kinds = _messages(data, (address + _PREFIX_BYTES, _number(data, address + 8, 4)))
    lost = [
        place
        for place, kind in kinds.items()
        if kind == _CONTINUATION and sum(_block(data, place)) > len(data)
    ]
    if not lost or len(kinds) > _MAX_MESSAGES:
        return {}
    # a continuation is as long as a symbol table message: two numbers of eight bytes
    kind = _NIL if _SYMBOL_TABLE in kinds.values() else _SYMBOL_TABLE
    patches = {address + 2: len(kinds).to_bytes(2, "little")}
    for place in lost:
        patches[place] = kind.to_bytes(2, "little")
        patches[place + _MESSAGE_PREFIX_BYTES] = members if kind else bytes(len(members))
        kind = _NIL
    return patches


def _messages(data: mmap.mmap, first: tuple[int, int]) -> dict[int, int]:
    """Place -> kind of each message of a header, over all its blocks that are in the file."""
    kinds: dict[int, int] = {}
    blocks = [first]
    while blocks:
        place, size = blocks.pop()
        end = min(place + size, len(data))
        # a message seen before is a circle, which only damage makes
        while place + _MESSAGE_PREFIX_BYTES <= end and place not in kinds:
            kinds[place] = _number(data, place, 2)
            if len(kinds) > _MAX_MESSAGES:
                return kinds
            if kinds[place] == _CONTINUATION and sum(_block(data, place)) <= len(data):
                blocks.append(_block(data, place))
            place += _MESSAGE_PREFIX_BYTES + _number(data, place + 2, 2)
    return kinds


def _block(data: mmap.mmap, place: int) -> tuple[int, int]:
    """Where a continuation message leads: first byte and number of bytes."""
    body = place + _MESSAGE_PREFIX_BYTES
    return _number(data, body, 8), _number(data, body + 8, 8)


def _number(data: mmap.mmap, place: int, count: int) -> int:
    return int.from_bytes(data[place : place + count], "little")
