"""Store: the numbers and frames of episodes, checked against the index as they are read."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from data_tools.columns import in_all_steps
from data_tools.episode import StoredFrames
from data_tools.errors import UserError, describe, shown
from data_tools.finding import Finding
from data_tools.formats.layouts.places import InAttribute, OfEpisodes
from data_tools.formats.lerobot.clock import FrameClock, Located
from data_tools.formats.lerobot.declared import Declared
from data_tools.formats.lerobot.index import EpisodePlace
from data_tools.formats.lerobot.info import Info
from data_tools.formats.lerobot.parquet_files import ParquetFiles, integers, matrix
from data_tools.formats.lerobot.sources import SIDECAR
from data_tools.formats.lerobot.video_files import VideoFiles
from data_tools.rules import UNREADABLE_VIDEO
from data_tools.storage.files.cache import LruCache
from data_tools.storage.frames.images import (
    JPEG_START,
    UndecodableFrameError,
    decode_frame,
    to_rgb_upright,
)

ARRAY_CACHE_BYTES: Final = 64 << 20
SUCCESS_FEATURE: Final = "next.success"
INSTRUCTION_LINE: Final = "`layout: {instruction: {text: ...}}` into conventions.yaml"
_NUMBERS: Final = ("timestamp", "frame_index", "episode_index")
_CACHES: Final = ("_rows", "_located")


@dataclass(frozen=True)
class Rows:
    """The numbers of one episode.

    Attributes:
        state: float32[t, s], read-only.
        actions: float32[t, a], read-only.
        times: float64[t], read-only: seconds as recorded, or frame_index / fps where the sidecar
            takes that, or nothing is recorded.
        tasks: the sentence of each step.
        is_success: whether any step says so; None when none is asked.
        columns: name -> float32[t] or float32[t, n], read-only, of those with a row a step.
    """

    state: npt.NDArray[np.float32]
    actions: npt.NDArray[np.float32]
    times: npt.NDArray[np.float64]
    tasks: tuple[str, ...]
    is_success: bool | None
    columns: Mapping[str, npt.NDArray[np.float32]]

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, and of a pointer to each sentence."""
        columns = sum(values.nbytes for values in self.columns.values())
        return self.state.nbytes + self.actions.nbytes + 2 * self.times.nbytes + columns


