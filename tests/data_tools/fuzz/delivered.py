"""What a dataset delivers, and whether that is what the undamaged data held."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_tools.doctor.examination import validate
from data_tools.episode import Dataset, Episode
from data_tools.formats.layouts.preset import presets
from data_tools.formats.lerobot.lerobot_dataset import LeRobotEpisode
from data_tools.formats.reading.hdf5_dataset import Hdf5Episode
from data_tools.formats.reading.hdf5_store import row_of
from data_tools.formats.reading.records import ArraySource, EpisodeRecord
from tests.data_tools.fuzz.touched import Touched


@dataclass(frozen=True)
class Source:
    """Where a stream of an episode comes from: (file, dataset or column), and the row a step."""

    places: tuple[tuple[str, str], ...]
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Delivered:
    """Everything an episode gives, where it is from, and what marks its rows as steps."""

    facts: str
    streams: dict[str, np.ndarray]
    names: dict[str, tuple[str, ...]]
    sources: dict[str, Source]
    marks: tuple[tuple[str, str], ...]


def everything(dataset: Dataset, folder: Path) -> dict[str, Delivered]:
    """Episode name from the folder on -> all it delivers: every number and every pixel."""
    return {
        dataset[i].name.replace(f"{folder}/", ""): _delivered(dataset, dataset[i], folder)
        for i in range(len(dataset))
    }


def told_by(dataset: Dataset, *, deep: bool) -> set[str]:
    """The rules that the doctor finds broken."""
    return {finding.rule for finding in validate(dataset, deep=deep)}


def differences(
    truth: dict[str, Delivered], found: dict[str, Delivered], touched: Touched
) -> Iterator[str]:
    """What came back as another value although nothing of it was touched; empty is what we want."""
    for name, given in found.items():
        if name in truth:
            yield from _episode_differences(name, truth[name], given, touched)
        elif not _is_new(name, touched):  # rows between marks, which may be others
            yield f"{name}: an episode nobody recorded"
    for name in sorted(truth.keys() - found.keys()):
        if not _is_new(name, touched) and not _may_be_gone(truth[name], touched):
            yield f"{name}: left out without a word"


def _episode_differences(
    name: str, truth: Delivered, given: Delivered, touched: Touched
) -> Iterator[str]:
    if truth.facts != given.facts and not touched.has_facts and not _is_any_touched(truth, touched):
        yield f"{name}: {given.facts} for {truth.facts}"
    if any(touched.covers(*place) or place in touched.rows for place in truth.marks):
        return  # other rows are steps now
    for stream, source in truth.sources.items():
        if not any(touched.covers(*place) for place in source.places):
            yield from _stream_differences(name, stream, truth, given, touched)


def _stream_differences(
    name: str, stream: str, truth: Delivered, given: Delivered, touched: Touched
) -> Iterator[str]:
    old, source = truth.streams[stream], truth.sources[stream]
    if stream not in given.streams:
        yield f"{name}, {stream}: left out without a word"
        return
    new = given.streams[stream]
    if old.shape != new.shape:
        old, new = _same_columns(stream, truth, given)
    if old.shape != new.shape:
        yield f"{name}, {stream}: shape {new.shape} for {old.shape}"
        return
    wrong = [
        step
        for step in _unequal_steps(old, new)
        if not any(touched.is_row(*place, source.rows[step]) for place in source.places)
    ]
    if wrong:
        yield f"{name}, {stream}: another value in {len(wrong)} steps, first {wrong[0]}"


def _unequal_steps(old: np.ndarray, new: np.ndarray) -> list[int]:
    is_same = (old == new) | (np.isnan(old) & np.isnan(new) if old.dtype.kind == "f" else False)
    return np.flatnonzero(~is_same.reshape(len(old), -1).all(axis=1)).tolist()


def _same_columns(stream: str, truth: Delivered, given: Delivered) -> tuple[np.ndarray, np.ndarray]:
    """The columns that both have, where names say which they are."""
    old, new = truth.streams[stream], given.streams[stream]
    if stream not in truth.names or len(old) != len(new):
        return old, new
    shared = [n for n in given.names[stream] if n in truth.names[stream]]
    if len(shared) != len(given.names[stream]):
        return old, new
    return (
        old[:, [truth.names[stream].index(n) for n in shared]],
        new[:, [given.names[stream].index(n) for n in shared]],
    )


def _is_any_touched(truth: Delivered, touched: Touched) -> bool:
    """Small facts of some layouts lie in datasets, which a damage may have replaced."""
    files = {file for source in truth.sources.values() for file, _ in source.places}
    return any(file in files for file, _ in touched.places)


def _is_new(name: str, touched: Touched) -> bool:
    """Whether a damage made an episode of this name, or changed marks between rows."""
    file, _, place = name.partition(":")
    if place.startswith("rows ") and (touched.places or touched.rows):
        return True
    return any(f == file and f"/{place}".startswith(p) for f, p in touched.places)


def _may_be_gone(truth: Delivered, touched: Touched) -> bool:
    return any(touched.covers(*p) for source in truth.sources.values() for p in source.places)


def _delivered(dataset: Dataset, episode: Episode, folder: Path) -> Delivered:
    conventions = dataset.conventions
    streams = {"state": episode.state(), "actions": episode.actions()}
    for camera in conventions.camera_names:
        frames = [episode.image(camera, step) for step in range(episode.num_steps)]
        streams[f"camera {camera}"] = np.stack(frames)
    times = episode.times()
    if times is not None:
        streams["times"] = times
    if len(streams["state"]) != episode.num_steps or len(streams["actions"]) != episode.num_steps:
        raise AssertionError(f"{episode.name}: lengths that differ from num_steps")
    attributes = json.dumps(dict(episode.attributes), sort_keys=True, default=str)
    facts = [episode.instruction, episode.is_success, attributes, conventions.control_hz]
    return Delivered(
        facts=str(facts).replace(str(folder), ""),
        streams=streams,
        names={"state": conventions.state.names, "actions": conventions.action.names},
        sources=_sources(episode, streams, folder),
        marks=_marks(dataset, episode, folder),
    )


def _marks(dataset: Dataset, episode: Episode, folder: Path) -> tuple[tuple[str, str], ...]:
    """Where it says which rows are steps, for layouts that mark them; all keep it in the file."""
    skips = {presets()[n].layout.skip for n in dataset.inspected.layouts if n in presets()}
    file = episode.name.replace(f"{folder}/", "").partition(":data/")[0]
    return tuple((file, skip) for skip in skips if skip)


def _sources(episode: Episode, streams: dict[str, np.ndarray], folder: Path) -> dict[str, Source]:
    if isinstance(episode, LeRobotEpisode):
        return _lerobot_sources(episode, streams, folder)
    assert isinstance(episode, Hdf5Episode)
    record: EpisodeRecord = episode._record
    file = record.path.replace(f"{folder}/", "")

    def of_array(source: ArraySource) -> Source:
        names = [n for p in source.parts for n in (p.dataset, p.index, p.fill) if n]
        return Source(tuple((file, n) for n in names), _rows(record, source.first))

    sources = {"state": of_array(record.state), "actions": of_array(record.actions)}
    if record.times is not None:
        sources["times"] = of_array(record.times[0])
    for camera, image in record.images.items():
        place = (file, image.dataset)
        if image.encoding == "video":
            place = (image.dataset.replace(f"{folder}/", ""), "")
        sources[f"camera {camera}"] = Source((place,), _rows(record, image.first))
    return sources


def _rows(record: EpisodeRecord, first: int) -> tuple[int, ...]:
    return tuple(row_of(record, first, step) for step in range(record.num_steps))


def _lerobot_sources(
    episode: LeRobotEpisode, streams: dict[str, np.ndarray], folder: Path
) -> dict[str, Source]:
    place, declared = episode._place, episode._store._declared.sources
    rows = tuple(range(place.first_row, place.first_row + place.length))
    file = place.path.replace(f"{folder}/", "")
    columns = {"state": declared.state, "actions": (declared.action,), "times": ("timestamp",)}
    sources = {s: Source(tuple((file, c) for c in names), rows) for s, names in columns.items()}
    for camera, feature in declared.images.items():
        at = (file, feature)
        if feature in place.videos:
            at = (place.videos[feature].path.replace(f"{folder}/", ""), "")
        sources[f"camera {camera}"] = Source((at,), rows)
    return sources
