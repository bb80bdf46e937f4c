"""Observation and Episode: the vocabulary of robot data, with shapes and units."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from data_tools.conventions import CameraSpec, Conventions
from data_tools.finding import Finding


@dataclass(frozen=True)
class Observation:
    """What a policy sees at one control step.

    Attributes:
        images: camera name -> uint8[y, x, 3], RGB, upright.
        state: float32[s], the robot's own units, columns as the conventions declare.
        instruction: the task as a sentence.
    """

    images: Mapping[str, npt.NDArray[np.uint8]]
    state: npt.NDArray[np.float32]
    instruction: str


@dataclass(frozen=True)
class Inspected:
    """What was learned about the files when they were opened, for `robot-data inspect`.

    Attributes:
        layouts: names of the layouts.
        evidence: the sentences that prove them.
        warnings: what a person should look at before training on the data.
        rules: what was done to rows, a sentence each with its number of rows: an observation
            dropped, rows skipped.
        undeclared: what only a person can tell and has not, a sentence each with the lines to
            write; empty unless the data was opened in spite of it.
        files: paths or URLs of the files; of a LeRobot dataset its folder.
        origins: place of each value of the conventions, as in 'action.units' or 'layout.state', to
            what says it: sidecars, a layout, or the files; several where files differ in it.
        drafts: for each of `undeclared` the sidecar that would declare it, with blanks.
    """

    layouts: tuple[str, ...]
    evidence: tuple[str, ...]
    warnings: tuple[Finding, ...]
    rules: tuple[str, ...] = ()
    undeclared: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    origins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    drafts: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoredFrames:
    """How a camera's frames lie on disk, before they are turned to RGB and upright.

    Attributes:
        camera: the declaration of what is stored.
        encoding: how each frame is encoded: 'raw', 'jpeg', 'png' or 'video'.
        path: the file that holds them.
        dataset: the HDF5 dataset in that file; '' where the file is no HDF5.
    """

    camera: CameraSpec
    encoding: str
    path: str
    dataset: str


class Episode(Protocol):
    """One demonstration of T control steps: observation t was seen just before action t was taken.

    Low-dimensional arrays are cheap to read whole; images are decoded one at a time, when asked
    for.
    """

    @property
    def name(self) -> str:
        """Where the episode is, for messages: 'demos/pick.hdf5:data/demo_3'."""

    @property
    def num_steps(self) -> int:
        """T, the number of actions."""

    @property
    def instruction(self) -> str:
        """The task as a sentence."""

    @property
    def is_success(self) -> bool | None:
        """Whether the episode reached its goal; None when nobody recorded it."""

    @property
    def attributes(self) -> Mapping[str, object]:
        """Everything else recorded about the episode: task, seed, source, ..."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what is said of each step beside state and action, as 'weight'."""

    def state(self) -> npt.NDArray[np.float32]:
        """float32[t, s], the state at every step."""

    def actions(self) -> npt.NDArray[np.float32]:
        """float32[t, a], the action taken at every step."""

    def times(self) -> npt.NDArray[np.float64] | None:
        """float64[t], seconds of each step since the first; None where nothing recorded them."""

    def column(self, name: str) -> npt.NDArray[np.float32]:
        """float32[t] or float32[t, n]: what a column of this name says of each step.

        Raises:
            UserError: the episode has none of that name.
        """

    def starts(self) -> npt.NDArray[np.int64]:
        """int64[n], rising: the steps at which a training window may start.

        All of them, or those a keep-file allows. The actions of a window run on through steps that
        are no starts.
        """

    def image(self, camera: str, step: int) -> npt.NDArray[np.uint8]:
        """uint8[y, x, 3], RGB, upright; decodes this one frame and no other."""

    def stored_frames(self, camera: str) -> StoredFrames:
        """How the frames of this camera lie on disk; KeyError when there is no such camera."""

    def observation(self, step: int, cameras: Sequence[str]) -> Observation:
        """The observation just before action `step`, with these cameras only."""


@runtime_checkable
class StoresJpeg(Protocol):
    """An episode whose frames may lie on disk as JPEG, RGB and upright."""

    def jpeg(self, camera: str, step: int) -> bytes | None:
        """The JPEG of which `image` is the decoding; None when the frame is stored otherwise."""


