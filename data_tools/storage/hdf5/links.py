"""Finding things in an HDF5 file without leaving it.

A link, a virtual dataset or external storage may point into any file this process can read. What a
person downloads must not decide which files are opened, so such a link is refused unless allowed.
"""

import posixpath
from collections.abc import Sequence

import h5py

from data_tools.errors import UserError, describe, shown
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
