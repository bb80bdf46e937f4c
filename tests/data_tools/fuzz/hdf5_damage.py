"""Damage to HDF5 files: to their bytes, and to their structure with HDF5's own calls."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from tests.data_tools.fuzz.attribute_damage import ATTRIBUTE_EDITS
from tests.data_tools.fuzz.byte_damage import EDITS, Rng, damage_bytes
from tests.data_tools.fuzz.dataset_damage import DATASET_EDITS
from tests.data_tools.fuzz.link_damage import LINK_EDITS
from tests.data_tools.fuzz.touched import (
    Extent,
    Touched,
    extents_of,
    heap_extents,
    relative,
    variable_datasets,
)

Structural = Callable[[h5py.File, Rng], list[str]]
STRUCTURAL: dict[str, Structural] = {**DATASET_EDITS, **LINK_EDITS}
WHERE = ("anywhere", "metadata", "metadata", "numbers")


def damage_hdf5(path: Path, name: str, rng: Rng) -> tuple[str, Touched]:
    """Damage a file in a way drawn from the generator; the way, and what was changed on purpose."""
    kind = rng.choice(["bytes", "structure", "attribute"], p=[0.5, 0.36, 0.14])
    if kind == "bytes":
        return _bytes(path, name, rng)
    edits = ATTRIBUTE_EDITS if kind == "attribute" else STRUCTURAL
    chosen = str(rng.choice(list(edits)))
    touched = Touched(has_facts=kind == "attribute")
    with h5py.File(path, "r+") as file:
        for place in edits[chosen](file, rng):
            touched.places.add((name, "/" + relative(place)))
    return chosen, touched


def _bytes(path: Path, name: str, rng: Rng) -> tuple[str, Touched]:
    chosen, part = str(rng.choice(list(EDITS))), str(rng.choice(WHERE))
    with h5py.File(path) as file:
        extents, variable = extents_of(file), variable_datasets(file)
    size = path.stat().st_size
    is_data = np.zeros(size, bool)
    for extent in extents:
        is_data[extent.start : extent.stop] = True
    where = {"anywhere": np.arange(size), "numbers": np.flatnonzero(is_data)}
    where["metadata"] = np.flatnonzero(~is_data)
    before = path.read_bytes()
    offsets = damage_bytes(path, EDITS[chosen], rng, where[part])
    touched = Touched(has_facts=True)
    # After an insertion or a cut, the bytes of all rows behind it are others: nothing is allowed,
    # for these are not numbers that changed but rows that moved.
    if path.stat().st_size == len(before):
        _touch(touched, name, offsets, extents)
        _misplace(touched, name, offsets, extents, before)
        heaps = heap_extents(before)
        if any(start <= offset < stop for offset in offsets for start, stop in heaps):
            touched.add_heap(name, variable)
    return f"{chosen} in {part}", touched


def _touch(touched: Touched, name: str, offsets: list[int], extents: list[Extent]) -> None:
    """The rows whose own bytes were changed."""
    for offset in offsets:
        for extent in extents:
            if extent.start <= offset < extent.stop:
                for row in extent.rows_at(offset):
                    touched.add_row(name, relative(extent.dataset), row)


def _misplace(
    touched: Touched, name: str, offsets: list[int], extents: list[Extent], before: bytes
) -> None:
    """The rows whose address was changed, wherever the file says it."""
    changed = set(offsets)
    for extent in extents:
        address = extent.start.to_bytes(8, "little")
        place = before.find(address)
        while place >= 0:
            if not changed.isdisjoint(range(place, place + 8)):
                touched.add_misplaced(name, extent)
            place = before.find(address, place + 1)
