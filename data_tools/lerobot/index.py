"""Where each episode of a LeRobot folder lies, checked against itself before anything is read."""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from data_tools.errors import UserError, describe, raise_faults
from data_tools.lerobot.info import Info, file_path
from data_tools.lerobot.meta_files import REBUILD, episode_rows, tasks_by_number, total_fault
from data_tools.lerobot.parquet_files import open_parquet, rows_fault

MAX_ATTRIBUTE_CHARACTERS: Final = 1 << 16

_V21_KEYS: Final = {"episode_index", "tasks", "length"}
_V30_KEYS: Final = {"episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index"}
_ENDS: Final = ("from_timestamp", "to_timestamp")
_FILE_PARTS: Final = ("chunk_index", "file_index")


@dataclass(frozen=True)
class VideoPlace:
    """Where a camera's frames of one episode are.

    Attributes:
        path: the video file.
        start_s: time of the episode's first frame in it.
        num_frames: frames the file must hold, of all its episodes together.
        is_whole: whether the file holds this episode only, so no more frames than that.
    """

    path: str
    start_s: float
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


def read_index(folder: Path, info: Info) -> tuple[list[EpisodePlace], dict[int, str]]:
    """The episodes in order, and the tasks by number.

    Raises:
        UserError: a file of the index is missing or broken, or its numbers contradict one another
            or the footers of the Parquet files; each fault gives both numbers.
    """
    where, rows = episode_rows(folder, info)
    tasks = tasks_by_number(folder, info)
    raise_faults(_count_faults(where, info, rows))
    if info.codebase_version == "v2.1":
        places = _v21_places(folder, info, rows)
    else:
        raise_faults(_range_faults(where, info, rows))
        places = _v30_places(folder, info, rows)
    raise_faults([*_file_faults(places), *_task_faults(where, places, tasks)])
    return places, tasks


def _count_faults(where: Path, info: Info, rows: Sequence[Mapping[str, JsonValue]]) -> list[str]:
    """What is wrong with episode numbers, lengths and tasks, and with the totals of info.json."""
    lengths = [row.get("length") for row in rows]
    faults = [
        describe(f"{where}, entry {i}", f"length {length!r}", "a whole number above 0", REBUILD)
        for i, length in enumerate(lengths)
        if type(length) is not int or length < 1
    ]
    faults += [
        describe(f"{where}, entry {i}", f"tasks {row.get('tasks')!r}", "a list of texts", REBUILD)
        for i, row in enumerate(rows)
        if not _is_texts(row.get("tasks"))
    ]
    numbers = [row.get("episode_index") for row in rows]
    wrong = [(i, number) for i, number in enumerate(numbers) if number != i][:1]
    faults += [
        describe(f"{where}, entry {i}", f"episode_index {number!r}", f"{i}", REBUILD)
        for i, number in wrong
    ]
    if not faults:
        totals = [("total_episodes", len(rows), info.total_episodes)]
        totals.append(("total_frames", sum(_whole(each) for each in lengths), info.total_frames))
        faults += [total_fault(where, *total) for total in totals if total[1] != total[2]]
    if not rows:
        faults.append(describe(str(where), "no episodes", "at least one", "Record one."))
    return faults


