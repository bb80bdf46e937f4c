"""The groups of a file that are its episodes, in natural order."""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

import h5py

from data_tools.errors import UserError, describe
from data_tools.files.paths import natural_key
from data_tools.hdf5.links import find_group, member_names
from data_tools.layouts.layout import Layout

ROOT_REMEDY = "Set layout.root to the group that holds the episodes, '' for the file itself."


def root_of(file: h5py.File, path: Path, layout: Layout) -> tuple[h5py.Group | None, str]:
    """The group that holds the episodes, or the sentence that says it is not there."""
    root = find_group(file, layout.root or "/", may_leave=layout.allow_external_links)
    if root is not None:
        return root, ""
    found = f"the root names {sorted(member_names(file))}"
    return None, describe(str(path), found, f"a group {layout.root!r}", ROOT_REMEDY)


def end_episodes(file: h5py.File, path: Path, layout: Layout) -> tuple[h5py.Group, h5py.Group]:
    """The groups of the first and the last episode.

    Raises:
        UserError: there is none.
    """
    root, fault = root_of(file, path, layout)
    if root is None:
        raise UserError(fault)
    if layout.episodes != "groups":
        return root, root
    first = next(episode_groups(root, layout), None)
    last = next(episode_groups(root, layout, is_reversed=True), None)
    if first is None or last is None:
        raise UserError(no_episodes(path, layout))
    return first[1], last[1]


def episode_groups(
    root: h5py.Group, layout: Layout, *, is_reversed: bool = False
) -> Iterator[tuple[str, h5py.Group]]:
    """Name and group of each episode, demo_2 before demo_10, or the other way round."""
    pattern = re.compile(layout.episode_names or ".*", flags=re.DOTALL)
    names = sorted(filter(pattern.fullmatch, member_names(root)), key=natural_key)
    above = root.name
    for name in reversed(names) if is_reversed else names:
        group = find_group(root, name, may_leave=layout.allow_external_links)
        if group is not None:
            # What a soft link leads to goes by the link's name.
            yield name, group if group.name == posixpath.join(above, name) else root[name]


def no_episodes(path: Path, layout: Layout) -> str:
    """The sentence that says that there is none."""
    found = f"no episodes in the group {layout.root!r}"
    expected = f"groups like {layout.episode_names or 'demo_0, demo_1, ...'}"
    return describe(str(path), found, expected, "Record at least one episode.")
