"""The groups of a file that are its episodes, in natural order.

Patterns: which datasets of an episode the stars in a layout's paths stand for.

Ends of episodes that lie one after the other in the same arrays, however a file keeps them.
"""

import posixpath
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from data_tools.errors import UserError, describe
from data_tools.formats.layouts.layout import NUMBER_WORD, Layout, Video
from data_tools.rules import NO_STEPS, WRONG_DECLARATION
from data_tools.storage.files.paths import natural_key
from data_tools.storage.hdf5.links import find_group, first_whole, member_names, told_of_names
from data_tools.storage.hdf5.soundness import UNREADABLE


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


Rows = npt.NDArray[np.int64]


def rows_after_ends(values: npt.NDArray[np.generic], num_rows: int) -> Rows | None:
    """int64[e], the row after each episode's last one, rising; None where the values tell no ends.

    Read as the values show it: a mark a row, 1 in each episode's last (a terminal, a time-out); the
    number of the episode a row belongs to; or, one an episode, the row after its last (cumulated
    ends), its first row (offsets), or its length.

    Args:
        values: bool, integer or float [n].
        num_rows: rows of the arrays the episodes lie in.
    """
    if values.ndim != 1 or values.dtype.kind not in "biuf" or not len(values):
        return None
    whole = values.astype(np.int64)
    if not np.array_equal(whole, values):
        return None
    if len(whole) != num_rows:
        return _one_an_episode(whole, num_rows)
    if whole.min() < 0 or whole.max() > 1 or (values.dtype.kind != "b" and _is_number(whole)):
        return np.append(np.flatnonzero(np.diff(whole)) + 1, num_rows)
    return np.flatnonzero(whole) + 1


def _is_number(whole: Rows) -> bool:
    """Whether zeros and ones number two episodes: as marks they would end one at every row."""
    return int(whole.sum()) > 1 and bool(np.all(np.diff(whole) >= 0))


def _one_an_episode(whole: Rows, num_rows: int) -> Rows | None:
    is_rising = bool(np.all(np.diff(whole) > 0))
    if is_rising and whole[0] == 0 and whole[-1] < num_rows:
        return np.append(whole[1:], num_rows)
    if is_rising and whole[0] > 0 and whole[-1] <= num_rows:
        return whole
    if whole.min() > 0 and whole.sum() == num_rows:
        return np.cumsum(whole)
    return None


ROOT_REMEDY = "Set layout.root to the group that holds the episodes, '' for the file itself."


def root_of(file: h5py.File, path: Path, layout: Layout) -> tuple[h5py.Group | None, str]:
    """The group that holds the episodes, or the sentence that says it is not there."""
    root = find_group(file, layout.root or "/", may_leave=layout.allow_external_links)
    if root is not None:
        return root, ""
    found = f"the root names {', '.join(told_of_names(member_names(file)))}"
    expected, rule = f"a group {layout.root!r}", WRONG_DECLARATION.name
    return None, describe(str(path), found, expected, ROOT_REMEDY, rule)


def end_episodes(file: h5py.File, path: Path, layout: Layout) -> tuple[h5py.Group, h5py.Group]:
    """The groups of the first whole and the last episode that open.

    Raises:
        UserError: there is none.
    """
    root, fault = root_of(file, path, layout)
    if root is None:
        raise UserError(fault)
    if layout.episodes != "groups":
        return root, root
    names = episode_names(root, layout)
    whole = [first_whole(root, names)] if names else []
    first = _readable(root, [*whole, *names], layout)
    last = _readable(root, reversed(names), layout)
    if first is None or last is None:
        raise UserError(no_episodes(path, layout))
    return first, last


def episode_names(root: h5py.Group, layout: Layout) -> list[str]:
    """Names of the members that may be episodes, demo_2 before demo_10."""
    pattern = re.compile(layout.episode_names or ".*", flags=re.DOTALL)
    return sorted(filter(pattern.fullmatch, member_names(root)), key=natural_key)


def numbers_of(root: h5py.Group, layout: Layout) -> list[str]:
    """The numbers of episodes that lie side by side: each that any path with the word has."""
    images = [place for place in layout.images.values() if isinstance(place, str)]
    paths = [*layout.action_paths, *layout.state_paths, *map(layout.below_observations, images)]
    found: dict[str, None] = {}
    for path in paths:
        before, _, after = path.partition(NUMBER_WORD)
        above, _, start = before.rpartition("/")
        pattern = re.compile(rf"{re.escape(start)}(\d+){re.escape(after.partition('/')[0])}")
        folder = find_group(root, above or ".", may_leave=layout.allow_external_links)
        for name in member_names(folder) if folder is not None else ():
            matched = pattern.fullmatch(name)
            found |= {matched[1]: None} if matched else {}
    return sorted(found, key=natural_key)


def first_number(root: h5py.Group, path: Path, layout: Layout) -> str:
    """The lowest number of episodes that lie side by side; '' where they lie otherwise.

    Raises:
        UserError: there is none.
    """
    if layout.episodes != "numbers":
        return ""
    numbers = numbers_of(root, layout)
    if not numbers:
        raise UserError(no_episodes(path, layout, root))
    return numbers[0]


def numbered(layout: Layout, number: str) -> Layout:
    """The layout of one of the episodes that lie side by side: the number in place of the word."""
    said = _replaced(layout.model_dump(exclude={"episodes"}), number)
    return Layout.model_validate(said)


def _replaced(value: object, number: str) -> object:
    if isinstance(value, str):
        return value.replace(NUMBER_WORD, number)
    if isinstance(value, dict):
        return {key: _replaced(each, number) for key, each in value.items()}
    return [_replaced(each, number) for each in value] if isinstance(value, list | tuple) else value


def episode_group(root: h5py.Group, name: str, layout: Layout) -> h5py.Group | None:
    """The group of this name, None where it is no group.

    Raises:
        UserError: it lies in another file.
        UNREADABLE: its header is damaged.
    """
    group = find_group(root, name, may_leave=layout.allow_external_links) if name else root
    if group is None or not name:
        return group
    # What a soft link leads to goes by the link's name.
    return group if group.name == posixpath.join(root.name, name) else root[name]


def _readable(root: h5py.Group, names: Iterable[str], layout: Layout) -> h5py.Group | None:
    """The first of these groups that opens; what is wrong with others the walk over all tells.

    None when none of them is a group.

    Raises:
        UserError, UNREADABLE: none opens.
    """
    fault: Exception | None = None
    for name in names:
        try:
            group = episode_group(root, name, layout)
        except (UserError, *UNREADABLE) as error:
            fault = fault or error
            continue
        if group is not None:
            return group
    if fault is not None:
        raise fault
    return None


def no_episodes(path: Path, layout: Layout, root: h5py.Group | None = None) -> str:
    """The sentence that says that there is none; with the root for datasets that go by numbers."""
    found = f"no episodes in the group {layout.root!r}"
    expected = f"groups like {layout.episode_names or 'demo_0, demo_1, ...'}"
    if root is not None:
        found = f"the names {', '.join(told_of_names(member_names(root)))}"
        expected = f"datasets like {layout.action_paths[0]}"
    return describe(str(path), found, expected, "Record at least one episode.", NO_STEPS.name)
