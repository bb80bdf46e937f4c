"""Where each episode of a LeRobot folder lies, checked against itself before anything is read."""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import JsonValue

from data_tools.errors import Faults, UserError, describe
from data_tools.formats.lerobot import meta_files
from data_tools.formats.lerobot.info import Info, file_path
from data_tools.formats.lerobot.meta_files import CORRECT
from data_tools.formats.lerobot.parquet_files import columns_fault, open_parquet, rows_fault
from data_tools.formats.lerobot.sources import SIDECAR, images_line
from data_tools.rules import MISSING_PART, NO_STEPS

MAX_ATTRIBUTE_CHARACTERS: Final = 1 << 16

_V21_KEYS: Final = {"episode_index", "tasks", "length"}
_V30_KEYS: Final = {"episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index"}
_FILE_PARTS: Final = ("chunk_index", "file_index")


@dataclass(frozen=True)
class VideoPlace:
    """Where a camera's frames of one episode are.

    Attributes:
        path: the video file.
        start_s: time of the episode's first frame in it, as the index says.
        first_frame: its number in it, by the lengths of the episodes before.
        num_frames: steps of all the episodes that the file holds frames of.
        is_whole: whether the file holds this episode only.
    """

    path: str
    start_s: float
    first_frame: int
    num_frames: int
    is_whole: bool


@dataclass(frozen=True)
class EpisodePlace:
    """One episode: its length, its tasks, and where its rows and frames are.

    Attributes:
        index: its number in the folder.
        length: number of steps.
        tasks: the sentences of its steps, each once.
        path: the Parquet file.
        first_row: its first row in that file.
        videos: feature -> where its frames are.
        attributes: whatever else the folder records about the episode.
    """

    index: int
    length: int
    tasks: tuple[str, ...]
    path: str
    first_row: int
    videos: Mapping[str, VideoPlace]
    attributes: Mapping[str, object] = field(default_factory=dict)


class Index(NamedTuple):
    """What the index of a folder says.

    Attributes:
        places: the episodes in order.
        tasks: the tasks by number; nothing where nobody lists them.
        faults: what is wrong with it and keeps no episode from being read.
    """

    places: list[EpisodePlace]
    tasks: dict[int, str]
    faults: list[str]


def read_index(folder: Path, info: Info, videos: Sequence[str]) -> Index:
    """The episodes and the tasks that a folder lists.

    Args:
        folder: the dataset's.
        info: its info.json.
        videos: features whose videos are needed.

    Raises:
        UserError: a file of the index is missing or broken, or its numbers contradict one another;
            each fault gives both numbers.
    """
    faults = Faults()
    tasks = faults.of(lambda: meta_files.tasks_by_number(folder, info))
    listed = faults.of(lambda: meta_files.episode_rows(folder, info))
    places: list[EpisodePlace] = []
    harmless: list[str] = []
    if listed is not None:
        where, rows = listed
        wrong = _count_faults(where, info, rows)
        if not wrong:
            harmless += meta_files.total_faults(where, info, rows)
            wrong = _range_faults(where, info, rows, videos) if info.is_v3 else []
        faults.extend(wrong)
        if not wrong:
            places = (_v30_places if info.is_v3 else _v2_places)(folder, info, rows, videos)
            harmless += _task_faults(where, places, tasks or {})
    if faults.listed:
        raise UserError([*faults.listed, *harmless])
    return Index(places, tasks or {}, harmless)


def _count_faults(where: Path, info: Info, rows: Sequence[Mapping[str, JsonValue]]) -> list[str]:
    """What is wrong with episode numbers, lengths and tasks."""
    lengths = [row.get("length") for row in rows]
    faults = [
        describe(f"{where}, entry {i}", f"length {length!r}", "a whole number above 0", CORRECT)
        for i, length in enumerate(lengths)
        if type(length) is not int or length < 1
    ]
    faults += [
        describe(
            f"{where}, entry {i}", f"tasks {str(row['tasks'])[:80]}", "a list of texts", CORRECT
        )
        for i, row in enumerate(rows)
        if "tasks" in row and not _is_texts(row["tasks"])
    ]
    numbers = [row.get("episode_index") for row in rows]
    # of v2 a file's name has the number, so that some episodes may be taken without the others
    seen: set[int] = set()
    for i, number in enumerate(numbers):
        is_free = type(number) is int and number >= 0 and number not in seen
        if not is_free or (info.is_v3 and number != i):
            expected = f"{i}" if info.is_v3 else "a whole number that no other entry has"
            found = f"episode_index {str(number)[:80]}"
            faults.append(describe(f"{where}, entry {i}", found, expected, CORRECT))
            break
        seen.add(_whole(number))
    if not rows:
        rule = NO_STEPS.name
        faults.append(describe(str(where), "no episodes", "at least one", "Record one.", rule))
    return faults


