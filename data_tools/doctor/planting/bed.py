"""Bed: the copy of a dataset in which a fault is planted, read and written by episodes.

What was planted, and why something cannot be.

Fault: what can be planted, how strong, and where.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt

from data_tools.doctor.checks.recording import Declared, Recording
from data_tools.doctor.planting.writing import (
    Frame,
    Rows,
    take_rows,
    write_frames,
    write_numbers,
    write_times,
)
from data_tools.doctor.repairs.tree_edits import sentence_holder, write_sentence
from data_tools.episode import Dataset, Episode
from data_tools.errors import describe, raise_faults
from data_tools.formats.layouts import native
from data_tools.formats.layouts.detect import detect
from data_tools.formats.layouts.layout import Layout
from data_tools.formats.reading.hdf5_dataset import Hdf5Dataset
from data_tools.formats.reading.hdf5_store import row_of
from data_tools.formats.reading.records import EpisodeRecord
from data_tools.storage.hdf5.frame_encoding import frame_bytes
from data_tools.storage.hdf5.opening import open_hdf5


class UnfitError(ValueError):
    """This episode, or this dataset, has no place for the fault; the message says what it lacks."""


class Planted(NamedTuple):
    """One thing that was done: the episode, '' for the dataset as a whole, and what was done."""

    episode: str
    change: str


FloatArray = npt.NDArray[np.float64]
# A frame went through JPEG, a number through float32, a clock may count milliseconds.
MAX_PIXEL_ERROR = 12.0
TOLERANCE = 1e-4
CLOCK_ERROR = 2e-3


class _Place(NamedTuple):
    """What of an episode was written: its state, actions, times or instruction, or a frame."""

    episode: str
    what: str
    camera: str = ""
    step: int = 0


_SHARED = "something else, for it is stored together with other episodes' or columns'"


@dataclass
class Bed:
    """A copy, open for a fault.

    Attributes:
        dataset: what was copied; it is read here, and never written.
        records: where its episodes lie in the copy.
        top: the copy: a file or a folder.
        layout_name: the layout that the caller names; '' to look.
        chosen: indices of the episodes to plant in.
        strength: how strong the fault is to be; NaN where it has no strength.
        rng: for all that is left to chance.
    """

    dataset: Hdf5Dataset
    records: Sequence[EpisodeRecord]
    top: Path
    layout_name: str
    chosen: Sequence[int] = ()
    strength: float = float("nan")
    rng: np.random.Generator = field(default_factory=np.random.default_rng)
    _rows: dict[int, Rows] = field(default_factory=dict)
    _wanted: dict[_Place, npt.NDArray[Any] | str | bool] = field(default_factory=dict)

    @cached_property
    def declared(self) -> Declared:
        """What the dataset declares, and which columns are what."""
        return Declared.of(self.dataset.conventions)

    @property
    def control_hz(self) -> float:
        """The control rate."""
        if self.declared.control_hz is None:
            raise UnfitError("no control_hz is declared")
        return self.declared.control_hz

    def record(self, index: int) -> EpisodeRecord:
        """Where an episode is stored in the copy."""
        rows, record = self._rows.get(index), self.records[index]
        return record if rows is None else dataclasses.replace(record, num_steps=len(rows))

    def recording(self, index: int) -> Recording:
        """The numbers of an episode, in arrays of their own; in the rows that it was given."""
        told, rows = Recording.of(self.dataset[index]), self._rows.get(index)
        if rows is None:
            return told
        return dataclasses.replace(told, state=told.state[rows], actions=told.actions[rows])

    def recordings(self) -> list[Recording]:
        """All episodes' numbers."""
        return [self.recording(index) for index in range(len(self.dataset))]

    @contextmanager
    def file(self, index: int) -> Iterator[h5py.File]:
        """The episode's file, open for writing."""
        with h5py.File(self.record(index).path, "r+") as file:
            yield file

    def layout(self, index: int) -> Layout:
        """How the episode's file is read."""
        path = Path(self.record(index).path)
        with open_hdf5(path) as file:
            top = self.top if self.top.is_dir() else path.parent
            return detect(file, path, self.layout_name, top).layout

    def write(
        self,
        index: int,
        *,
        state: FloatArray | None = None,
        actions: FloatArray | None = None,
        times: FloatArray | None = None,
    ) -> None:
        """Store other numbers of an episode: float64[t, s], float64[t, a], seconds float64[t]."""
        record, old = self.record(index), self.recording(index)
        with self.file(index) as file:
            for part, source, before, after in (
                ("state", record.state, old.state, state),
                ("actions", record.actions, old.actions, actions),
            ):
                if after is not None:
                    write_numbers(file, record, source, before, after)
                    self._wanted[_Place(record.name, part)] = after
            if times is not None:
                write_times(file, record, times)
                self._wanted[_Place(record.name, "times")] = times

    def times(self, index: int) -> FloatArray:
        """Seconds of each step since the first."""
        times = self.dataset[index].times()
        if times is None:
            raise UnfitError("the episode has no clock")
        return times.copy()

    def camera(self, index: int, num: int = 1) -> list[str]:
        """So many cameras, chosen by chance, whose frames lie in HDF5."""
        images = self.record(index).images
        names = [name for name, each in images.items() if each.encoding != "video"]
        if len(names) < num:
            raise UnfitError(f"fewer than {num} cameras with frames in HDF5")
        return [names[each] for each in self.rng.permutation(len(names))[:num]]

    def stored_frame(self, index: int, camera: str, step: int) -> Frame | bytes:
        """A frame's file as it is stored; or uint8[y, x, 3], RGB and upright, if pixels are."""
        record = self.dataset.records[index]
        source = record.images[camera]
        if source.encoding in ("raw", "raw_chw"):
            return self.dataset[index].image(camera, step)
        with open_hdf5(record.path) as file:
            return frame_bytes(file[source.dataset], row_of(record, source.first, step))

    def write_frames(self, index: int, camera: str, frames: Mapping[int, Frame | bytes]) -> None:
        """Store frames of an episode: step -> uint8[y, x, 3], RGB and upright, or a file."""
        record = self.record(index)
        with self.file(index) as file:
            write_frames(file, record, record.images[camera], frames)
        step, last = max(frames.items(), key=lambda item: item[0])
        if not isinstance(last, bytes):
            self._wanted[_Place(record.name, "frame", camera, step)] = last

    def change_frames(
        self, index: int, camera: str, change: Callable[[Frame], Frame], start: int = 0
    ) -> None:
        """Change every frame of an episode's camera from one step on."""
        episode = self.dataset[index]
        steps = range(start, episode.num_steps)
        self.write_frames(
            index, camera, {step: change(episode.image(camera, step)) for step in steps}
        )

    def write_sentence(self, index: int, sentence: str) -> None:
        """Store another sentence; UnfitError where no text in the file says it."""
        record, layout = self.record(index), self.layout(index)
        if layout.episodes == "rows":
            raise UnfitError("the episode has no sentence of its own")
        with self.file(index) as file:
            holder = sentence_holder(layout, file[record.group or "/"], Path(record.path))
            if holder is None:
                raise UnfitError("no text in the file is the episode's own sentence")
            write_sentence(*holder, record.instruction, sentence)
        self._wanted[_Place(record.name, "instruction")] = sentence

    def expect_failure(self, index: int) -> None:
        """Note that an episode is to be read as a failure."""
        self._wanted[_Place(self.record(index).name, "is_success")] = False

    def take_rows(self, index: int, rows: Rows) -> None:
        """Give an episode these of its rows, in this order, in all that it stores a row a step."""
        self.require_own_group(index)
        record = self.record(index)
        with self.file(index) as file:
            group = file[record.group or "/"]
            num_rows = len(file[record.actions.parts[0].dataset])
            if num_rows != record.num_steps + record.actions.first:
                raise UnfitError("rows of the episode are no steps")
            shift = record.actions.first
            take_rows(group, num_rows, [*rows, *(rows[-1] + 1 + each for each in range(shift))])
            total = group.parent.attrs.get(native.TOTAL_ATTRIBUTE) if record.group else None
            if total is not None:
                group.parent.attrs[native.TOTAL_ATTRIBUTE] = total + len(rows) + shift - num_rows
        self._rows[index] = rows

    def require_own_group(self, index: int) -> None:
        """UnfitError where an episode's rows lie among those of others, or in other files."""
        layout = self.layout(index)
        if layout.episodes == "rows" or layout.file_patterns:
            raise UnfitError("the episode is no group, and no file, of its own")
        if any(each.encoding == "video" for each in self.record(index).images.values()):
            raise UnfitError("frames of the episode lie in a video")

    def each(self, plant: Callable[[int], str]) -> Iterator[Planted]:
        """Plant in every chosen episode."""
        for index in self.chosen:
            yield Planted(self.record(index).name, plant(index))

    def require_planted(self, copy: Dataset) -> None:
        """UserError where the copy is not read with what was written, or says it of others, too."""
        wanted = dict(self._wanted)
        if any(place.what == "instruction" for place in wanted):
            for record in self.records:  # a file may say one sentence for all
                wanted.setdefault(_Place(record.name, "instruction"), record.instruction)
        episodes = {copy[index].name: copy[index] for index in range(len(copy))}
        remedy = "Convert it first (robot-data convert --to native), and plant in that."
        raise_faults(
            describe(f"{place.episode}, {place.what}", _SHARED, "what was planted", remedy)
            for place, values in wanted.items()
            if not _is_there(episodes[place.episode], place, values)
        )


