"""Unusable: files whose layout is not known or holds nothing to train on, told once for many.

What a sidecar may lead to: it comes with the data, so it opens nothing that lies elsewhere.

Unread: what a layout's patterns meet and do not take, so that nothing is left out in silence.
"""

import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from data_tools.errors import UserError, describe, raise_faults
from data_tools.finding import Finding
from data_tools.formats.layouts import native
from data_tools.formats.layouts.groups import datasets_below, image_keys
from data_tools.formats.layouts.layout import Layout
from data_tools.formats.layouts.native import NATIVE_LAYOUT
from data_tools.formats.layouts.preset import OpenFile, claim, is_mark, presets, proof
from data_tools.formats.layouts.sidecar import FOLDER_SIDECAR, SIDECAR_SUFFIX, Sidecar, layout_of
from data_tools.rules import CAMERA_NOT_READ, COLUMN_NOT_READ, UNKNOWN_LAYOUT
from data_tools.storage.hdf5.links import (
    PERMISSION,
    find,
    find_group,
    has_known_type,
    member_names,
    told_of_names,
)


@dataclass(frozen=True)
class Reach:
    """How far the layout of one file may lead.

    Attributes:
        path: the data file.
        top: the folder that was opened; the file's own where a file was.
        allow_external_links: whether the caller lets data lie outside the file and that folder.
    """

    path: Path
    top: Path
    allow_external_links: bool = False

    def layout(self, sidecar: Sidecar | None, base: Layout | None) -> Layout:
        """The layout a sidecar declares, or else the base, with the caller's permission in it.

        Raises:
            UserError: the sidecar asks for what the caller has not allowed, or a key or a value of
                it is wrong; every fault is named.
        """
        layout = base if sidecar is None else layout_of(sidecar, base)
        assert layout is not None
        if sidecar is not None and not self.allow_external_links:
            raise_faults(self._faults(sidecar, layout, base))
        return layout.model_copy(update={"allow_external_links": self.allow_external_links})

    def _faults(self, sidecar: Sidecar, layout: Layout, base: Layout | None) -> Iterator[str]:
        if layout.allow_external_links:
            key = "allow_external_links"
            where = f"{sidecar.file_of(('layout', key))}, layout.{key}"
            expected = "false, for what comes with the data cannot allow itself other files"
            yield describe(where, "true", expected, f"Remove it, or, {PERMISSION}")
        # our own layouts read siblings, as their projects lay them out, in any folder
        known = () if base is None else base.file_patterns
        here, top = self.path.resolve().parent, self.top.resolve()
        for pattern in layout.file_patterns:
            folder = here
            for _ in range(pattern.count("../")):
                folder = folder.parent
            if pattern not in known and folder != here and top not in (folder, *folder.parents):
                remedy = f"Open the folder that holds both, or, {PERMISSION}"
                expected = f"files in the folder that is opened, {self.top}"
                where = f"{sidecar.file_of(('layout',))}, layout"
                yield describe(where, f"{pattern!r}", expected, remedy)


# Smaller than any picture, and larger than the matrix of a pose.
MIN_PICTURE_SIDE = 8
_FRAMES = "uint8[t, y, x, c] or [t, c, y, x] of 1 or 3 channels, or JPEG or PNG"


def unread(group: h5py.Group, path: Path, layout: Layout, found: Layout) -> Iterator[Finding]:
    """A warning for each picture and each column that a pattern meets and nothing reads.

    Args:
        group: the group of the episode that was surveyed.
        path: the file.
        layout: the layout with its patterns.
        found: the layout without them: what is read.
    """
    images = [found.image_place(camera) for camera in found.images]
    read = [*found.state_paths, *found.action_paths, *(i for i in images if isinstance(i, str))]
    told = set(map(posixpath.normpath, read))
    of = f"{path}:{group.name.strip('/')}"
    for key, dataset in _under_cameras(group, layout):
        if key not in told and _looks_like_pictures(dataset):
            told.add(key)
            where = f"{of}/{key}".replace(":/", ":")
            yield CAMERA_NOT_READ.found(where, _in_words(dataset), threshold=_FRAMES)
    for key, dataset in _under_columns(group, layout):
        if key not in told:
            told.add(key)
            yield COLUMN_NOT_READ.found(f"{of}/{key}".replace(":/", ":"), _in_words(dataset))


def _under_cameras(group: h5py.Group, layout: Layout) -> Iterator[tuple[str, h5py.Dataset]]:
    """Path from the episode's group, and dataset, of what patterns of cameras meet."""
    for name, place in layout.images.items():
        for _, key in image_keys(group, layout, name, place):
            if isinstance(place, str) and isinstance(key, str) and "*" in place:
                item = find(group, key, may_leave=layout.allow_external_links)
                if isinstance(item, h5py.Dataset):
                    yield posixpath.normpath(key), item


