"""Touched: what a damage changed on purpose, so that the rest must come back as it was."""

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import h5py


@dataclass
class Touched:
    """The stored numbers, frames and facts that a damage replaced by others.

    Nothing in a file says that such a value was another one before. What is not named here must
    either come back unchanged or be refused.

    Attributes:
        rows: (file, dataset) -> the rows whose stored bytes changed.
        places: (file, path): everything at or below this path is another or gone.
        misplaced: as `rows`, for rows of which the file gives another address. HDF5's old format
            protects addresses by nothing, so whatever lies there may be read.
        has_facts: whether texts and JSON changed: instruction, success, attributes.
    """

    rows: dict[tuple[str, str], set[int]] = field(default_factory=dict)
    places: set[tuple[str, str]] = field(default_factory=set)
    misplaced: dict[tuple[str, str], set[int]] = field(default_factory=dict)
    has_facts: bool = False

    def add_row(self, file: str, dataset: str, row: int) -> None:
        self.rows.setdefault((file, dataset), set()).add(row)

    def add_misplaced(self, file: str, extent: "Extent") -> None:
        rows = range(extent.first_row, extent.first_row + extent.num_rows)
        self.misplaced.setdefault((file, relative(extent.dataset)), set()).update(rows)

    def with_misplaced(self) -> "Touched":
        """The same, with the misplaced rows among those that may be others."""
        keys = self.rows.keys() | self.misplaced.keys()
        rows = {key: self.rows.get(key, set()) | self.misplaced.get(key, set()) for key in keys}
        return replace(self, rows=rows)

    def covers(self, file: str, dataset: str) -> bool:
        """Whether all of a dataset may be another one."""
        here = "/" + dataset.strip("/")
        return any(
            f == file and (here == place or here.startswith(place.rstrip("/") + "/"))
            for f, place in self.places
        )

    def add_heap(self, file: str, datasets: Iterable[str]) -> None:
        """All rows of variable length of a file: their bytes lie in a heap they share."""
        self.places |= {(file, "/" + name.strip("/")) for name in datasets}

    def is_row(self, file: str, dataset: str, row: int) -> bool:
        return row in self.rows.get((file, dataset.strip("/")), ())


@dataclass(frozen=True)
class Extent:
    """Bytes of a file that hold rows of a dataset; `row_bytes` is 0 when they are filtered."""

    start: int
    stop: int
    dataset: str
    first_row: int
    num_rows: int
    row_bytes: int

    def rows_at(self, offset: int) -> Iterable[int]:
        if self.row_bytes:
            return (self.first_row + (offset - self.start) // self.row_bytes,)
        return range(self.first_row, self.first_row + self.num_rows)


def extents_of(file: h5py.File) -> list[Extent]:
    """Where the bytes of every dataset's rows lie, in the order of the file."""
    found: list[Extent] = []

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            found.extend(_extents(name, item))

    file.visititems(visit)
    return sorted(found, key=lambda extent: extent.start)


def _extents(name: str, dataset: h5py.Dataset) -> list[Extent]:
    plan = dataset.id.get_create_plist()
    rows = dataset.shape[0] if dataset.shape else 1
    start = dataset.id.get_offset()
    if start is not None:
        size = dataset.id.get_storage_size()
        return [Extent(start, start + size, name, 0, rows, size // max(rows, 1))]
    if plan.get_layout() != h5py.h5d.CHUNKED:
        return []
    is_plain = plan.get_nfilters() == 0 and all(c == s for c, s in zip(
        dataset.chunks[1:], dataset.shape[1:], strict=True
    ))  # fmt: skip
    extents = []
    for i in range(dataset.id.get_num_chunks()):
        chunk = dataset.id.get_chunk_info(i)
        row_bytes = chunk.size // dataset.chunks[0] if is_plain else 0
        stop = chunk.byte_offset + chunk.size
        first, count = chunk.chunk_offset[0], dataset.chunks[0]
        extents.append(Extent(chunk.byte_offset, stop, name, first, count, row_bytes))
    return extents


def heap_extents(data: bytes) -> list[tuple[int, int]]:
    """The bytes of the objects in a file's global heaps, without the objects' own headers."""
    found, place = [], data.find(b"GCOL")
    while place >= 0:
        stop = place + int.from_bytes(data[place + 8 : place + 16], "little")
        at = place + 16
        while stop - at >= 16 and int.from_bytes(data[at : at + 2], "little"):
            size = -(-int.from_bytes(data[at + 8 : at + 16], "little") // 8) * 8
            found.append((at + 16, at + 16 + size))
            at += 16 + size
        place = data.find(b"GCOL", max(stop, place + 4))
    return found


def variable_datasets(file: h5py.File) -> list[str]:
    found: list[str] = []

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind == "O":
            found.append(name)

    file.visititems(visit)
    return found


def relative(path: str) -> str:
    """A path in a file without its leading slash, normalized."""
    return posixpath.normpath(path).strip("/")
