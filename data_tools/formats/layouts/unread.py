"""Unread: what a layout's patterns meet and do not take, so that nothing is left out in silence."""

import posixpath
from collections.abc import Iterator
from pathlib import Path

import h5py

from data_tools.finding import Finding
from data_tools.formats.layouts.groups import datasets_below, image_keys
from data_tools.formats.layouts.layout import Layout
from data_tools.rules import CAMERA_NOT_READ, COLUMN_NOT_READ
from data_tools.storage.hdf5.links import find, find_group, has_known_type

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
