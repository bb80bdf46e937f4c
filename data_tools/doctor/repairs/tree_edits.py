"""Edits of an HDF5 file in its own layout: signs, sentences, chunks and names, and nothing else."""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import h5py
import numpy as np
import numpy.typing as npt

from data_tools.doctor.checks.instructions import single_spaced
from data_tools.doctor.checks.roles import Quaternion
from data_tools.episode import Dataset, frame_doubts
from data_tools.errors import describe, raise_faults
from data_tools.finding import Finding
from data_tools.formats.layouts import native
from data_tools.formats.layouts.layout import Layout
from data_tools.formats.layouts.places import InAttribute, InDataset
from data_tools.formats.layouts.texts import sentence
from data_tools.formats.lerobot import LeRobotDataset
from data_tools.formats.reading.records import EpisodeRecord
from data_tools.rewrite.frame_storage import DEFAULT_QUALITY, find_frames, write_frames
from data_tools.rewrite.tree import copy_attributes
from data_tools.rules import WRONG_CLOCK
from data_tools.storage.hdf5.links import find_dataset, find_group

MASKS: Final = "mask"
_NEW: Final = ".one_a_chunk"
_NUMBER: Final = re.compile(r"(.*?)(\d+)(\D*)", flags=re.DOTALL)

Signs = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Mend:
    """One thing that is repaired in an episode.

    Attributes:
        turn: a quaternion, with float64[t] of +-1 by which its steps are multiplied.
        instruction: the new sentence.
    """

    turn: tuple[Quaternion, Signs] | None = None
    instruction: str | None = None


class SignTurns:
    """Columns of datasets to be multiplied by signs, each by one sequence of signs only."""

    def __init__(self) -> None:
        self._turns: dict[int, tuple[str, dict[int, npt.NDArray[np.int8]]]] = {}

    def add(
        self, file: h5py.File, record: EpisodeRecord, quaternion: Quaternion, signs: Signs
    ) -> bool:
        """Whether the quaternion's numbers can be turned where they are stored; if so, they will.

        Not where they are whole numbers, put together from two datasets, or turned otherwise
        already, for another quaternion that is stored in the same numbers.
        """
        places = _places(file, record, quaternion)
        if places is None:
            return False
        turns = []
        for dataset, first, column in places:
            steps = np.arange(record.num_steps) if record.kept is None else record.kept
            after = np.searchsorted(first + steps, np.arange(len(dataset)), side="right") - 1
            rows = signs[after.clip(0)].astype(np.int8)
            _, known = self._turns.get(_address(dataset), ("", {}))
            if column in known and not np.array_equal(known[column], rows):
                return False
            turns.append((dataset, column, rows))
        for dataset, column, rows in turns:
            _, columns = self._turns.setdefault(_address(dataset), (dataset.name, {}))
            columns[column] = rows
        return True

    def apply(self, file: h5py.File) -> None:
        """Multiply; of floating-point numbers that changes their signs and no other bit."""
        for name, columns in self._turns.values():
            values = file[name][()]
            for column, rows in columns.items():
                turned = values if values.ndim == 1 else values[:, column]
                turned *= rows.astype(values.dtype)
            file[name][...] = values


def _places(
    file: h5py.File, record: EpisodeRecord, quaternion: Quaternion
) -> list[tuple[h5py.Dataset, int, int]] | None:
    """Dataset, row of step 0 and column of each of the quaternion's columns; None if unknown."""
    source = record.state if quaternion.part == "state" else record.actions
    columns: list[tuple[h5py.Dataset, int, int]] = []
    for part in source.parts:
        dataset = file[part.dataset]
        if part.index or dataset.dtype.kind != "f" or dataset.ndim > 2:
            return None
        width = dataset.shape[1] if dataset.ndim == 2 else 1
        columns += [(dataset, source.first, each) for each in part.columns or range(width)]
    return [columns[each] for each in quaternion.columns]