def _under_columns(group: h5py.Group, layout: Layout) -> Iterator[tuple[str, h5py.Dataset]]:
    """Path from the episode's group, and dataset, of what patterns of columns meet."""
    for path in dict.fromkeys((*layout.state_paths, *layout.action_paths)):
        above, _, last = path.rpartition("/")
        if last in ("*", "**"):
            folder = find_group(group, above, may_leave=layout.allow_external_links)
            below = [] if folder is None else datasets_below(folder, is_deep=last == "**")
            for name, dataset in below:
                yield posixpath.normpath(f"{above}/{name}"), dataset


def _looks_like_pictures(dataset: h5py.Dataset) -> bool:
    sides = sorted(dataset.shape[1:])[-2:] if dataset.ndim in (3, 4) else ()
    return dataset.dtype.kind in "fiu" and min(sides, default=0) >= MIN_PICTURE_SIDE


def _in_words(dataset: h5py.Dataset) -> str:
    if not has_known_type(dataset):
        return "a type that numpy has not"
    shape = list(dataset.shape or ())
    kind = "text" if h5py.check_string_dtype(dataset.dtype) else str(dataset.dtype)
    return f"{kind}{shape}"


@dataclass(frozen=True)
class Unusable:
    """A file that cannot be read for what it is.

    Attributes:
        path: the file.
        top: the folder whose sidecar would speak for it.
        found: what it shows.
        expected: what files that are read show.
        remedy: what to do about this file alone.
        remedy_for_all: what to do about all such files below `top`.
    """

    path: Path
    top: Path
    found: str
    expected: str
    remedy: str
    remedy_for_all: str


class UnusableLayoutError(UserError):
    """A file cannot be read for what it is.

    Attributes:
        file: which, and why.
    """

    def __init__(self, file: Unusable) -> None:
        super().__init__(describe(str(file.path), file.found, file.expected, file.remedy))
        self.file = file

    def __reduce__(self) -> tuple[Any, Any]:
        """Rebuild from the file, which the sentence alone would lose."""
        return type(self), (self.file,)


def unrecognized(look: OpenFile, top: Path) -> Unusable:
    """A file of no known layout: what it has, and what comes nearest."""
    expected = (
        f"the marks of a known layout{_nearest_layout(look)}, the attribute "
        f"{native.CONVENTIONS_ATTRIBUTE!r} on /{NATIVE_LAYOUT.root}, or a sidecar"
    )
    rest = (
        "and say in it where things are and what they mean: nothing in the numbers says which way "
        "is open, up or absolute. `robot-data inspect {} --draft` writes it, with blanks."
    )
    names = ", ".join(told_of_names(member_names(look.file)))
    return Unusable(
        path=look.path,
        top=top,
        found=f"no conventions (in its root: {names or 'nothing'})",
        expected=expected,
        remedy=f"Write {look.path.name}{SIDECAR_SUFFIX} beside it {rest.format(look.path)}",
        remedy_for_all=f"Write {top / FOLDER_SIDECAR}, for all files below {top}, "
        f"{rest.format(top)}",
    )


def _nearest_layout(look: OpenFile) -> str:
    """The known layout of whose marks most are there, in words; '' where there is none of any.

    What must be absent counts as no mark: most layouts lack most things.
    """
    known = presets().values()
    met = {p.name: [proof(test, look) for test in p.evidence if is_mark(test)] for p in known}
    share = {name: sum(map(bool, proofs)) / len(proofs) for name, proofs in met.items() if proofs}
    general = {name for preset in known for name in preset.special_case_of}
    best = max(share, key=lambda name: (share[name], len(met[name]), name in general))
    if not share[best]:
        return ""
    has = ", ".join(filter(None, met[best]))
    lacks = "; ".join(claim(t) for t in presets()[best].evidence if proof(t, look) is None)
    return f" ({best} is nearest: the file {has}, but not {lacks})"


def told_together(errors: Iterable[UserError]) -> list[str]:
    """The faults of several files, such of a sidecar that speaks for them once.

    Those that are unusable in one way are told once, too, at the end.
    """
    faults: dict[str, None] = {}
    kinds: dict[tuple[Path, str], list[Unusable]] = {}
    for error in errors:
        if isinstance(error, UnusableLayoutError):
            kinds.setdefault((error.file.top, error.file.expected), []).append(error.file)
        else:
            faults |= dict.fromkeys(error.faults)
    return [*faults, *map(_told, kinds.values())]


def _told(alike: list[Unusable]) -> str:
    first, rule = alike[0], UNKNOWN_LAYOUT.name
    if len(alike) == 1:
        return describe(str(first.path), first.found, first.expected, first.remedy, rule)
    where = f"{first.path} and {len(alike) - 1} more files below {first.top}"
    return describe(where, first.found, first.expected, first.remedy_for_all, rule)
