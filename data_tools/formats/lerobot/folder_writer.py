"""FolderWriter: episodes to the files of a LeRobot folder, one step at a time."""

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from data_tools.conventions import Conventions
from data_tools.episode import Episode
from data_tools.errors import UserError, describe, raise_faults
from data_tools.finite import nonfinite_faults
from data_tools.formats.lerobot.info import DATA_PATH, INDEX_FEATURES, VIDEO_PATH, Version
from data_tools.formats.lerobot.lerobot_options import LeRobotOptions
from data_tools.formats.lerobot.statistics import (
    Statistics,
    channel_counts,
    image_statistics,
    vector_statistics,
)
from data_tools.formats.lerobot.written_files import (
    MIB,
    ROW_GROUP_BYTES,
    EpisodeLines,
    EpisodeTable,
    TableWriter,
    VideoWriter,
    video_info,
    write_info,
    write_statistics,
    write_task_lines,
    write_task_table,
)
from data_tools.storage.frames.images import encode_png

STATE: Final = "observation.state"
ACTION: Final = "action"
CAMERA_PREFIX: Final = "observation.images."

Arrays = dict[str, npt.NDArray[Any]]


class FolderWriter:
    """Writes episodes below a folder that exists; the `with` block's end finishes the files.

    Args:
        folder: where; the caller gives it its name when all is done.
        conventions: what the episodes declare.
        fps: steps per second.
        options: how the files are written.
        columns: name -> width of what else is kept of each step, as features of these names.
    """

    def __init__(
        self,
        folder: Path,
        conventions: Conventions,
        fps: float,
        options: LeRobotOptions,
        columns: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self._folder, self._conventions, self._options = folder, conventions, options
        self._widths = columns
        self._fps: float | int = int(fps) if fps == int(fps) else fps
        self._cameras = {CAMERA_PREFIX + each.name: each for each in conventions.cameras}
        self._features = self._describe()
        is_v21 = options.version == "v2.1"
        self._index = EpisodeLines(folder) if is_v21 else EpisodeTable(folder, options)
        self._tasks: dict[str, int] = {}
        self._numbers: dict[str, list[npt.NDArray[Any]]] = defaultdict(list)
        self._pixels: dict[str, npt.NDArray[np.int64]] = {}
        self._lengths: list[int] = []
        self._table: TableWriter | None = None
        self._videos: dict[str, VideoWriter] = {}
        self._num_files: dict[str, int] = defaultdict(int)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            for video in self._videos.values():
                video.abandon()
            if self._table is not None:
                self._table.close()
            return
        if not self._lengths:
            remedy = "Give at least one."
            raise UserError(describe(str(self._folder), "no episodes", "at least one", remedy))
        self._close_files()
        self._index.close()
        self._write_meta()

    def add(self, episode: Episode) -> None:
        """Write one episode; UserError when its numbers or frames do not fit the conventions."""
        state, actions = episode.state(), episode.actions()
        raise_faults(self._number_faults(episode, state, actions))
        length = len(actions)
        texts = [episode.observation(step, ()).instruction for step in range(length)]
        for text in texts:
            self._tasks.setdefault(text, len(self._tasks))
        place = self._place_files(length)
        columns = self._columns(state, actions, texts)
        columns |= {name: episode.column(name) for name in self._widths}
        counts = self._write_steps(episode, columns)
        row = {
            "episode_index": len(self._lengths),
            "tasks": list(dict.fromkeys(texts)),
            "length": length,
            **place,
            "success": episode.is_success,
            "attributes": json.dumps(dict(episode.attributes)),
        }
        statistics = {name: vector_statistics([_two(values)]) for name, values in columns.items()}
        statistics |= {name: image_statistics(each, length) for name, each in counts.items()}
        self._index.add(row, statistics)
        self._lengths.append(length)
        for name, values in columns.items():
            self._numbers[name].append(values)
        for name, each in counts.items():
            self._pixels[name] = self._pixels.get(name, 0) + each
        if self._options.version == "v2.1":
            self._close_files()

    def _describe(self) -> dict[str, dict[str, Any]]:
        """The features of info.json."""
        axes, dtype = ["height", "width", "channels"], "image"
        if self._options.images == "video":
            dtype = "video"
        features: dict[str, dict[str, Any]] = {}
        for name, columns in (
            (STATE, self._conventions.state.names),
            (ACTION, self._conventions.action.names),
        ):
            features[name] = {"dtype": "float32", "shape": [len(columns)], "names": list(columns)}
        for name, width in self._widths.items():
            features[name] = {"dtype": "float32", "shape": [width], "names": None}
        for name, camera in self._cameras.items():
            shape = [camera.height, camera.width, 3]
            features[name] = {"dtype": dtype, "shape": shape, "names": axes}
            if dtype == "video":
                features[name]["info"] = video_info(camera, self._fps, self._options)
        for name in INDEX_FEATURES:
            kind = "float32" if name == "timestamp" else "int64"
            features[name] = {"dtype": kind, "shape": [1], "names": None}
        return features

    def _number_faults(
        self, episode: Episode, state: npt.NDArray[np.float32], actions: npt.NDArray[np.float32]
    ) -> list[str]:
        faults = []
        for name, array, columns in (
            ("state", state, self._conventions.state.names),
            ("actions", actions, self._conventions.action.names),
        ):
            where = f"{episode.name} {name}"
            if array.shape != (episode.num_steps, len(columns)):
                expected = f"{[episode.num_steps, len(columns)]} as the conventions declare"
                remedy = "Correct the declared columns."
                faults.append(describe(where, f"shape {list(array.shape)}", expected, remedy))
            else:
                faults += nonfinite_faults(where, array, columns)
        return faults

    def _columns(
        self, state: npt.NDArray[np.float32], actions: npt.NDArray[np.float32], texts: list[str]
    ) -> Arrays:
        steps, first = np.arange(len(actions)), sum(self._lengths)
        return {
            STATE: np.asarray(state, np.float32),
            ACTION: np.asarray(actions, np.float32),
            "timestamp": (steps / self._fps).astype(np.float32),
            "frame_index": steps,
            "episode_index": np.full(len(steps), len(self._lengths)),
            "index": first + steps,
            "task_index": np.array([self._tasks[text] for text in texts]),
        }

    def _write_steps(self, episode: Episode, columns: Arrays) -> Arrays:
        """Write rows and frames; int64[3, 256] of each camera, its pixels' levels."""
        table = self._table
        assert table is not None  # opened by _place_files
        counts: Arrays = {}
        images: dict[str, list[dict[str, object]]] = defaultdict(list)
        begun = num_bytes = 0
        for step in range(episode.num_steps):
            for name, camera in self._cameras.items():
                frame = episode.image(camera.name, step)
                counts[name] = counts.get(name, 0) + channel_counts(frame)
                if name in self._videos:
                    self._videos[name].add(frame, is_first=step == 0)
                else:
                    data = encode_png(frame)
                    images[name].append({"bytes": data, "path": f"frame-{step:06d}.png"})
                    num_bytes += len(data)
            if num_bytes >= ROW_GROUP_BYTES or step == episode.num_steps - 1:
                part = {name: values[begun : step + 1] for name, values in columns.items()}
                table.add(part, images)
                images, begun, num_bytes = defaultdict(list), step + 1, 0
        return counts

    def _place_files(self, length: int) -> dict[str, object]:
        """Open the files of the next episode; where v3.0's index says it will be."""
        index = len(self._lengths)
        table = self._table
        limit = self._options.data_files_size_in_mb * MIB
        if table is None or _is_full(table.num_bytes, table.num_rows, length, limit):
            if table is not None:
                table.close()
            table = TableWriter(self._new_path("data", DATA_PATH), self._features)
            self._table = table
        first = sum(self._lengths)
        row = {**self._file_number("data"), "dataset_from_index": first}
        row["dataset_to_index"] = first + length
        limit = self._options.video_files_size_in_mb * MIB
        for name, camera in self._cameras.items() if self._options.images == "video" else ():
            video = self._videos.get(name)
            if video is None or _is_full(video.num_bytes, video.num_frames, length, limit):
                if video is not None:
                    video.close()
                path = self._new_path(f"videos/{name}", VIDEO_PATH, video_key=name)
                video = VideoWriter(path, camera, self._fps, self._options)
                self._videos[name] = video
            row |= self._file_number(f"videos/{name}")
            row[f"videos/{name}/from_timestamp"] = video.num_frames / self._fps
            row[f"videos/{name}/to_timestamp"] = (video.num_frames + length) / self._fps
        return row if self._options.version == "v3.0" else {"episode_index": index}

    def _new_path(self, kind: str, templates: dict[Version, str], **places: str) -> Path:
        self._num_files[kind] += 1
        chunk, file = divmod(self._num_files[kind] - 1, self._options.chunks_size)
        relative = templates[self._options.version].format(
            chunk_index=chunk,
            file_index=file,
            episode_chunk=chunk,
            episode_index=self._num_files[kind] - 1,
            **places,
        )
        return self._folder / relative

    def _file_number(self, kind: str) -> dict[str, object]:
        chunk, file = divmod(self._num_files[kind] - 1, self._options.chunks_size)
        return {f"{kind}/chunk_index": chunk, f"{kind}/file_index": file}

    def _close_files(self) -> None:
        for video in self._videos.values():
            video.close()
        self._videos = {}
        if self._table is not None:
            self._table.close()
            self._table = None

    def _write_meta(self) -> None:
        options, total = self._options, len(self._lengths)
        is_v21 = options.version == "v2.1"
        info: dict[str, object] = {
            "codebase_version": options.version,
            "robot_type": options.robot_type,
            "total_episodes": total,
            "total_frames": sum(self._lengths),
            "total_tasks": len(self._tasks),
        }
        if is_v21:
            num_videos = total * len(self._cameras) if options.images == "video" else 0
            info["total_videos"] = num_videos
            info["total_chunks"] = -(-total // options.chunks_size)
        info["chunks_size"] = options.chunks_size
        if not is_v21:
            info["data_files_size_in_mb"] = options.data_files_size_in_mb
            info["video_files_size_in_mb"] = options.video_files_size_in_mb
        info |= {
            "fps": self._fps,
            "splits": {"train": f"0:{total}"},
            "data_path": DATA_PATH[options.version],
            "video_path": VIDEO_PATH[options.version] if options.images == "video" else None,
            "features": self._features,
        }
        write_info(self._folder, info)
        if is_v21:
            write_task_lines(self._folder, self._tasks)
            return
        write_task_table(self._folder, self._tasks)
        write_statistics(self._folder, self._all_statistics())

    def _all_statistics(self) -> dict[str, Statistics]:
        numbers = {
            name: vector_statistics([_two(each) for each in arrays])
            for name, arrays in self._numbers.items()
        }
        total = sum(self._lengths)
        return numbers | {
            name: image_statistics(each, total) for name, each in self._pixels.items()
        }


def _is_full(num_bytes: int, num_steps: int, more: int, limit: int) -> bool:
    """Whether so many more steps would take a file over its limit, by their size until now."""
    return num_bytes * (1 + more / num_steps) >= limit


def _two(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[n, d] of [n, d], or [n, 1] of [n]."""
    return values.reshape(len(values), -1)