def _is_there(episode: Episode, place: _Place, wanted: npt.NDArray[Any] | str | bool) -> bool:
    if isinstance(wanted, str | bool):
        return bool(getattr(episode, place.what) == wanted)
    if place.what == "frame":
        found = episode.image(place.camera, place.step).astype(float)
        is_near = np.abs(found - wanted).mean() < MAX_PIXEL_ERROR
        return found.shape == wanted.shape and bool(is_near)
    array = np.asarray(getattr(episode, place.what)())
    error = CLOCK_ERROR if place.what == "times" else TOLERANCE
    return array.shape == wanted.shape and bool(
        np.allclose(array, wanted, rtol=TOLERANCE, atol=error, equal_nan=True)
    )


Scope = Literal["one", "from", "all"]


class Strength(NamedTuple):
    """How strong a fault is: what the number means, and values from hardly there to plain.

    It is from `least` to `most`; 0, which plants nothing, is allowed where it is one of the values.
    """

    meaning: str
    weak: float
    default: float
    strong: float
    least: float = 0.0
    most: float = math.inf

    @property
    def values(self) -> tuple[float, ...]:
        """The three of them, at which rules are measured."""
        return (self.weak, self.default, self.strong)

    def allows(self, value: float) -> bool:
        """Whether a fault can be so strong."""
        is_within = math.isfinite(value) and self.least <= value <= self.most
        return is_within and (value > 0 or value in self.values)

    @property
    def range(self) -> str:
        """In words, what is allowed."""
        above = f"above {self.least:g}" if self.least == 0 else f"from {self.least:g} on"
        return above if math.isinf(self.most) else f"{above}, up to {self.most:g}"


@dataclass(frozen=True)
class Fault:
    """A fault of one kind.

    Attributes:
        rule: the rule of the doctor that should find it; the fault bears its name.
        change: what planting does, as a sentence.
        scope: whether it is in one episode, in all from one on, or in all.
        plant: does it in an open copy; UnfitError, before anything is changed, where it cannot.
        strength: how strong it may be; None where a fault is there or is not.
        also: rules that may name it, too, since it is what they look for as well.
        is_deep: whether only `validate --deep` finds it.
    """

    rule: str
    change: str
    scope: Scope
    plant: Callable[[Bed], Iterable[Planted]]
    strength: Strength | None = None
    also: frozenset[str] = frozenset()
    is_deep: bool = False