def _v21_places(
    folder: Path, info: Info, rows: Sequence[Mapping[str, JsonValue]]
) -> list[EpisodePlace]:
    places = []
    for index, row in enumerate(rows):
        length, at = _whole(row["length"]), {"episode_chunk": index // info.chunks_size}
        at["episode_index"] = index
        videos = {
            key: VideoPlace(
                str(file_path(folder, info.video_path or "", video_key=key, **at)),
                0.0,
                length,
                True,
            )
            for key in info.videos
        }
        path = str(file_path(folder, info.data_path, **at))
        attributes = _attributes(row, _V21_KEYS)
        places.append(EpisodePlace(index, length, _tasks(row), path, 0, videos, attributes))
    return places


def _range_faults(where: Path, info: Info, rows: Sequence[Mapping[str, JsonValue]]) -> list[str]:
    """Episodes of v3.0 whose rows or video times do not fit their lengths."""
    required = ["data/chunk_index", "data/file_index", "dataset_from_index", "dataset_to_index"]
    required += [f"videos/{key}/{part}" for key in info.videos for part in _FILE_PARTS]
    times = [f"videos/{key}/{end}" for key in info.videos for end in _ENDS]
    faults: list[str] = []
    next_row = 0
    for i, row in enumerate(rows):
        place = f"{where}, entry {i}"
        lacking = [name for name in required if type(row.get(name)) is not int]
        lacking += [name for name in times if not isinstance(row.get(name), float)]
        if lacking:
            return [*faults, describe(place, f"no numbers {lacking}", "them", REBUILD)]
        length, start, stop = (
            _whole(row[name]) for name in ("length", "dataset_from_index", "dataset_to_index")
        )
        if (start, stop) != (next_row, next_row + length):
            expected = f"rows {next_row} to {next_row + length}, for its length is {length}"
            faults.append(describe(place, f"rows {start} to {stop}", expected, REBUILD))
        next_row += length
        for key in info.videos:
            begin, end = (_second(row, key, name) for name in _ENDS)
            if not abs((end - begin) * info.fps - length) < 0.5:
                found = f"{(end - begin) * info.fps:.2f} frames of time"
                expected = f"{length}, the episode's length"
                faults.append(describe(f"{place}, video {key!r}", found, expected, REBUILD))
    return faults


def _v30_places(
    folder: Path, info: Info, rows: Sequence[Mapping[str, JsonValue]]
) -> list[EpisodePlace]:
    frames: dict[str, int] = defaultdict(int)  # of each video file, up to its last episode
    for row in rows:
        for key in info.videos:
            last = round(_second(row, key, "to_timestamp") * info.fps)
            path = _video_path(folder, info, row, key)
            frames[path] = max(frames[path], last)
    places, begun = [], dict[str, int]()
    for index, row in enumerate(rows):
        at = {part: _whole(row[f"data/{part}"]) for part in _FILE_PARTS}
        path = str(file_path(folder, info.data_path, **at))
        start = _whole(row["dataset_from_index"])
        begun.setdefault(path, start)
        videos = {
            key: VideoPlace(file, _second(row, key, "from_timestamp"), frames[file], False)
            for key in info.videos
            for file in [_video_path(folder, info, row, key)]
        }
        first_row, length = start - begun[path], _whole(row["length"])
        places.append(
            EpisodePlace(
                index, length, _tasks(row), path, first_row, videos, _attributes(row, _V30_KEYS)
            )
        )
    return places


def _video_path(folder: Path, info: Info, row: Mapping[str, JsonValue], key: str) -> str:
    at = {part: _whole(row[f"videos/{key}/{part}"]) for part in _FILE_PARTS}
    return str(file_path(folder, info.video_path or "", video_key=key, **at))


def _file_faults(places: Iterable[EpisodePlace]) -> list[str]:
    """Parquet files whose footers count other rows than the index, and videos that are missing."""
    rows: dict[str, int] = defaultdict(int)
    videos: set[str] = set()
    for place in places:
        rows[place.path] += place.length
        videos |= {video.path for video in place.videos.values()}
    faults: list[str] = []
    for path, expected in rows.items():
        try:
            with open_parquet(Path(path)) as file:
                found = file.metadata.num_rows
        except UserError as error:
            faults += error.faults
            continue
        if found != expected:
            faults.append(rows_fault(path, found, expected))
    remedy = "Download or copy the dataset again, with its videos."
    missing = [path for path in sorted(videos) if not os.path.isfile(path)]
    return faults + [describe(path, "no such file", "a video", remedy) for path in missing]


def _task_faults(
    where: Path, places: Iterable[EpisodePlace], tasks: Mapping[int, str]
) -> list[str]:
    known, remedy = set(tasks.values()), "Download or copy the dataset's `meta` again."
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
    tasks = row["tasks"]
    return tuple(dict.fromkeys(str(task) for task in tasks)) if isinstance(tasks, list) else ()


def _is_texts(tasks: JsonValue) -> bool:
    return isinstance(tasks, list) and bool(tasks) and all(isinstance(t, str) for t in tasks)


def _whole(number: JsonValue) -> int:
    assert isinstance(number, int)  # checked by _count_faults or _range_faults
    return number


def _second(row: Mapping[str, JsonValue], key: str, end: str) -> float:
    time = row[f"videos/{key}/{end}"]
    assert isinstance(time, float)  # checked by _range_faults
    return time
