"""The outline of an HDF5 file: its groups and datasets as lines, with what is alike told once."""

import re
from collections.abc import Iterable, Iterator
from itertools import groupby

import h5py
from rich.filesize import decimal

from data_tools.errors import UserError
from data_tools.storage.files.paths import natural_key
from data_tools.storage.hdf5.links import find, has_known_type, member_names
from data_tools.storage.hdf5.soundness import UNREADABLE

MAX_LINES = 200
MAX_DEPTH = 16


def outline(file: h5py.File) -> list[str]:
    """A line for each group and dataset, indented; of names that differ in their numbers the first.

    A dataset's line has its type and shape, chunks, filters and size on disk, and each line the
    names of attributes. Links are named and not followed; lines beyond 200 are left out, and
    counted.
    """
    lines = [f"/{_attributes(file)}"] if len(file.attrs) else []
    try:
        lines += _below(file["/"], 0, set())
    except (*UNREADABLE, UserError) as error:
        lines.append(f"... and no further, for the header is damaged: {error}")
    if len(lines) > MAX_LINES:
        lines[MAX_LINES:] = [f"... and {len(lines) - MAX_LINES} more"]
    return lines


def _below(group: h5py.Group, depth: int, seen: set[tuple[int, ...]]) -> Iterator[str]:
    """The lines of a group's members; each group once, for hard links may lead in a circle."""
    address = tuple(h5py.h5g.get_objinfo(group.id, b".").objno)
    if depth > MAX_DEPTH or address in seen:
        yield f"{'  ' * depth}..."
        return
    seen.add(address)
    for first, more in _alike(member_names(group)):
        yield from _member(group, first, depth, more, seen)


def told_of_names(names: Iterable[str]) -> list[str]:
    """Names in natural order; of those that differ in their numbers the first, with their count."""
    return [f"{first}{more}" for first, more in _alike(names)]


def _alike(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The first of names that differ in their numbers alone, and words for the others."""
    ordered = sorted(names, key=natural_key)
    for _, alike in groupby(ordered, key=lambda name: re.sub(r"\d+", "0", name)):
        first, *others = alike
        yield first, f" (and {len(others)} more to {others[-1]})" if others else ""


def _member(
    group: h5py.Group, name: str, depth: int, more: str, seen: set[tuple[int, ...]]
) -> Iterator[str]:
    start = f"{'  ' * depth}{name}"
    link = group.get(name, getlink=True)
    if isinstance(link, h5py.SoftLink):
        yield f"{start} -> {link.path}{more}"
        return
    try:
        found = find(group, name)
    except UserError:
        yield f"{start}  in another file, not followed{more}"
        return
    if isinstance(found, h5py.Dataset):
        yield f"{start}  {_dataset(found)}{more}{_attributes(found)}"
    elif found is not None:
        yield f"{start}/{more}{_attributes(found)}"
        yield from _below(found, depth + 1, seen)


def _attributes(item: h5py.Group | h5py.Dataset) -> str:
    names = [name for name in item.attrs if isinstance(name, str)]
    return f", attributes: {', '.join(names)}" if names else ""


def _dataset(dataset: h5py.Dataset) -> str:
    if not has_known_type(dataset):
        return "of a type that numpy has not"
    kind = "text" if h5py.check_string_dtype(dataset.dtype) else str(dataset.dtype)
    shape = "empty" if dataset.shape is None else list(dataset.shape)
    chunks = f", chunks {list(dataset.chunks)}" if dataset.chunks else ""
    packed = f", {dataset.compression}" if dataset.compression else ""
    return f"{kind}{shape}{chunks}{packed}, {decimal(dataset.id.get_storage_size())}"
