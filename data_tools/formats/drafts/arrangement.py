"""Arrangement: what the structure of an unknown file shows of its episodes."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import h5py
import numpy as np

from data_tools.errors import UserError, describe
from data_tools.formats.layouts.groups import datasets_below, rows_after_ends
from data_tools.formats.layouts.layout import NUMBER_WORD
from data_tools.storage.files.paths import natural_key
from data_tools.storage.hdf5.links import has_known_type, told_of_names
from data_tools.storage.hdf5.soundness import storage_fault

# Of what has a row a step, this share must lie in the episodes: the rest is notes and filter keys.
MIN_COVERED: Final = 0.9
# So many alike are episodes even if all are of one length: arms and cameras are fewer.
MANY: Final = 8
MAX_END_VALUES: Final = 1 << 24
# Of arrays with a row a step only these: a gripper is 0 and 1, too.
_ENDS: Final = re.compile(r"done|term|timeout|trunc|end|last|final|episode|ep_|traj|demo", re.I)
_EPISODES: Final = re.compile(r"demo|episode|ep_|traj|trial|run|take|rollout|record|log", re.I)
_NUMBER: Final = re.compile(r"\d+")

Datasets = Mapping[str, h5py.Dataset]


@dataclass(frozen=True)
class Arrangement:
    """How the episodes of a file lie in it.

    Attributes:
        episodes: as `Layout.episodes`.
        root: as `Layout.root`.
        count: how many episodes there are.
        datasets: of the first episode, by the path that a layout names them by.
        first: the group of the first episode.
        episode_names: as `Layout.episode_names`.
        ends: paths of what tells where the episodes end, with episodes: rows.
    """

    episodes: Literal["groups", "file", "rows", "numbers"]
    root: str
    count: int
    datasets: Datasets
    first: h5py.Group
    episode_names: str = ""
    ends: tuple[str, ...] = ()


def arranged(file: h5py.File) -> Arrangement:
    """What the structure of a file shows of its episodes; the whole file as one where it does not.

    Raises:
        UserError: there is no dataset with a row a step.
    """
    every = dict(datasets_below(file["/"], is_deep=True))
    keys = ("mask/",)  # robomimic's filter keys: lists of names
    steps = {n: each for n, each in every.items() if has_rows(each) and not n.startswith(keys)}
    if not steps:
        found = ", ".join(told_of_names(every)) or "no dataset"
        expected = "datasets with a row a step"
        raise UserError(describe(file.filename, found, expected, "Record something first."))
    _require_no_stack(file, steps)
    return (
        _in_groups(file, every, steps)
        or _by_number(file, steps)
        or _in_rows(file, steps)
        or Arrangement("file", "", 1, every, file["/"])
    )


def _require_no_stack(file: h5py.File, steps: Datasets) -> None:
    """UserError where all tables of numbers lie in stacks, an episode a row."""
    tables = {n: each for n, each in steps.items() if each.dtype.kind == "f" and each.ndim > 1}
    stacked = [f"{name} {list(each.shape)}" for name, each in tables.items() if each.ndim == 3]
    ends = {each.shape[:2] for each in tables.values() if each.ndim == 3}
    if len(stacked) > 1 and len(stacked) == len(tables) and len(ends) == 1:
        found, expected = f"stacks of episodes, {', '.join(stacked)}", "a row a step"
        remedy = "Write each episode into a group of its own, without what pads it."
        raise UserError(describe(file.filename, found, expected, remedy))


def has_rows(dataset: h5py.Dataset) -> bool:
    """Whether a dataset may have a row a step: two of anything."""
    return has_known_type(dataset) and bool(dataset.shape) and dataset.shape[0] > 1


def _in_groups(file: h5py.File, every: Datasets, steps: Datasets) -> Arrangement | None:
    """Groups with numbers in their names that hold nearly all there is; the outermost ones."""
    for depth in range(max(name.count("/") for name in steps)):
        for root, groups in _families(steps, depth):
            inside = [steps[name] for names in groups.values() for name in names]
            is_few = len(groups) < MANY and len({len(each) for each in inside}) == 1
            is_called_so = _EPISODES.search(next(iter(groups))) is not None
            if len(inside) / len(steps) >= MIN_COVERED and (is_called_so or not is_few):
                return _of_groups(file, root, sorted(groups, key=natural_key), every)
    return None


def _families(steps: Datasets, depth: int) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """The group around them, and group -> its datasets, of groups whose names have numbers.

    First those whose names differ in their numbers alone, then those that hold the same.
    """
    by_name: dict[tuple[str, str], dict[str, list[str]]] = {}
    for name in steps:
        parts = name.split("/")
        if len(parts) > depth + 1 and _NUMBER.search(parts[depth]):
            kind = "/".join(parts[:depth]), _NUMBER.sub("0", parts[depth])
            by_name.setdefault(kind, {}).setdefault(parts[depth], []).append(name)
    by_tree: dict[tuple[str, tuple[str, ...]], dict[str, list[str]]] = {}
    for (root, _), groups in by_name.items():
        yield root, groups
        first = next(iter(groups.values()))
        tree = tuple(sorted("/".join(name.split("/")[depth + 1 :]) for name in first))
        by_tree.setdefault((root, tree), {}).update(groups)
    yield from ((root, groups) for (root, _), groups in by_tree.items())


def _of_groups(file: h5py.File, root: str, names: list[str], every: Datasets) -> Arrangement:
    first = file["/".join(filter(None, (root, names[0])))]
    start = f"{first.name.strip('/')}/"
    datasets = {n.removeprefix(start): each for n, each in every.items() if n.startswith(start)}
    _require_rows(file, first, names, datasets)
    others = [name for name in file[root or "/"] if name not in names]
    is_told = any(isinstance(file[root or "/"].get(name), h5py.Group) for name in others)
    kinds = dict.fromkeys(_NUMBER.sub(lambda _: r"\d+", re.escape(name)) for name in names)
    pattern = "|".join(kinds) if is_told else ""
    return Arrangement("groups", root, len(names), datasets, first, pattern)


def _require_rows(file: h5py.File, first: h5py.Group, names: list[str], datasets: Datasets) -> None:
    """UserError where the groups are the steps of one episode, or hold groups of episodes."""
    inner = told_of_names({name.partition("/")[0] for name in datasets})
    below = {name.partition("/")[0] for name in datasets if "/" in name}
    where = f"{file.filename}:{first.name.strip('/')}"
    if len(inner) == 1 and len(below) > 1 and _NUMBER.search(inner[0]):
        found = f"groups in groups, {inner[0]}"
        remedy = "Write one file a group, or name the group in layout.root of a sidecar a file."
        raise UserError(describe(where, found, "the datasets of one episode", remedy))
    last = file[f"{first.parent.name}/{names[-1]}"]
    shapes = {name: each.shape for name, each in datasets.items() if has_rows(each)}
    is_step = all(len(shape) == 1 or _is_picture(shape) for shape in shapes.values())
    is_uneven = len({shape[0] for shape in shapes.values()}) > 1
    is_same = shapes == {n: last[n].shape for n in shapes if isinstance(last.get(n), h5py.Dataset)}
    if is_step and is_uneven and is_same and len(names) > 1:
        found = f"a group a step, {', '.join(told_of_names(names))}"
        remedy = "Stack the steps first: np.stack of what is in each group."
        raise UserError(describe(where, found, "datasets with a row a step", remedy))


def _is_picture(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[2] in (1, 3, 4)


def _by_number(file: h5py.File, steps: Datasets) -> Arrangement | None:
    """Datasets that go together by a number in their paths: states_0 and actions_0."""
    families: dict[str, dict[str, h5py.Dataset]] = {}
    for name, dataset in steps.items():
        for match in _NUMBER.finditer(name):
            key = f"{name[: match.start()]}{NUMBER_WORD}{name[match.end() :]}"
            families.setdefault(key, {})[match[0]] = dataset
    numbers = max((frozenset(each) for each in families.values()), key=len, default=frozenset())
    alike = {key: each for key, each in families.items() if set(each) == numbers}
    taken = {each.name.strip("/") for family in alike.values() for each in family.values()}
    if len(alike) < 2 or len(numbers) < 2 or not _is_by_episode(alike):
        return None
    if len(taken) / len(steps) < MIN_COVERED:
        return None
    lowest = min(numbers, key=natural_key)
    datasets = {key: family[lowest] for key, family in alike.items()}
    return Arrangement("numbers", "", len(numbers), datasets, file["/"])


def _is_by_episode(families: Mapping[str, Mapping[str, h5py.Dataset]]) -> bool:
    """Whether numbers tell episodes apart, and not the joints or cameras of one."""
    lengths = [{number: len(each) for number, each in f.items()} for f in families.values()]
    differ = any(len(set(each.values())) > 1 for each in lengths)
    is_table = any(each.ndim > 1 for family in families.values() for each in family.values())
    is_even = all(abs(a[n] - b[n]) <= 1 for a in lengths for b in lengths for n in a)
    is_many = is_table and len(lengths[0]) >= MANY
    return is_even and (differ or is_many or any(map(_EPISODES.search, families)))


def _in_rows(file: h5py.File, steps: Datasets) -> Arrangement | None:
    """Arrays of which something tells where each of several episodes ends."""
    for above in sorted({name.rpartition("/")[0] for name in steps}, key=len):
        inside = {n: each for n, each in steps.items() if n.rpartition("/")[0] == above}
        rows = max(len(each) for each in inside.values())
        alike = {n: each for n, each in steps.items() if len(each) == rows}
        if len(alike) < 2:
            continue
        ends = {name: count for name, count in _ends(steps, rows) if count > 1}
        if ends:
            # paths from the file itself, for what tells the ends often lies in another group
            return Arrangement("rows", "", min(ends.values()), alike, file["/"], ends=tuple(ends))
    return None


def _ends(steps: Datasets, rows: int) -> Iterator[tuple[str, int]]:
    """Each dataset that may tell ends, with how many it tells."""
    for name, dataset in steps.items():
        is_list = dataset.ndim == 1 and dataset.dtype.kind in "biuf"
        is_list = is_list and (len(dataset) < rows or bool(_ENDS.search(name)))
        if is_list and dataset.size <= MAX_END_VALUES and not storage_fault(dataset):
            ends = rows_after_ends(np.asarray(dataset[()]), rows)
            if ends is not None and 0 < len(ends) <= rows // 2:
                yield name, len(ends)
