"""Recording: the numbers of one episode, read once for all checks.

Extents: the few numbers a column leaves behind, so that one pass over the episodes is enough.

The check that an episode's numbers can be read at all.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from data_tools.conventions import Conventions
from data_tools.doctor.checks.roles import Roles
from data_tools.episode import Episode
from data_tools.errors import UserError
from data_tools.finding import Finding, Rule

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


# A glitch is in fewer of the steps, and a fast movement in more.
MOST: Final = 0.99


@dataclass(frozen=True)
class Extent:
    """Moments and extremes of the columns of one array, with the steps of the extremes.

    Attributes:
        num_steps: rows.
        mean: float64[d].
        squares: float64[d], sum of squared deviations from the mean.
        low: float64[d], smallest values; low_step their int[d] steps.
        high: float64[d], largest values; high_step their int[d] steps.
        motion: float64[d], what 99 % of the differences between two rows are at most.
    """

    num_steps: int
    mean: FloatArray
    squares: FloatArray
    low: FloatArray
    low_step: npt.NDArray[np.intp]
    high: FloatArray
    high_step: npt.NDArray[np.intp]
    motion: FloatArray

    @classmethod
    def of(cls, array: FloatArray) -> Self:
        """Of float64[t, d] with at least one row."""
        mean = array.mean(axis=0)
        low_step, high_step = array.argmin(axis=0), array.argmax(axis=0)
        columns = np.arange(array.shape[1])
        # a row before the first changes nothing where there is only one
        steps = np.abs(np.diff(array, axis=0, prepend=array[:1]))
        return cls(
            num_steps=len(array),
            mean=mean,
            squares=((array - mean) ** 2).sum(axis=0),
            low=array[low_step, columns],
            low_step=low_step,
            high=array[high_step, columns],
            high_step=high_step,
            motion=np.quantile(steps, MOST, axis=0),
        )


@dataclass(frozen=True)
class Spread:
    """Mean, deviation and extremes of the columns over all episodes: float64[d] each.

    And the usual motion: in half of the episodes 99 % of the differences of rows are at most this.
    """

    mean: FloatArray
    std: FloatArray
    low: FloatArray
    high: FloatArray
    motion: FloatArray

    @classmethod
    def of(cls, extents: list[Extent]) -> Self:
        """Of all episodes together, each step counting once; exact (Chan et al. 1979)."""
        counts = np.array([extent.num_steps for extent in extents], dtype=np.float64)[:, None]
        means = np.array([extent.mean for extent in extents])
        mean = (counts * means).sum(axis=0) / counts.sum()
        within = np.sum([extent.squares for extent in extents], axis=0)
        squares = within + (counts * (means - mean) ** 2).sum(axis=0)
        return cls(
            mean=mean,
            std=np.sqrt(squares / counts.sum()),
            low=np.min([extent.low for extent in extents], axis=0),
            high=np.max([extent.high for extent in extents], axis=0),
            motion=np.median([extent.motion for extent in extents], axis=0),
        )


UNREADABLE_NUMBERS = Rule(
    name="unreadable_numbers",
    severity="error",
    sentence="The states or actions of an episode cannot be read, though the file opens.",
    threshold="arrays that decompress",
    remedy="Take what is left with robot-data salvage, or leave the episode out.",
)
RULES = (UNREADABLE_NUMBERS,)


def read(episode: Episode, report: Callable[[Finding], None]) -> Recording | None:
    """The episode's numbers; None, and a finding reported, where the storage is broken.

    What it says of itself is read with them, for some layouts keep that beside the numbers.
    """
    try:
        return Recording.of(episode)
    except (UserError, OSError) as error:
        report(UNREADABLE_NUMBERS.found(episode.name, f"{type(error).__name__} ({error})"))
        return None
