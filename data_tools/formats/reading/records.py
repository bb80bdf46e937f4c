"""EpisodeRecord: where one episode's numbers and frames are, all that the reader needs to know.

Packed episodes: the records of a file in columns, each unpacked when it is asked for.

Episodes of a file mostly differ in their group, length and facts only. What they share, where their
numbers and frames are, is kept once: fifty thousand records then take megabytes, and are read from
a cache, or sent to a worker, in a fraction of a second.
"""

import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import overload

import numpy as np
import numpy.typing as npt

from data_tools.conventions import CameraSpec
from data_tools.finding import Finding
from data_tools.storage.files.cache import LruCache
from data_tools.storage.hdf5.frame_encoding import Encoding


@dataclass(frozen=True)
class ColumnSource:
    """Columns of one dataset.

    Attributes:
        dataset: its path in the file.
        columns: the columns taken, all when empty.
        scale: factor of each column taken, 1 when empty.
        index: path of the row numbers that `dataset` gives; '' when it gives every row.
        fill: path of the dataset that gives the other rows.
    """

    dataset: str
    columns: tuple[int, ...] = ()
    scale: tuple[float, ...] = ()
    index: str = ""
    fill: str = ""


@dataclass(frozen=True)
class ArraySource:
    """Datasets side by side; row `first` belongs to step 0."""

    parts: tuple[ColumnSource, ...]
    first: int = 0


@dataclass(frozen=True)
class ImageSource:
    """Where a camera's frames are, and how they are stored.

    Attributes:
        dataset: path of the dataset in the file, or of the video file.
        encoding: pixels [t, y, x, c] or [t, c, y, x]; bytes of a JPEG or PNG in zero-padded rows or
            of any length; or a video.
        is_chunk_per_frame: whether each frame is one chunk without filters, readable as its bytes.
        camera: the declaration of what is stored.
        first: the row of step 0.
    """

    dataset: str
    encoding: Encoding
    is_chunk_per_frame: bool
    camera: CameraSpec
    first: int = 0


@dataclass(frozen=True)
class EpisodeRecord:
    """Where one episode is, with its small facts already read. Picklable, holds no file.

    Attributes:
        path: the file.
        group: the episode's place in it, e.g. 'data/demo_3'; '' when the file is the episode.
        num_steps: number of actions.
        actions: where the actions are.
        state: where the state is.
        images: camera name -> where its frames are.
        times: where the clock is, with the seconds of its unit; None when there is none.
        simulator: where the simulator's own states are; None when there are none.
        kept: the rows that are steps, counted from `first`; None when every row is.
        columns: name -> where a column with a row a step is.
        values: name -> the number of a column that is one for all steps.
    """

    path: str
    group: str
    num_steps: int
    instruction: str
    is_success: bool | None
    attributes: Mapping[str, object]
    actions: ArraySource
    state: ArraySource
    images: Mapping[str, ImageSource]
    times: tuple[ArraySource, float] | None = None
    simulator: ArraySource | None = None
    kept: npt.NDArray[np.int64] | None = None
    columns: Mapping[str, ArraySource] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """File and group, for messages: 'demos/pick.hdf5:data/demo_3'."""
        return f"{self.path}:{self.group}" if self.group else self.path


@dataclass
class Scan:
    """What a walk over files found: episodes, faults that forbid reading, warnings that do not.

    Attributes:
        rules: what was done to rows, a sentence each, with the number of rows it was done to.
    """

    episodes: list[EpisodeRecord] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    rules: Counter[str] = field(default_factory=Counter)


MAX_UNPACKED = 4096


@dataclass(frozen=True)
class Plan:
    """Where an episode's numbers and frames are, seen from its group and its first row.

    A path that begins with a slash starts at the file's root, any other at the episode's group;
    videos keep their own paths.
    """

    actions: ArraySource
    state: ArraySource
    images: tuple[tuple[str, ImageSource], ...]
    times: tuple[ArraySource, float] | None
    simulator: ArraySource | None
    columns: tuple[tuple[str, ArraySource], ...] = ()


