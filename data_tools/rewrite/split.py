"""split: episodes into train and valid, each task in both, what belongs together on one side."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import h5py
import numpy as np

from data_tools.episode import Dataset, task_of
from data_tools.errors import UserError, describe, nearest, raise_faults
from data_tools.formats.keep_files import keep_steps
from data_tools.formats.layouts.native import declared_root
from data_tools.rewrite.demo_files import demo_name
from data_tools.rewrite.provenance import (
    declaring_sidecar,
    provenance,
    sidecar_for_copy,
    write_provenance,
)
from data_tools.rewrite.tree import copy_attributes, read_tree
from data_tools.rewrite.unfinished import Unfinished
from data_tools.storage.hdf5.opening import open_hdf5

# Episodes that share one of these were generated from, or recorded under, the same thing.
GROUP_ATTRIBUTES: Final = ("source_demo", "scene", "operator")
DEFAULT_VALID: Final = 0.1


@dataclass(frozen=True)
class Split:
    """Indices of the episodes to train on and to validate on, each in rising order."""

    train: tuple[int, ...]
    valid: tuple[int, ...]


def split(
    dataset: Dataset,
    valid: float = DEFAULT_VALID,
    seed: int = 0,
    groups: Sequence[str] = GROUP_ATTRIBUTES,
) -> Split:
    """Train and valid, the same for the same episodes, fraction and seed.

    Episodes that share a value of one of the group attributes land on one side, and so do episodes
    connected through others (a scene shared with one, an operator with another). Each task gives
    its share of valid episodes, as near as its groups allow.

    Args:
        dataset: the episodes.
        valid: fraction of the episodes to validate on, above 0 and below 1.
        seed: of the choice, 0 or more.
        groups: names of attributes; of the defaults, those no episode has play no part.

    Raises:
        UserError: the fraction or the seed is out of range, no episode has an attribute that was
            named, or all episodes belong together.
    """
    if seed < 0:
        raise UserError(describe("seed", str(seed), "0 or more", "Give another number."))
    raise_faults(_group_faults(dataset, groups))
    if not 0 < valid < 1:
        remedy = "0.1 validates on every tenth episode."
        raise UserError(describe("valid", repr(valid), "a fraction between 0 and 1", remedy))
    together = joined(dataset, groups)
    if len(together) < 2:
        found = f"{len(dataset)} episodes that all belong together by {list(groups)}"
        remedy = "Give fewer --group attributes, or record another scene or source."
        raise UserError(describe("dataset", found, "at least two groups of episodes", remedy))
    chosen = _choose(dataset, together, valid, np.random.default_rng(seed))
    train = tuple(index for index in range(len(dataset)) if index not in chosen)
    return Split(train, tuple(sorted(chosen)))


def write_split_keep(dataset: Dataset, parts: Split, folder: Path, rule: str) -> None:
    """A folder with the keep-files train.json and valid.json, which `open_dataset` takes."""
    made = provenance("split", [], {"rule": rule, "fingerprint": dataset.fingerprint})
    with Unfinished(folder, made) as work:
        for name, indices in (("train", parts.train), ("valid", parts.valid)):
            kept = [
                np.full(dataset[index].num_steps, index in indices) for index in range(len(dataset))
            ]
            text = keep_steps(dataset, kept, f"{rule}, {name}").model_dump_json(indent=1)
            work.part(f"{name}.json", partial(_write_text, text))
        work.publish(work.parts)


def write_split_masks(
    dataset: Dataset, parts: Split, source: Path, target: Path, places: Sequence[Path] = ()
) -> None:
    """A copy of one `data/demo_N` file with robomimic's filter keys mask/train and mask/valid.

    Masks of these names are replaced; others are kept. Chunks are copied as they are, and the
    sidecar that declares the file comes along.

    Args:
        dataset: the episodes of this file.
        parts: which of them are on which side.
        source: the file.
        target: the copy to make.
        places: what the dataset was opened from, where that was a folder.

    Raises:
        UserError: the target or another declaration beside it exists, or an episode is not a group
            data/demo_N of this file, which alone a filter key can name.
    """
    names = [demo_name(dataset[index].name) for index in range(len(dataset))]
    if None in names:
        found = f"the episode {dataset[names.index(None)].name.rpartition(':')[2]!r}"
        remedy = "Give OUT as a folder: it gets keep-files, which name episodes of any layout."
        raise UserError(describe(str(source), found, "groups data/demo_N", remedy))
    settings = {"train": len(parts.train), "valid": list(parts.valid)}
    made = provenance("split", [source], settings)
    with Unfinished(target, made) as work, open_hdf5(source) as old:
        read_tree(old, source)
        is_native = declared_root(old) is not None
        declared = declaring_sidecar(source, is_native=is_native, places=places)
        sidecar = sidecar_for_copy(target, declared, is_native=is_native)
        whole = work.folder / "whole.hdf5"
        with h5py.File(whole, "w") as new:
            copy_attributes(old, new)
            for name in old:
                old.copy(name, new, name)
            masks = new.require_group("mask")
            for key, indices in (("train", parts.train), ("valid", parts.valid)):
                masks.pop(key, None)
                masks[key] = np.array([names[index] for index in indices], dtype="S")
            write_provenance(new, made, earlier=old)
        work.publish(whole, sidecar)


def _group_faults(dataset: Dataset, groups: Sequence[str]) -> list[str]:
    """Attributes that were named, and that no episode has."""
    if tuple(groups) == GROUP_ATTRIBUTES:
        return []
    known = {name for index in range(len(dataset)) for name in dataset[index].attributes}
    faults = []
    for name in groups:
        if name not in known:
            hint = nearest(name, known)
            remedy = f"Correct the name{f'; {hint}' if hint else ', or leave it out.'}"
            expected = f"one of {sorted(known)}"
            faults.append(describe("group", f"{name!r}, of no episode", expected, remedy))
    return faults


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")


def joined(dataset: Dataset, groups: Sequence[str]) -> list[list[int]]:
    """Indices of episodes connected by a shared value of any of these attributes.

    Groups in the order of their first episode; an episode connected with none is its own group.
    """
    first_with: dict[tuple[str, str], int] = {}
    leader = list(range(len(dataset)))

    def lead(index: int) -> int:
        while leader[index] != index:
            index = leader[index] = leader[leader[index]]
        return index

    for index in range(len(dataset)):
        attributes = dataset[index].attributes
        for name in groups:
            if name in attributes:
                other = first_with.setdefault((name, repr(attributes[name])), index)
                ours, theirs = sorted((lead(index), lead(other)))
                leader[theirs] = ours
    members: dict[int, list[int]] = defaultdict(list)
    for index in range(len(dataset)):
        members[lead(index)].append(index)
    return list(members.values())


def _choose(
    dataset: Dataset, together: list[list[int]], valid: float, rng: np.random.Generator
) -> set[int]:
    """The episodes to validate on: task by task, groups in random order while they fit."""
    tasks = [task_of(dataset[index]) for index in range(len(dataset))]
    strata: dict[str, list[list[int]]] = defaultdict(list)
    for members in together:
        (task, _), *_ = Counter(tasks[index] for index in members).most_common(1)
        strata[task].append(members)
    chosen: set[int] = set()
    for task in sorted(strata):
        of_task = strata[task]
        wanted = valid * sum(map(len, of_task))
        taken = 0
        # one group stays for training whatever the fraction
        for place in rng.permutation(len(of_task))[:-1]:
            if taken + len(of_task[place]) / 2 <= wanted:
                chosen.update(of_task[place])
                taken += len(of_task[place])
    if not chosen:
        smallest = int(np.argmin([len(members) for members in together]))
        chosen.update(together[smallest])
    return chosen
