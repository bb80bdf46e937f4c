"""Observation and Episode: the vocabulary of robot data, with shapes and units."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from data_tools.conventions import Conventions


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

    def state(self) -> npt.NDArray[np.float32]:
        """float32[t, s], the state at every step."""

    def actions(self) -> npt.NDArray[np.float32]:
        """float32[t, a], the action taken at every step."""

    def image(self, camera: str, step: int) -> npt.NDArray[np.uint8]:
        """uint8[y, x, 3], RGB, upright; decodes this one frame and no other."""

    def observation(self, step: int, cameras: Sequence[str]) -> Observation:
        """The observation just before action `step`, with these cameras only."""


class Dataset(Protocol):
    """Episodes that share one set of conventions. Picklable; opens its files in each process."""

    @property
    def conventions(self) -> Conventions:
        """What the data declares about its cameras, state and actions."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 in hex over actions, states, instructions and conventions: equal iff they are."""

    def __len__(self) -> int:
        """Number of episodes."""

    def __getitem__(self, index: int) -> Episode:
        """The episode at this place; IndexError beyond the end."""