def _v2_places(
    folder: Path, info: Info, rows: Sequence[Mapping[str, JsonValue]], videos: Sequence[str]
) -> list[EpisodePlace]:
    places = []
    for row in sorted(rows, key=lambda row: _whole(row["episode_index"])):
        index, length = _whole(row["episode_index"]), _whole(row["length"])
        at = {"episode_chunk": index // info.chunks_size, "episode_index": index}
        found = {
            key: VideoPlace(
                str(file_path(folder, info.video_template, video_key=key, **at)),
                0.0,
                0,
                length,
                is_whole=True,
            )
            for key in videos
        }
        path = str(file_path(folder, info.data_template, **at))
        attributes = _attributes(row, _V21_KEYS)
        places.append(EpisodePlace(index, length, _tasks(row), path, 0, found, attributes))
    return places


def _range_faults(
    where: Path, info: Info, rows: Sequence[Mapping[str, JsonValue]], videos: Sequence[str]
) -> list[str]:
    """Episodes of v3.0 whose rows do not fit their lengths, or of whose videos no place is told."""
    required = ["data/chunk_index", "data/file_index", "dataset_from_index", "dataset_to_index"]
    required += [f"videos/{key}/{part}" for key in videos for part in _FILE_PARTS]
    times = [f"videos/{key}/from_timestamp" for key in videos]
    faults: list[str] = []
    next_row = 0
    for i, row in enumerate(rows):
        place = f"{where}, entry {i}"
        lacking = [name for name in required if type(row.get(name)) is not int]
        lacking += [name for name in times if type(row.get(name)) not in (float, int)]
        if lacking:
            return [*faults, describe(place, f"no numbers {lacking}", "them", CORRECT)]
        length, start, stop = (
            _whole(row[name]) for name in ("length", "dataset_from_index", "dataset_to_index")
        )
        if (start, stop) != (next_row, next_row + length):
            expected = f"rows {next_row} to {next_row + length}, for its length is {length}"
            faults.append(describe(place, f"rows {start} to {stop}", expected, CORRECT))
        next_row += length
    return faults


def _v30_places(
    folder: Path, info: Info, rows: Sequence[Mapping[str, JsonValue]], videos: Sequence[str]
) -> list[EpisodePlace]:
    placed = {key: _video_places(folder, info, rows, key) for key in videos}
    places, begun = [], dict[str, int]()
    for index, row in enumerate(rows):
        at = {part: _whole(row[f"data/{part}"]) for part in _FILE_PARTS}
        path = str(file_path(folder, info.data_template, **at))
        start = _whole(row["dataset_from_index"])
        begun.setdefault(path, start)
        found = {key: each[index] for key, each in placed.items()}
        first_row, length = start - begun[path], _whole(row["length"])
        places.append(
            EpisodePlace(
                index, length, _tasks(row), path, first_row, found, _attributes(row, _V30_KEYS)
            )
        )
    return places


def _video_places(
    folder: Path, info: Info, rows: Sequence[Mapping[str, JsonValue]], key: str
) -> list[VideoPlace]:
    """Where each episode's frames of one camera are, in files that hold one after the other."""
    paths = [_video_path(folder, info, row, key) for row in rows]
    starts = [_start(row, key) for row in rows]
    first_frames, held = dict[int, int](), defaultdict[str, int](int)
    for i in sorted(range(len(rows)), key=lambda i: starts[i]):
        first_frames[i] = held[paths[i]]
        held[paths[i]] += _whole(rows[i]["length"])
    return [
        VideoPlace(path, start, first_frames[i], held[path], is_whole=False)
        for i, (path, start) in enumerate(zip(paths, starts, strict=True))
    ]


def _video_path(folder: Path, info: Info, row: Mapping[str, JsonValue], key: str) -> str:
    at = {part: _whole(row[f"videos/{key}/{part}"]) for part in _FILE_PARTS}
    return str(file_path(folder, info.video_template, video_key=key, **at))


def file_faults(
    places: Sequence[EpisodePlace], columns: Sequence[str], cameras: Mapping[str, str]
) -> tuple[list[str], set[str]]:
    """What the files lack that are to be read, and which files; a kind of fault is told once.

    Args:
        places: the episodes.
        columns: what the Parquet files must have.
        cameras: camera -> the feature of its frames, of all that are to be read.
    """
    rows: dict[str, int] = defaultdict(int)
    missing: dict[str, list[VideoPlace]] = defaultdict(list)
    for place in places:
        rows[place.path] += place.length
        for feature, video in place.videos.items():
            if not os.path.isfile(video.path):
                missing[feature].append(video)
    faults, broken = _table_faults(rows, columns)
    for feature, each in missing.items():
        faults.append(_no_videos(feature, each, len(places), cameras))
        broken |= {video.path for video in each}
    return faults, broken


def _table_faults(rows: Mapping[str, int], columns: Sequence[str]) -> tuple[list[str], set[str]]:
    """Parquet files that are missing, lack columns, or hold other rows than the index says."""
    faults, broken = list[str](), set[str]()
    lacking: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for path, expected in rows.items():
        try:
            with open_parquet(Path(path)) as file:
                found, names = file.metadata.num_rows, tuple(file.schema_arrow.names)
        except UserError as error:
            faults += error.faults
            broken.add(path)
            continue
        if any(names.count(name) != 1 for name in columns):
            lacking[names].append(path)
        elif found != expected:
            faults.append(rows_fault(path, found, expected))
            broken.add(path)
    for names, paths in lacking.items():
        absent = [name for name in columns if names.count(name) != 1]
        faults.append(columns_fault(_one_and_more(paths), names, absent))
        broken |= {*paths}
    return faults, broken


def _no_videos(
    feature: str, missing: Sequence[VideoPlace], episodes: int, cameras: Mapping[str, str]
) -> str:
    others = {camera: each for camera, each in cameras.items() if each != feature}
    remedy = "Download or copy the dataset again, with its videos, or correct info.json: video_path"
    remedy += f"; to read it without this camera, write {images_line(others)} into {SIDECAR}"
    if len(missing) < episodes and missing[0].is_whole:
        remedy += "; to read the others, take these out of meta/episodes.jsonl and the totals"
    found = f"no such file, for {len(missing)} of {episodes} episodes"
    where = f"{missing[0].path}, feature {feature!r}"
    return describe(where, found, "a video", f"{remedy}.", MISSING_PART.name)


def _one_and_more(paths: Sequence[str]) -> str:
    return f"{paths[0]} and {len(paths) - 1} more files" if len(paths) > 1 else paths[0]


def _task_faults(
    where: Path, places: Iterable[EpisodePlace], tasks: Mapping[int, str]
) -> list[str]:
    known, remedy = set(tasks.values()), "Download or copy the dataset's `meta` again."
    if not known:  # nobody lists them: each episode says its own
        return []
    unknown = sorted({task for place in places for task in place.tasks} - known)
    expected = f"only the {len(known)} tasks of the task file"
    return [describe(str(where), f"the task {task!r}", expected, remedy) for task in unknown]


def _attributes(row: Mapping[str, JsonValue], known: set[str]) -> dict[str, object]:
    """What the folder says beyond the format; the attributes our own writer keeps as JSON."""
    kept: dict[str, object] = {
        key: value for key, value in row.items() if key not in known and "/" not in key
    }
    text = kept.get("attributes")
    if isinstance(text, str) and len(text) <= MAX_ATTRIBUTE_CHARACTERS:
        del kept["attributes"]
        try:
            own = json.loads(text)
        except ValueError:
            own = text  # somebody else's column of that name
        kept = {**kept, **own} if isinstance(own, dict) else {**kept, "attributes": own}
    return kept


def _tasks(row: Mapping[str, JsonValue]) -> tuple[str, ...]:
    tasks = row.get("tasks")
    listed = [tasks] if isinstance(tasks, str) else tasks
    return tuple(dict.fromkeys(str(task) for task in listed)) if isinstance(listed, list) else ()


def _is_texts(tasks: JsonValue) -> bool:
    listed = [tasks] if isinstance(tasks, str) else tasks
    return isinstance(listed, list) and bool(listed) and all(isinstance(t, str) for t in listed)


def _whole(number: JsonValue) -> int:
    assert isinstance(number, int)  # checked by _count_faults or _range_faults
    return number


def _start(row: Mapping[str, JsonValue], key: str) -> float:
    time = row[f"videos/{key}/from_timestamp"]
    assert isinstance(time, float | int)  # checked by _range_faults
    return float(time)
