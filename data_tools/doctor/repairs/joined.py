"""Several files of episodes merged for a repair, and what a file in our layout does not keep."""

import tempfile
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import h5py
import numpy as np

from data_tools.episode import Dataset
from data_tools.errors import UserError
from data_tools.formats.layouts.native import NATIVE_LAYOUT
from data_tools.formats.reading.hdf5_dataset import Hdf5Dataset
from data_tools.formats.reading.records import EpisodeRecord
from data_tools.rewrite.demo_files import demo_name
from data_tools.rewrite.frame_storage import DEFAULT_QUALITY
from data_tools.rewrite.merge import merge
from data_tools.storage.files.disk import PARTIAL_SUFFIX
from data_tools.storage.hdf5.opening import open_hdf5

MERGED = (NATIVE_LAYOUT.root, "mask")


@dataclass(frozen=True)
class Joined:
    """A file that holds all episodes.

    Attributes:
        path: the file, with the episodes in their order; None where they do not fit into one.
        note: what is left out of it, or why there is none; '' for nothing.
    """

    path: Path | None
    note: str


@contextmanager
def one_file(
    dataset: Hdf5Dataset, target: Path, sources: Sequence[str | Path], layout: str
) -> Iterator[Joined]:
    """The dataset's one file, or its files merged beside the target while the block lasts."""
    files = dataset.inspected.files
    if len(files) == 1:
        yield Joined(Path(files[0]), "")
        return
    why = f"it is made of {len(files)} files, and"
    if any(demo_name(record.name) is None for record in dataset.records):
        yield Joined(None, f"{why} their episodes are no groups data/demo_N")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=target.parent, prefix=f"{target.name}.", suffix=PARTIAL_SUFFIX
    ) as folder:
        try:
            path = merge(dataset, Path(folder) / target.name, list(map(Path, sources)), layout)
        except UserError as error:
            one = Joined(None, f"{why} they cannot be merged ({error.faults[0]})")
        else:
            one = Joined(path, _left_out(dataset))
        yield one


def _left_out(dataset: Hdf5Dataset) -> str:
    """What of the files is neither an episode, nor a filter key, nor what the first one says."""
    names: dict[str, None] = {}
    episodes = {(record.path, record.group) for record in dataset.records}
    first: dict[str, object] = {}
    for index, path in enumerate(dataset.inspected.files):
        with open_hdf5(path) as file:
            root = file[NATIVE_LAYOUT.root]
            names |= {f"{path}:{name}": None for name in file if name not in MERGED}
            names |= {
                f"{path}:{root.name[1:]}/{name}": None
                for name in root
                if (path, f"{root.name[1:]}/{name}") not in episodes
            }
            said = {key: np.asarray(value).tolist() for key, value in root.attrs.items()}
            said.pop("total", None)
            first = first or said
            names |= {
                f"{path}:{root.name[1:]}, attribute {key!r}": None
                for key, value in said.items()
                if index and first.get(key) != value
            }
            names |= {f"{path}: attribute {key!r}": None for key in file.attrs}
    return f"left out in merging: {', '.join(names)}" if names else ""


MAX_TOLD: Final = 20


def losses(dataset: Dataset) -> Iterator[str]:
    """A sentence for the frames that are encoded again, and one for the data that is left out."""
    cameras = sorted(
        {
            camera
            for camera in dataset.conventions.camera_names
            for index in range(len(dataset))
            if dataset[index].stored_frames(camera).encoding != "jpeg"
        }
    )
    if cameras:
        yield (
            f"frames of {', '.join(cameras)} that are no JPEG become JPEG of quality "
            f"{DEFAULT_QUALITY}, which changes pixels a little"
        )
    if not isinstance(dataset, Hdf5Dataset):
        yield "left out: everything but sentences, success, attributes, times, numbers and frames"
        return
    left_out = _unread_datasets(dataset)
    if left_out:
        names = [f"{name} ({count})" for name, count in left_out.most_common(MAX_TOLD)]
        more = f" and {len(left_out) - MAX_TOLD} more" if len(left_out) > MAX_TOLD else ""
        yield f"left out, with how many there are: {', '.join(names)}{more}"


def _unread_datasets(dataset: Hdf5Dataset) -> Counter[str]:
    """Datasets that no episode is read from -> how many, with * for the episode's name."""
    groups: dict[str, list[EpisodeRecord]] = defaultdict(list)
    for record in dataset.records:
        groups[record.path].append(record)
    found: Counter[str] = Counter()
    for path, records in groups.items():
        read = {place for record in records for place in _places(record)}
        episodes = {record.group for record in records if record.group}
        with open_hdf5(path) as file:
            for name in _dataset_names(file):
                if name not in read:
                    found[_named_alike(name, episodes)] += 1
    return found


def _dataset_names(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(
        lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
    )
    return names


def _places(record: EpisodeRecord) -> Iterator[str]:
    """Datasets that the episode is read from."""
    clock = [] if record.times is None else [record.times[0]]
    for source in (record.actions, record.state, *clock):
        for part in source.parts:
            yield from (part.dataset, part.index, part.fill)
    yield from (image.dataset for image in record.images.values())


def _named_alike(name: str, episodes: Collection[str]) -> str:
    parts = name.split("/")
    for depth in range(1, len(parts)):
        if "/".join(parts[:depth]) in episodes:
            return "/".join([*parts[: depth - 1], "*", *parts[depth:]])
    return name
