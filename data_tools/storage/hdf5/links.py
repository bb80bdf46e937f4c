"""Finding things in an HDF5 file without leaving it.

A link, a virtual dataset or external storage may point into any file this process can read. What a
person downloads must not decide which files are opened, so such a link is refused unless allowed.
"""

import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import h5py
from rich.filesize import decimal

from data_tools.errors import UserError, describe, shown
from data_tools.storage.files.paths import natural_key
from data_tools.storage.hdf5.soundness import UNREADABLE

MAX_SOFT_LINKS = 16
PERMISSION = (
    "where you trust the data, allow it with allow_external_links (an argument of open_dataset, a "
    "setting of policy-ft's data; --allow-external-links of robot-data)."
)


def find(
    group: h5py.Group, key: str, *, may_leave: bool = False
) -> h5py.Group | h5py.Dataset | None:
    """The group or dataset at a path below a group; None when nothing is there.

    Soft links within the file are followed, at most 16 in a row.

    Args:
        group: where the path starts.
        key: the path; absolute when it starts with a slash.
        may_leave: whether data in other files is allowed.

    Raises:
        UserError: something on the way lies in another file, or soft links go round in a circle.
    """
    start, parts = group.id, _parts(key)
    if key.startswith("/") or ".." in parts:
        start, parts = group.file["/"].id, _parts(posixpath.join(group.name, key))
    place = key
    for _ in range(MAX_SOFT_LINKS):
        found = _walk(start, parts, may_leave)
        if not isinstance(found, str):
            return found
        place = found
        start, parts = group.file["/"].id, _parts(place)
    raise UserError(
        describe(
            f"{group.file.filename}:{place}",
            f"more than {MAX_SOFT_LINKS} soft links in a row",
            "a dataset or a group",
            "The links lead in a circle; replace them by the data.",
        )
    )


def find_dataset(group: h5py.Group, key: str, *, may_leave: bool = False) -> h5py.Dataset | None:
    """The dataset at a path below a group; None when there is none.

    Raises:
        UserError: it lies in another file, as `find` says.
    """
    found = find(group, key, may_leave=may_leave)
    return found if isinstance(found, h5py.Dataset) else None


def find_group(group: h5py.Group, key: str, *, may_leave: bool = False) -> h5py.Group | None:
    """The group at a path below a group; None when there is none.

    Raises:
        UserError: it lies in another file, as `find` says.
    """
    found = find(group, key, may_leave=may_leave)
    return found if isinstance(found, h5py.Group) else None


