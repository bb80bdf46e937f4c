"""Recording: the numbers of one episode, read once for all checks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from data_tools.conventions import Conventions
from data_tools.doctor.checks.roles import Roles
from data_tools.episode import Episode

FloatArray = npt.NDArray[np.float64]

# Why a check is not made that counts in seconds.
NO_RATE: Final = "nobody declares control_hz"


@dataclass(frozen=True)
class Declared:
    """What the dataset declares about every episode's columns.

    Attributes:
        conventions: names, units, references, ranges, cameras, control rate.
        roles: which columns are angles, positions, quaternions and grippers.
    """

    conventions: Conventions
    roles: Roles

    @classmethod
    def of(cls, conventions: Conventions) -> Self:
        """The declaration, with the roles its names and units tell."""
        return cls(conventions, Roles.of(conventions))

    @property
    def control_hz(self) -> float | None:
        """Control steps per second; None where nobody knows."""
        return self.conventions.control_hz

    def steps(self, duration_s: float) -> float | None:
        """That many seconds in control steps; None where the rate is unknown."""
        return None if self.control_hz is None else duration_s * self.control_hz


@dataclass(frozen=True)
class Labels:
    """What one episode says of itself.

    Attributes:
        name: where it is, for messages.
        num_steps: T, the number of actions.
        instruction: the task as a sentence.
        is_success: whether it reached its goal; None where nobody recorded it.
        attributes: everything else recorded about it.
    """

    name: str
    num_steps: int
    instruction: str
    is_success: bool | None
    attributes: Mapping[str, object]

    @classmethod
    def of(cls, episode: Episode) -> Self:
        """Some layouts keep these beside the numbers, and then they are read."""
        return cls(
            episode.name,
            episode.num_steps,
            episode.instruction,
            episode.is_success,
            episode.attributes,
        )


@dataclass(frozen=True)
class Recording:
    """The numbers of one episode; float64, so that float32 and unit conversions add no doubt.

    Attributes:
        episode: whose numbers these are.
        state: float64[t, s].
        actions: float64[t, a].
        times: float64[t], seconds since the start; None where the layout records none.
        labels: what it says of itself.
    """

    episode: Episode
    state: FloatArray
    actions: FloatArray
    times: FloatArray | None
    labels: Labels

    @classmethod
    def of(cls, episode: Episode) -> Self:
        """Reads the low-dimensional arrays and the labels, and no frame."""
        state = np.asarray(episode.state(), dtype=np.float64)
        actions = np.asarray(episode.actions(), dtype=np.float64)
        return cls(episode, state, actions, episode.times(), Labels.of(episode))

    @property
    def name(self) -> str:
        """Where the episode is, for messages."""
        return self.episode.name

    @property
    def num_steps(self) -> int:
        """T, the number of actions."""
        return self.episode.num_steps