def sentence_holder(
    layout: Layout, group: h5py.Group, path: Path
) -> tuple[h5py.Group | h5py.Dataset, str] | None:
    """What in the file holds the episode's sentence; None where that lies elsewhere.

    A dataset of texts, or a group with the name of its attribute, '' for a dataset.

    Args:
        layout: how the file is read.
        group: the episode's.
        path: the file as it was opened, which may be said in the file's name.
    """
    place = next((each for each in layout.instruction if sentence(each, group, path)), None)
    match place:
        case InAttribute(attribute=name):
            holders = (group, group.parent, group.file["/"])
            holder = next((each for each in holders if name in each.attrs), None)
            is_text = holder is not None and isinstance(holder.attrs[name], str | bytes)
            return (holder, name) if holder is not None and is_text else None
        case InDataset(dataset=name):
            dataset = find_dataset(group, name)
            is_text = dataset is not None and dataset.dtype.kind in "OS" and bool(dataset.size)
            return (dataset, "") if dataset is not None and is_text else None
    return None


def write_sentence(
    holder: h5py.Group | h5py.Dataset, name: str, told: str, said: str | None = None
) -> None:
    """Say another sentence where one is stored.

    Args:
        holder: what holds it, of `sentence_holder` in a file open for writing.
        name: of the attribute, '' for a dataset.
        told: the sentence as it is read.
        said: the new one; None for the old one, single-spaced.
    """
    said = single_spaced(told) if said is None else said
    if name:
        holder.attrs[name] = _said_in(holder.attrs[name], told, said)
        return
    values = [_said_in(value, told, said) for value in np.ravel(holder[()]).tolist()]
    dtype = object if holder.dtype.kind == "O" else holder.dtype
    holder[...] = np.array(values, dtype=dtype).reshape(holder.shape)


def _said_in(stored: str | bytes, told: str, said: str) -> str | bytes:
    """A stored text with its sentence replaced, in JSON wherever it is a value."""
    if isinstance(stored, bytes):
        return str(_said_in(stored.decode(), told, said)).encode()
    if stored.lstrip()[:1] not in ("[", "{"):
        return stored.replace(told, said)
    return json.dumps(_said_values(json.loads(stored), told, said))


def _said_values(value: object, told: str, said: str) -> object:
    if isinstance(value, list):
        return [_said_values(each, told, said) for each in value]
    if isinstance(value, dict):
        return {key: _said_values(each, told, said) for key, each in value.items()}
    return value.replace(told, said) if isinstance(value, str) else value


def slow_frames(
    file: h5py.File, records: Sequence[EpisodeRecord], cameras: Collection[str]
) -> dict[str, bool]:
    """Dataset of each episode's frames with several to a chunk -> whether one a chunk loses bits.

    Those that cannot be rewritten are not among them.
    """
    found: dict[str, bool] = {}
    for record in records:
        for camera in cameras:
            place = record.images[camera].dataset
            chunks = file[place].chunks
            frames = find_frames(file[place]) if chunks and chunks[0] > 1 else None
            if frames is not None:
                found[place] = frames.encoding == "raw" and frames.is_color
    return found


def write_one_a_chunk(file: h5py.File, places: Collection[str]) -> None:
    """Rewrite frames as one a chunk: colour pixels as JPEG, everything else as it is."""
    for place in places:
        frames = find_frames(file[place])
        assert frames is not None
        above, _, name = place.rpartition("/")
        group = file[above] if above else file["/"]
        copy = write_frames(
            frames, group, f"{name}{_NEW}", "jpeg", DEFAULT_QUALITY, lambda done: None
        )
        encoded = dict(copy.attrs)
        copy_attributes(frames.dataset, copy)
        copy.attrs.update(encoded)
        del group[name]
        group.move(f"{name}{_NEW}", name)


