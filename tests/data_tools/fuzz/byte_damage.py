"""Damage to bytes: bits, blocks, ends; of any file."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

Rng = np.random.Generator
Edit = Callable[[bytearray, Rng, Sequence[int]], None]

BLOCK = 512


def flip_bits(data: bytearray, rng: Rng, where: Sequence[int]) -> None:
    """1 to 8 bits."""
    for place in rng.choice(where, size=int(rng.integers(1, 9))):
        data[place] ^= 1 << int(rng.integers(8))


def flip_one_bit(data: bytearray, rng: Rng, where: Sequence[int]) -> None:
    data[int(rng.choice(where))] ^= 1 << int(rng.integers(8))


def set_bytes(data: bytearray, rng: Rng, where: Sequence[int]) -> None:
    """1 to 8 neighbours to 0, 255 or random bytes."""
    start, count = int(rng.choice(where)), int(rng.integers(1, 9))
    count = min(count, len(data) - start)
    kind = int(rng.integers(3))
    data[start : start + count] = rng.bytes(count) if kind == 2 else bytes([255 * kind]) * count


def wipe_block(data: bytearray, rng: Rng, where: Sequence[int]) -> None:
    """A sector of zeros, as a disk or a cut-off download leaves it."""
    start = int(rng.choice(where)) // BLOCK * BLOCK
    count = len(data[start : start + BLOCK * int(rng.integers(1, 5))])
    data[start : start + count] = bytes(count)


def swap_blocks(data: bytearray, rng: Rng, where: Sequence[int]) -> None:
    if len(data) < 2 * BLOCK:
        return
    a, b = (int(i) * BLOCK for i in rng.integers(0, len(data) // BLOCK, size=2))
    data[a : a + BLOCK], data[b : b + BLOCK] = data[b : b + BLOCK], data[a : a + BLOCK]


def truncate(data: bytearray, rng: Rng, where: Sequence[int]) -> None:
    del data[int(rng.integers(0, len(data))) :]


def cut_a_few_bytes(data: bytearray, rng: Rng, where: Sequence[int]) -> None:
    del data[max(0, len(data) - int(rng.integers(1, 64))) :]


def insert_bytes(data: bytearray, rng: Rng, where: Sequence[int]) -> None:
    """As a text-mode copy does: everything after it is shifted."""
    place = int(rng.choice(where))
    data[place:place] = rng.bytes(int(rng.integers(1, 17)))


def append_bytes(data: bytearray, rng: Rng, where: Sequence[int]) -> None:
    data += rng.bytes(int(rng.integers(1, 4096)))


EDITS: dict[str, Edit] = {
    edit.__name__: edit
    for edit in (
        flip_bits,
        flip_one_bit,
        set_bytes,
        wipe_block,
        swap_blocks,
        truncate,
        cut_a_few_bytes,
        insert_bytes,
        append_bytes,
    )
}


def damage_bytes(path: Path, edit: Edit, rng: Rng, where: Sequence[int] = ()) -> list[int]:
    """Edit the file; the offsets of the bytes that are others now, or beyond its new end."""
    before = path.read_bytes()
    data = bytearray(before)
    if data:
        edit(data, rng, where if len(where) else range(len(data)))
    path.write_bytes(data)
    shared = min(len(before), len(data))
    a = np.frombuffer(before, np.uint8, shared)
    b = np.frombuffer(bytes(data), np.uint8, shared)
    return [*np.flatnonzero(a != b).tolist(), *range(shared, len(before))]
