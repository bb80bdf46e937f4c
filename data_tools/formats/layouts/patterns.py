"""Patterns: which datasets of an episode the stars in a layout's paths stand for."""

import re
from collections.abc import Iterator

import h5py

from data_tools.formats.layouts.layout import Layout, Video
from data_tools.storage.files.paths import natural_key
from data_tools.storage.hdf5.links import find_group, member_names


def datasets_below(folder: h5py.Group, *, is_deep: bool) -> list[tuple[str, h5py.Dataset]]:
    """Path from a group, and dataset, of what is in it, in natural order; links left out.

    Args:
        folder: the group.
        is_deep: whether the groups below it count, too.

    Raises:
        UserError: a name is no text.
    """
    found: list[tuple[str, h5py.Dataset]] = []

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if not isinstance(name, str):
            member_names(item.parent)  # says which name is none
        # Links are not followed here, and each object is met once: a circle cannot catch us.
        if (is_deep or "/" not in name) and isinstance(item, h5py.Dataset):
            found.append((name, item))

    folder.visititems(visit)
    return sorted(found, key=lambda named: natural_key(named[0]))


def image_keys(
    group: h5py.Group, layout: Layout, name: str, place: str | Video
) -> Iterator[tuple[str, str | Video]]:
    """The camera names and places that one entry of `images` stands for."""
    if isinstance(place, Video) or "*" not in place:
        yield name, place
        return
    before, part, after = _split_at_star(layout.below_observations(place))
    folder = find_group(group, before, may_leave=layout.allow_external_links)
    pattern = re.compile(re.escape(part).replace(r"\*", "(.+)"))
    for member in sorted(member_names(folder) if folder else (), key=natural_key):
        matched = pattern.fullmatch(member)
        if matched:
            key = "/".join(filter(None, (before, member, after)))
            yield name.replace("*", matched[1]), key if "/" in key else f"./{key}"


def _split_at_star(path: str) -> tuple[str, str, str]:
    """The parts of a path before, with and after its star."""
    parts = path.split("/")
    star = next(i for i, part in enumerate(parts) if "*" in part)
    return "/".join(parts[:star]), parts[star], "/".join(parts[star + 1 :])
