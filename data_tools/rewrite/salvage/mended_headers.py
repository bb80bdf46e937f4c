"""Groups whose header goes on in the part of a file that was cut off: how to read past that.

HDF5 lets an object's header grow by a message that says where it goes on, often at the end of the
file, because attributes are added last. When that place is gone, HDF5 refuses the object and all
below it. But in files of the old format the entry that leads to a group repeats where the list of
its members is; with it the message can be replaced, and all but some attributes is read.

Source: the HDF5 File Format Specification, III.B "Symbol Table Node", III.C "Symbol Table Entry",
IV.A.1.a "Version 1 Data Object Header Prefix", IV.A.2.q and r (continuation, symbol table).
"""

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from data_tools.rewrite.salvage.superblock import Superblock

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