def first_whole(group: h5py.Group, names: Sequence[str]) -> str:
    """The first of some members that are alike, or one that has what the first lacks.

    That is the one in the middle, where it shares with the last one a member of its own that the
    first lacks: one broken episode does not say what a file is.

    Args:
        group: holds them.
        names: of at least one of its members, in order.
    """
    if len(names) == 1:
        return names[0]
    middle = names[len(names) // 2]
    shared = _members(group, middle) & _members(group, names[-1])
    return names[0] if shared <= _members(group, names[0]) else middle


def _members(group: h5py.Group, name: str) -> set[str]:
    """Names of the members of a member; none where it is no group or does not open."""
    try:
        found = find(group, name)
        return {*found} if isinstance(found, h5py.Group) else set()
    except (UserError, *UNREADABLE):
        return set()


def member_names(group: h5py.Group) -> list[str]:
    """Names of the members of a group.

    Raises:
        UserError: one is no UTF-8, and so no text.
    """
    names = list(group)
    foreign = [name for name in names if not isinstance(name, str)]
    if foreign:
        where, found = f"{group.file.filename}:{group.name}", f"the name {shown(foreign[0])}"
        remedy = "Rename it, with h5py's Group.move, or leave it out."
        raise UserError(describe(where, found, "names in UTF-8", remedy))
    return names


def has_known_type(dataset: h5py.Dataset) -> bool:
    """Whether the dataset's type is one that numpy can hold; h5py looks when it is asked for."""
    try:
        return dataset.dtype is not None
    except (TypeError, ValueError):
        return False


def _parts(place: str) -> list[str]:
    """The names on a path; '..' is left only where it leads above the start."""
    return [part for part in posixpath.normpath(place).split("/") if part not in ("", ".")]


def _walk(
    start: h5py.h5g.GroupID, parts: Sequence[str], may_leave: bool
) -> h5py.Group | h5py.Dataset | str | None:
    """What is there, or the absolute path that the first soft link on the way leads to.

    In h5py's low-level calls, for an index of many episodes makes hundred thousands of them.
    """
    here = start
    for depth, part in enumerate(parts):
        name = part.encode()
        if not isinstance(here, h5py.h5g.GroupID) or not here.links.exists(name):
            return None
        kind = here.links.get_info(name).type
        if kind == h5py.h5l.TYPE_SOFT:
            above = h5py.h5i.get_name(here).decode()
            target = here.links.get_val(name).decode()
            return posixpath.normpath(posixpath.join(above, target, *parts[depth + 1 :]))
        if kind == h5py.h5l.TYPE_EXTERNAL and not may_leave:
            target = here.links.get_val(name)[0].decode()
            raise UserError(_leaves(here, part, f"a link to {target!r}"))
        here = h5py.h5o.open(here, name)
    if isinstance(here, h5py.h5g.GroupID):
        return h5py.Group(here)
    if not isinstance(here, h5py.h5d.DatasetID):
        return None
    # Read-only: h5py then looks up the shape, a third of the time a dataset takes, only once.
    return _checked(h5py.Dataset(here, readonly=True), may_leave)


def _checked(dataset: h5py.Dataset, may_leave: bool) -> h5py.Dataset:
    """A dataset that may be read: of a known type, its data here, and no view of itself."""
    if not has_known_type(dataset):
        where = f"{dataset.file.filename}:{dataset.name}"
        remedy = "Convert the dataset, or copy the file again if it is damaged."
        raise UserError(describe(where, "a type that numpy has not", "numbers", remedy))
    if not may_leave:
        _require_own_storage(dataset)
    if dataset.is_virtual:
        _require_no_circle(dataset)
    return dataset


def _require_own_storage(dataset: h5py.Dataset) -> None:
    # By Dataset's own properties first: each copy of the creation properties takes time.
    if dataset.external is not None:
        names = [name for name, _, _ in dataset.external]
        raise UserError(_leaves(dataset.id, "", f"data stored in {names}"))
    if dataset.is_virtual:
        plan = dataset.id.get_create_plist()
        files = {plan.get_virtual_filename(i) for i in range(plan.get_virtual_count())}
        if files - {"."}:
            found = f"a virtual dataset over {sorted(files - {'.'})}"
            raise UserError(_leaves(dataset.id, "", found))


def _require_no_circle(dataset: h5py.Dataset) -> None:
    """UserError for a view of views in one file: HDF5 follows one that shows itself without end."""
    root, own = dataset.file["/"].id, dataset.file.filename
    for view in dataset.virtual_sources():
        if view.file_name not in (".", own):
            continue
        source = None if "%" in view.dset_name else _linked(root, _parts(view.dset_name))
        if source is None or source.get_create_plist().get_layout() == h5py.h5d.VIRTUAL:
            found = f"a view of {view.dset_name!r}"
            expected, remedy = "a view of a dataset that is none itself", "Copy the data instead."
            raise UserError(describe(f"{own}:{dataset.name}", found, expected, remedy))


def _linked(here: h5py.h5g.GroupID, parts: Sequence[str]) -> h5py.h5d.DatasetID | None:
    """The dataset at a path of hard links; None for anything else."""
    for part in parts:
        name = part.encode()
        if not isinstance(here, h5py.h5g.GroupID) or not here.links.exists(name):
            return None
        if here.links.get_info(name).type != h5py.h5l.TYPE_HARD:
            return None
        here = h5py.h5o.open(here, name)
    return here if isinstance(here, h5py.h5d.DatasetID) else None


def _leaves(here: h5py.h5g.GroupID | h5py.h5d.DatasetID, name: str, found: str) -> str:
    remedy = (
        "Copy the data into the file (h5py's Group.copy with expand_external=True), "
        f"or, {PERMISSION}"
    )
    file = h5py.h5f.get_name(here).decode()
    place = posixpath.join(h5py.h5i.get_name(here).decode(), name).rstrip("/")
    return describe(f"{file}:{place}", found, "data in the file itself", remedy)


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