class Store:
    """Open files and the rows read last, for the episodes of one dataset.

    Attributes:
        folder: the dataset's.
    """

    def __init__(
        self,
        folder: Path,
        info: Info,
        declared: Declared,
        tasks: Mapping[int, str],
    ) -> None:
        self.folder, self._info, self._declared = folder, info, declared
        self._tasks = tasks
        self._parquet, self._videos = ParquetFiles(), VideoFiles()
        self._clock = FrameClock(declared.sources, info.fps, self._videos)
        self._cameras = {each.name: each for each in declared.conventions.cameras}
        self._forget()

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in vars(self).items() if key not in _CACHES}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._forget()

    def declared_as(self, declared: Declared) -> "Store":
        """The same folder, declared otherwise."""
        return Store(self.folder, self._info, declared, self._tasks)

    def name(self, place: EpisodePlace) -> str:
        """Folder and number of an episode, for messages."""
        return f"{self.folder}:episode_{place.index}"

    def rows(self, place: EpisodePlace) -> Rows:
        """The numbers of an episode, checked against its place in the index."""
        return self._rows.get_or_make(place.index, lambda: self._read(place))

    def holding(self) -> AbstractContextManager[None]:
        """Within it numbers that were read stay in memory, all of them."""
        return self._rows.holding()

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of the columns that every episode has."""
        return tuple(self._declared.sources.columns)

    def column(self, place: EpisodePlace, name: str) -> npt.NDArray[np.float32]:
        """float32[t] or float32[t, n]; UserError where an episode has no number for it."""
        said = self._declared.sources.columns[name]
        if isinstance(said, str):
            return self.rows(place).columns[name]
        value: object = said
        if isinstance(said, OfEpisodes):
            value = said.episodes.get(str(place.index))
        elif isinstance(said, InAttribute):
            value = place.attributes.get(said.attribute)
        if not isinstance(value, Real):
            where, kind = f"{self.name(place)}, column {name!r}", type(said).__name__
            remedy = f"Correct layout.columns.{name} in {self.folder / SIDECAR}."
            raise UserError(describe(where, f"{shown(value)} ({kind})", "a number", remedy))
        return in_all_steps(float(value), place.length)

    def frame(self, place: EpisodePlace, camera: str, step: int) -> npt.NDArray[np.uint8]:
        """uint8[y, x, 3], RGB, upright."""
        feature = self._declared.sources.cameras[camera]
        if feature in place.videos:
            located = self._locate(place, camera)
            doubt = located.doubt
            if doubt is not None:
                told = (doubt.place, doubt.value, doubt.threshold, doubt.remedy, doubt.rule)
                raise UserError(describe(*told))
            path = place.videos[feature].path
            stored = self._videos.frame(path, float(located.seconds[step]))
        else:
            stored = self._image(place, feature, step)
        return to_rgb_upright(stored, self._cameras[camera])

    def frame_doubts(self, place: EpisodePlace) -> dict[str, Finding]:
        """Camera -> why its frames cannot be told to belong to steps."""
        doubts = {}
        for camera, feature in self._declared.sources.cameras.items():
            if feature not in place.videos:
                continue
            try:
                doubt = self._locate(place, camera).doubt
            except UserError as error:
                doubt = UNREADABLE_VIDEO.found(self.name(place), f"camera {camera!r}: {error}")
            if doubt is not None:
                doubts[camera] = doubt
        return doubts

    def _locate(self, place: EpisodePlace, camera: str) -> Located:
        def locate() -> Located:
            video = place.videos[self._declared.sources.cameras[camera]]
            times = self.rows(place).times
            return self._clock.locate(self.name(place), camera, video, times)

        return self._located.get_or_make((place.index, camera), locate)

    def stored_frames(self, place: EpisodePlace, camera: str) -> StoredFrames:
        """How a camera's frames lie on disk."""
        if camera not in self._cameras:
            raise KeyError(f"camera {camera!r}; declared cameras are {list(self._cameras)}")
        feature = self._declared.sources.cameras[camera]
        if feature in place.videos:
            return StoredFrames(self._cameras[camera], "video", place.videos[feature].path, "")
        encoding = "jpeg" if self._encoded(place, feature, 0).startswith(JPEG_START) else "png"
        return StoredFrames(self._cameras[camera], encoding, place.path, "")

    def _forget(self) -> None:
        self._rows: LruCache[Rows] = LruCache(ARRAY_CACHE_BYTES, weigh=lambda rows: rows.nbytes)
        self._located: LruCache[Located] = LruCache(ARRAY_CACHE_BYTES, weigh=lambda at: at.nbytes)

    def _read(self, place: EpisodePlace) -> Rows:
        sources, features = self._declared.sources, self._info.features
        present = self._parquet.names(place.path)
        told = [name for name in (*_NUMBERS, SUCCESS_FEATURE) if name in present]
        of_columns = sources.column_features
        columns = dict.fromkeys((*sources.state, sources.action, *told, *of_columns.values()))
        last = place.first_row + place.length
        table = self._parquet.rows(place.path, place.first_row, last, (*columns,))
        where = self.name(place)

        def vectors(name: str) -> npt.NDArray[np.float32]:
            width = features[name].width or 0  # checked by `filled_in`
            return matrix(table[name], width, f"{where}, {name}").astype(np.float32)

        for name, expected in (
            ("episode_index", np.full(place.length, place.index)),
            ("frame_index", np.arange(place.length)),
        ):
            if name in present:  # else the order of the rows tells
                found = integers(table[name], f"{where}, {name}")
                self._require_equal(where, name, found, expected)
        is_success = None
        if SUCCESS_FEATURE in present:
            is_success = bool(matrix(table[SUCCESS_FEATURE], 1, where).any())
        state = np.concatenate([vectors(name) for name in sources.state], axis=1)
        actions = vectors(sources.action)
        times = np.arange(place.length) / self._info.fps
        if "timestamp" in present and sources.clock != "frame_index":
            times = matrix(table["timestamp"], 1, f"{where}, timestamp")[:, 0].copy()
        own = {name: vectors(feature) for name, feature in of_columns.items()}
        own = {name: each[:, 0] if each.shape[1] == 1 else each for name, each in own.items()}
        for array in (state, actions, times, *own.values()):
            array.flags.writeable = False
        return Rows(state, actions, times, self.tasks(place), is_success, own)

    def _require_equal(
        self,
        where: str,
        name: str,
        found: npt.NDArray[np.int64],
        expected: npt.NDArray[np.int64],
    ) -> None:
        wrong = np.flatnonzero(found != expected)
        if len(wrong):
            step = int(wrong[0])
            remedy = "The index points at other rows: correct it, or download the dataset again."
            raise UserError(
                describe(
                    f"{where}, step {step}, {name}", str(found[step]), str(expected[step]), remedy
                )
            )

    def tasks(self, place: EpisodePlace) -> tuple[str, ...]:
        """The task of every step; UserError when they are not those the index lists."""
        sources, where = self._declared.sources, self.name(place)
        if sources.instruction is not None:
            return (sources.instruction.text,) * place.length
        if sources.task not in self._parquet.names(place.path):
            if len(place.tasks) == 1:
                return place.tasks * place.length
            found = f"no column {sources.task!r} and {len(place.tasks)} tasks in the index"
            expected, remedy = "a task for each step", f"Write {INSTRUCTION_LINE}."
            raise UserError(describe(where, found, expected, remedy))
        last = place.first_row + place.length
        column = self._parquet.rows(place.path, place.first_row, last, (sources.task,))
        numbers = integers(column[sources.task], f"{where}, {sources.task}").tolist()
        if not self._tasks and len(place.tasks) == 1 and len(set(numbers)) == 1:
            return place.tasks * place.length
        texts = tuple(self._tasks.get(number, f"number {number}") for number in numbers)
        strange = set(texts) - set(place.tasks or self._tasks.values())
        if strange:
            expected = f"of {list(place.tasks)[:5]} as the index says"
            remedy = (
                "Correct the index, name the column that numbers the tasks (layout: {task: NAME}), "
                f"or write {INSTRUCTION_LINE}."
            )
            found = f"{sorted(strange)[:5]}"
            raise UserError(describe(f"{where}, {sources.task}", found, expected, remedy))
        return texts

    def _image(self, place: EpisodePlace, feature: str, step: int) -> npt.NDArray[np.uint8]:
        try:
            return decode_frame(self._encoded(place, feature, step))
        except UndecodableFrameError as error:
            where = f"{self.name(place)}, {feature}, step {step}"
            remedy = "Leave the episode out or record it again."
            raise UserError(describe(where, str(error), "a whole PNG or JPEG", remedy)) from error

    def _encoded(self, place: EpisodePlace, feature: str, step: int) -> bytes:
        row = place.first_row + step
        value = self._parquet.rows(place.path, row, row + 1, (feature,))[feature][0].as_py()
        data = value.get("bytes") if isinstance(value, dict) else None
        if not isinstance(data, bytes):
            where = f"{self.name(place)}, {feature}, step {step}"
            expected = "the bytes of an image in the Parquet file"
            remedy = "Write the dataset again with its images embedded."
            raise UserError(describe(where, shown(value), expected, remedy))
        return data