@dataclass(frozen=True)
class PackedEpisodes:
    """The episodes of one file.

    Attributes:
        path: the file.
        plans: the different plans.
        texts: the different instructions.
        groups: each episode's place in the file.
        facts: of each episode the number of steps, the row of its first step, the number of its
            plan, the number of its instruction, and success (0, 1, or -1 when nobody recorded it).
        attributes: of each episode.
        kept: place of an episode -> its rows that are steps, for those with rows left out.
        values: place of an episode -> its columns that are one number, for those with any.
    """

    path: str
    plans: tuple[Plan, ...]
    texts: tuple[str, ...]
    groups: Sequence[str]
    facts: Sequence[Sequence[int]]
    attributes: Sequence[Mapping[str, object]]
    kept: Mapping[int, Sequence[int]]
    values: Mapping[int, Mapping[str, float]]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that any episode has, in order."""
        stored = (name for plan in self.plans for name, _ in plan.columns)
        single = (name for values in self.values.values() for name in values)
        return tuple(dict.fromkeys((*stored, *single)))

    def __len__(self) -> int:
        return len(self.groups)

    def record(self, index: int) -> EpisodeRecord:
        """The record of one episode."""
        group, attributes, kept = self.groups[index], self.attributes[index], self.kept.get(index)
        num_steps, first, plan_number, text, success = self.facts[index]
        plan, place = self.plans[plan_number], partial(_at_group, group)
        clock = plan.times
        return EpisodeRecord(
            path=self.path,
            group=group,
            num_steps=num_steps,
            instruction=self.texts[text],
            is_success=None if success < 0 else bool(success),
            attributes=attributes,
            actions=_array(plan.actions, first, place),
            state=_array(plan.state, first, place),
            images={name: _image(image, first, place) for name, image in plan.images},
            times=None if clock is None else (_array(clock[0], first, place), clock[1]),
            simulator=None if plan.simulator is None else _array(plan.simulator, first, place),
            kept=None if kept is None else np.asarray(kept, dtype=np.int64),
            columns={name: _array(source, first, place) for name, source in plan.columns},
            values=self.values.get(index, {}),
        )


def pack(path: str, records: Sequence[EpisodeRecord]) -> PackedEpisodes:
    """The records of one file, packed."""
    plans: dict[Plan, int] = {}
    texts: dict[str, int] = {}
    facts = []
    for record in records:
        plan = _plan_of(record)
        success = -1 if record.is_success is None else int(record.is_success)
        plan_number = plans.setdefault(plan, len(plans))
        text = texts.setdefault(record.instruction, len(texts))
        facts.append((record.num_steps, record.state.first, plan_number, text, success))
    return PackedEpisodes(
        path=path,
        plans=tuple(plans),
        texts=tuple(texts),
        groups=[record.group for record in records],
        facts=facts,
        attributes=[record.attributes for record in records],
        kept={i: r.kept.tolist() for i, r in enumerate(records) if r.kept is not None},
        values={i: dict(r.values) for i, r in enumerate(records) if r.values},
    )


class EpisodeRecords(Sequence[EpisodeRecord]):
    """The records of some files, one after the other; those used last stay unpacked."""

    def __init__(self, files: Sequence[PackedEpisodes]) -> None:
        self._files = files
        self._ends = list(accumulate(len(file) for file in files))
        self._lock = threading.Lock()
        self._unpacked: LruCache[EpisodeRecord] = LruCache(MAX_UNPACKED, weigh=lambda _: 1)

    def __getstate__(self) -> Sequence[PackedEpisodes]:
        return self._files

    def __setstate__(self, files: Sequence[PackedEpisodes]) -> None:
        self.__init__(files)  # type: ignore[misc]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that any episode has, in order."""
        return tuple(dict.fromkeys(name for file in self._files for name in file.columns))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> EpisodeRecord: ...
    @overload
    def __getitem__(self, index: slice) -> "list[EpisodeRecord]": ...
    def __getitem__(self, index: int | slice) -> "EpisodeRecord | list[EpisodeRecord]":
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"episode {index}; there are {len(self)}")
        with self._lock:
            return self._unpacked.get_or_make(place, lambda: self._unpack(place))

    def _unpack(self, place: int) -> EpisodeRecord:
        file = bisect_right(self._ends, place)
        packed = self._files[file]
        return packed.record(place - (self._ends[file] - len(packed)))


def _plan_of(record: EpisodeRecord) -> Plan:
    back, place = -record.state.first, partial(_from_group, record.group)
    clock, simulator = record.times, record.simulator
    return Plan(
        _array(record.actions, back, place),
        _array(record.state, back, place),
        tuple((name, _image(image, back, place)) for name, image in record.images.items()),
        None if clock is None else (_array(clock[0], back, place), clock[1]),
        None if simulator is None else _array(simulator, back, place),
        tuple((name, _array(source, back, place)) for name, source in record.columns.items()),
    )


def _array(source: ArraySource, rows: int, place: Callable[[str], str]) -> ArraySource:
    """The source so many rows further on, each of its paths seen from elsewhere."""
    parts = tuple(
        ColumnSource(
            place(part.dataset),
            part.columns,
            part.scale,
            part.index and place(part.index),
            part.fill and place(part.fill),
        )
        for part in source.parts
    )
    return ArraySource(parts, source.first + rows)


def _image(source: ImageSource, rows: int, place: Callable[[str], str]) -> ImageSource:
    path = source.dataset if source.encoding == "video" else place(source.dataset)
    return ImageSource(
        path, source.encoding, source.is_chunk_per_frame, source.camera, source.first + rows
    )


def _from_group(group: str, path: str) -> str:
    if not group:
        return path
    return path[len(group) + 1 :] if path.startswith(f"{group}/") else f"/{path}"


def _at_group(group: str, path: str) -> str:
    if path.startswith("/"):
        return path[1:]
    return f"{group}/{path}" if group else path