def new_names(names: Sequence[str]) -> dict[str, str]:
    """Old -> new name of episodes, numbered on from the first one's number, in this order.

    Names without a number stay as they are; so do all where two would become one.
    """
    found = {name: match for name in names if (match := _NUMBER.fullmatch(name))}
    numbers = [int(match[2]) for match in found.values()]
    renamed = {name: name for name in names}
    for number, (name, match) in enumerate(found.items(), start=min(numbers, default=0)):
        width = len(match[2]) if match[2].startswith("0") else 1
        renamed[name] = f"{match[1]}{number:0{width}}{match[3]}"
    return renamed if len({*renamed.values()}) == len(names) else {name: name for name in names}


def rename_episodes(root: h5py.Group, renamed: Mapping[str, str]) -> None:
    """Give episodes their new names, also in filter keys and in soft links to them."""
    file = root.file
    changed = {old: new for old, new in renamed.items() if old != new}
    for place, target in list(_soft_links(file)):
        parts = target.split("/")
        depth = len(root.name.strip("/").split("/")) + 1 if root.name != "/" else 1
        is_inside = target.startswith(f"{root.name.rstrip('/')}/") and len(parts) > depth
        if is_inside and parts[depth] in changed:
            parts[depth] = changed[parts[depth]]
            del file[place]
            file[place] = h5py.SoftLink("/".join(parts))
    for old in changed:
        root.move(old, f"{old}{_NEW}")
    for old, new in changed.items():
        root.move(f"{old}{_NEW}", new)


def _soft_links(file: h5py.File) -> Iterator[tuple[str, str]]:
    """Place and target of every soft link that can be reached by hard links."""
    found: list[tuple[str, str]] = []

    def look(name: str, link: object) -> None:
        if isinstance(link, h5py.SoftLink):
            found.append((name, link.path))

    file.visititems_links(look)
    return iter(found)


def rename_in_masks(file: h5py.File, renamed: Mapping[str, str], removed: Collection[str]) -> None:
    """Name the episodes in the file's filter keys as they are called now."""
    masks = find_group(file, MASKS)
    if masks is None:
        return
    for key in list(masks):
        mask = find_dataset(masks, key)
        if mask is None or mask.ndim != 1 or mask.dtype.kind not in "OS":
            continue
        names = [n.decode() if isinstance(n, bytes) else str(n) for n in mask[()]]
        listed = [renamed.get(name, name) for name in names if name not in removed]
        if listed == names:
            continue
        attributes = dict(mask.attrs)
        is_fixed = mask.dtype.kind == "S"
        del masks[key]
        data = np.array(listed, dtype="S" if is_fixed else object)
        masks.create_dataset(
            key, data=data, dtype=None if is_fixed else h5py.string_dtype()
        ).attrs.update(attributes)


def count_anew(file: h5py.File, root: h5py.Group, records: Sequence[EpisodeRecord]) -> None:
    """Set the file's count of steps to the rows of its actions."""
    rows = [len(file[record.actions.parts[0].dataset]) for record in records]
    root.attrs[native.TOTAL_ATTRIBUTE] = sum(rows)


def _address(dataset: h5py.Dataset) -> int:
    return int(h5py.h5o.get_info(dataset.id).addr)


def by_frame_number(dataset: Dataset, findings: Sequence[Finding]) -> Dataset:
    """The dataset with a wrong clock mended, if that was found; else as it is.

    Where a video holds one frame a step, as the format demands, the frame of a step's number is
    its own, and times that say otherwise are no more than wrong.

    Raises:
        UserError: a video holds another number of frames than its episodes have steps.
    """
    is_wrong = any(finding.rule == WRONG_CLOCK.name for finding in findings)
    if not is_wrong or not isinstance(dataset, LeRobotDataset):
        return dataset
    numbered = dataset.by_frame_number()
    raise_faults(
        describe(doubt.place, doubt.value, doubt.threshold, doubt.remedy, doubt.rule)
        for index in range(len(numbered))
        for doubt in frame_doubts(numbered[index]).values()
    )
    return numbered
