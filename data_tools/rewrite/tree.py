"""The tree of an HDF5 file: its groups, datasets and links, in order, and what cannot be copied."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import h5py
import numpy as np

from data_tools.errors import describe, raise_faults
from data_tools.storage.hdf5.soundness import storage_fault

_REFERENCES: Final = {
    "DIMENSION_LIST": "references to dimension scales (h5py's dims[i].detach_scale ends them)",
    "REFERENCE_LIST": "references from what this is a dimension scale of",
}


@dataclass
class Tree:
    """Names of everything in a file, a group before what is in it.

    Attributes:
        groups: paths of the groups below the root, with whether each keeps the order of making.
        datasets: path -> its bytes when unpacked.
        copied: path -> a soft link, or the path of the object that has this second name.
        dropped: names to drop that were there.
    """

    groups: dict[str, bool] = field(default_factory=dict)
    datasets: dict[str, int] = field(default_factory=dict)
    copied: dict[str, str | h5py.SoftLink] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    root_is_ordered: bool = False

    @property
    def num_bytes(self) -> int:
        """Bytes of all datasets when unpacked."""
        return sum(self.datasets.values())

    def is_ordered(self, group: str) -> bool:
        """Whether the group keeps the order in which its members were made."""
        return self.root_is_ordered if group == "/" else self.groups[group]


def read_tree(file: h5py.File, path: Path, drop: Collection[str] = ()) -> Tree:
    """Everything in an open file, without what is named to be dropped.

    A group that is reached a second time, by a hard link or a cycle, is a second name of the first.

    Raises:
        UserError: links to other files and data that lie in them, which are never followed;
            virtual datasets, references or named types, which a copy would break.
    """
    walk = _Walk(path, drop, Tree(root_is_ordered=_is_ordered(file)), {_address(file): "/"}, [])
    walk.faults += _attribute_faults(path, "/", file)
    pending = [(file["/"], "")]
    while pending:
        group, prefix = pending.pop()
        below = []
        for name in group:
            if walk.visit(group, name, f"{prefix}{name}"):
                below.append((group[name], f"{prefix}{name}/"))
        pending += reversed(below)
    raise_faults(walk.faults)
    return walk.tree


@dataclass
class _Walk:
    """A walk through a file: what was found, what cannot be copied, and where it has been."""

    path: Path
    drop: Collection[str]
    tree: Tree
    seen: dict[tuple[int, int], str]
    faults: list[str]

    def visit(self, group: h5py.Group, name: str, place: str) -> bool:
        """Enter one member of a group; whether it is a group seen for the first time."""
        if name in self.drop:
            self.tree.dropped.add(name)
            return False
        link = group.get(name, getlink=True)
        match link:
            case h5py.SoftLink():
                self.tree.copied[place] = link
            case h5py.ExternalLink():
                self.faults.append(
                    _fault(self.path, place, f"a link to the file {link.filename!r}")
                )
            case _:
                return self._visit_object(group[name], place)
        return False

    def _visit_object(self, item: h5py.HLObject, place: str) -> bool:
        address = _address(item)
        if address in self.seen:
            self.tree.copied[place] = self.seen[address]
            return False
        self.seen[address] = place
        if isinstance(item, h5py.Group):
            self.tree.groups[place] = _is_ordered(item)
        elif not (broken := _broken_by_copying(item)):
            self.tree.datasets[place] = _unpacked_bytes(item)
        else:
            self.faults.append(_fault(self.path, place, broken))
            return False
        self.faults += _attribute_faults(self.path, place, item)
        return isinstance(item, h5py.Group)


def unwritten_faults(file: h5py.File, path: Path, tree: Tree) -> list[str]:
    """Datasets of numbers that are not all there: rewritten, what is missing would be zeros."""
    remedy = "Leave it out (--drop); robot-data salvage copies the episodes that are whole."
    return [
        describe(f"{path}:{name}", fault, "numbers that were all written", remedy)
        for name in tree.datasets
        if file[name].dtype.kind in "fiub" and (fault := storage_fault(file[name]))
    ]


def copy_attributes(source: h5py.HLObject, target: h5py.HLObject) -> None:
    """Every attribute as it is stored, bit for bit; one of that name that is there is replaced."""
    for name in source.attrs:
        stored = source.attrs.get_id(name)
        # A copy: a named type belongs to the source's file.
        kind, space = stored.get_type().copy(), stored.get_space()
        if name in target.attrs:
            del target.attrs[name]
        copy = h5py.h5a.create(target.id, stored.name, kind, space)
        if space.get_simple_extent_npoints():
            # As bare bytes, for numpy has no values of some types, and other values of others.
            content = np.zeros(space.get_simple_extent_dims(), f"V{kind.get_size()}")
            stored.read(content, mtype=kind)
            copy.write(content, mtype=kind)


def _attribute_faults(path: Path, place: str, item: h5py.HLObject) -> list[str]:
    return [
        _fault(path, f"{place}, attribute {name!r}", _REFERENCES.get(name, "references"))
        for name in item.attrs
        if _holds_references(item.attrs.get_id(name).get_type())
    ]


def _holds_references(kind: h5py.h5t.TypeID) -> bool:
    """Whether values of a type are references, or have some inside, as dimension scales do."""
    match kind.get_class():
        case h5py.h5t.REFERENCE:
            return True
        case h5py.h5t.VLEN | h5py.h5t.ARRAY:
            return _holds_references(kind.get_super())
        case h5py.h5t.COMPOUND:
            members = map(kind.get_member_type, range(kind.get_nmembers()))
            return any(map(_holds_references, members))
    return False


def _broken_by_copying(item: h5py.HLObject) -> str:
    """What keeps a dataset, or what else is no group, from being copied; '' when nothing does."""
    if not isinstance(item, h5py.Dataset) or _holds_references(item.id.get_type()):
        return "references or a named type"
    if item.external is not None:
        return f"data stored in {[name for name, _, _ in item.external]}"
    if item.is_virtual:
        return (
            f"a virtual dataset over {sorted({each.file_name for each in item.virtual_sources()})}"
        )
    return ""


def _unpacked_bytes(dataset: h5py.Dataset) -> int:
    is_variable = dataset.dtype.kind == "O"
    return dataset.id.get_storage_size() if is_variable or not dataset.shape else dataset.nbytes


def _fault(path: Path, place: str, found: str) -> str:
    remedy = "Leave it out (robot-data repack --drop), or make a file that holds everything itself."
    return describe(f"{path}:{place}", found, "data that can be copied", remedy)


def _is_ordered(group: h5py.Group) -> bool:
    return bool(group.id.get_create_plist().get_link_creation_order())


def _address(item: h5py.HLObject) -> tuple[int, int]:
    about = h5py.h5o.get_info(item.id)
    return about.fileno, about.addr


def copy_objects(source: Path, target: Path) -> None:
    """The same tree in a new file, without the room that was given up in the old one."""
    with h5py.File(source, "r") as old:
        is_ordered = bool(old["/"].id.get_create_plist().get_link_creation_order())
        with h5py.File(target, "w", track_order=is_ordered) as new:
            copy_attributes(old, new)
            for name in old:
                link = old.get(name, getlink=True)
                if isinstance(link, h5py.SoftLink):
                    new[name] = link
                else:
                    old.copy(old[name], new, name)
