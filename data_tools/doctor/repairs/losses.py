"""What a file in our own layout does not hold of what it is made of, said before it is made."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from typing import Final

import h5py

from data_tools.episode import Dataset
from data_tools.formats.reading.hdf5_dataset import Hdf5Dataset
from data_tools.formats.reading.records import EpisodeRecord
from data_tools.rewrite.frame_storage import DEFAULT_QUALITY
from data_tools.storage.hdf5.opening import open_hdf5

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
    left_out = _left_out(dataset)
    if left_out:
        names = [f"{name} ({count})" for name, count in left_out.most_common(MAX_TOLD)]
        more = f" and {len(left_out) - MAX_TOLD} more" if len(left_out) > MAX_TOLD else ""
        yield f"left out, with how many there are: {', '.join(names)}{more}"


def _left_out(dataset: Hdf5Dataset) -> Counter[str]:
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
