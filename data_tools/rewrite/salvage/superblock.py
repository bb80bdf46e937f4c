"""The first bytes of an HDF5 file: how long it should be, and whether its writer closed it.

HDF5 refuses a file that is shorter than its superblock says, or that is marked as open for writing.
Both can be read past safely by showing the library other bytes than those on the disk: the missing
end filled with a pattern, the mark cleared. The file itself is never touched.

Source of the fields: the HDF5 File Format Specification, III.A "Disk Format: Level 0A".
"""

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
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