@runtime_checkable
class FindsFrames(Protocol):
    """An episode whose frames lie in videos, where a step's frame has to be found."""

    def frame_doubts(self) -> Mapping[str, Finding]:
        """Camera -> why nobody can say which of its frames belong to which steps; mostly empty."""


def frame_doubts(episode: Episode) -> Mapping[str, Finding]:
    """Camera -> why nobody can say which of its frames belong to which steps; mostly empty."""
    return episode.frame_doubts() if isinstance(episode, FindsFrames) else {}


@runtime_checkable
class HoldsNumbers(Protocol):
    """A dataset that can keep in memory what it has read, for those who go over it repeatedly."""

    def holding(self) -> AbstractContextManager[object]:
        """Within it numbers that were read stay in memory, all of them."""


def holding_numbers(*datasets: "Dataset") -> AbstractContextManager[object]:
    """Within it each number of these is read from the disk once, and takes memory until its end.

    States, actions and columns, 4 bytes a number, and no image.
    """
    stack = ExitStack()
    for dataset in datasets:
        if isinstance(dataset, HoldsNumbers):
            stack.enter_context(dataset.holding())
    return stack


class EpisodeView:
    """An `Episode` that is another one, but for what a subclass says otherwise.

    Args:
        episode: the other one.
    """

    def __init__(self, episode: Episode) -> None:
        self._episode = episode

    @property
    def name(self) -> str:
        """Where the episode is."""
        return self._episode.name

    @property
    def num_steps(self) -> int:
        """T, the number of actions."""
        return self._episode.num_steps

    @property
    def instruction(self) -> str:
        """The task as a sentence."""
        return self._episode.instruction

    @property
    def is_success(self) -> bool | None:
        """Whether the episode reached its goal; None when nobody recorded it."""
        return self._episode.is_success

    @property
    def attributes(self) -> Mapping[str, object]:
        """Everything else recorded about the episode."""
        return self._episode.attributes

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what is said of each step beside state and action."""
        return self._episode.columns

    def state(self) -> npt.NDArray[np.float32]:
        """float32[t, s], the state at every step."""
        return self._episode.state()

    def actions(self) -> npt.NDArray[np.float32]:
        """float32[t, a], the action taken at every step."""
        return self._episode.actions()

    def times(self) -> npt.NDArray[np.float64] | None:
        """float64[t], seconds of each step since the first; None where nothing recorded them."""
        return self._episode.times()

    def column(self, name: str) -> npt.NDArray[np.float32]:
        """float32[t] or float32[t, n]; UserError when the episode has none of that name."""
        return self._episode.column(name)

    def starts(self) -> npt.NDArray[np.int64]:
        """int64[n], the steps at which a training window may start."""
        return self._episode.starts()

    def image(self, camera: str, step: int) -> npt.NDArray[np.uint8]:
        """uint8[y, x, 3], RGB, upright; decodes this one frame and no other."""
        return self._episode.image(camera, step)

    def stored_frames(self, camera: str) -> StoredFrames:
        """How the frames of this camera lie on disk; KeyError when there is no such camera."""
        return self._episode.stored_frames(camera)

    def frame_doubts(self) -> Mapping[str, Finding]:
        """Camera of the other episode -> why its frames cannot be told to belong to steps."""
        return frame_doubts(self._episode)

    def observation(self, step: int, cameras: Sequence[str]) -> Observation:
        """The observation just before action `step`, with these cameras only."""
        return self._episode.observation(step, cameras)


def task_of(episode: Episode) -> str:
    """The episode's task: what its attribute 'task' says, or else its instruction."""
    return str(episode.attributes.get("task", episode.instruction))


class Dataset(Protocol):
    """Episodes that share one set of conventions. Picklable; opens its files in each process."""

    @property
    def conventions(self) -> Conventions:
        """What the data declares about its cameras, state and actions."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 in hex over actions, states, instructions and conventions: equal iff they are."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that episodes have, which may not be all of them."""

    @property
    def inspected(self) -> Inspected:
        """What was learned about the files when they were opened."""

    def __len__(self) -> int:
        """Number of episodes."""

    def __getitem__(self, index: int) -> Episode:
        """The episode at this place; IndexError beyond the end."""
