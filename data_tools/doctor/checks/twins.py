"""Near-duplicates: an episode that is another one again, with a little noise on it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from data_tools.doctor.checks.recording import FloatArray, Recording
from data_tools.finding import Finding, Rule

# So many steps of an episode are compared, evenly spread.
NUM_STEPS: Final = 16
# No robot comes back to its places nearer than this [rad, m, or share of a column's way].
TOLERANCE: Final = 1e-4
# And so far it must have been, in two columns at least: robots at rest are alike.
MIN_MOTION: Final = 100 * TOLERANCE
MIN_COLUMNS: Final = 2

NEAR_DUPLICATE_EPISODE = Rule(
    name="near_duplicate_episode",
    severity="warning",
    sentence="An episode is an earlier one again, but for differences no demonstration has.",
    threshold=f"a difference above {TOLERANCE:g} somewhere",
    remedy="Delete one: it counts twice, and may sit in training and validation. A copy with noise "
    "on it, or an episode that was recorded again from a replay, teaches nothing more.",
)
RULES = (NEAR_DUPLICATE_EPISODE,)


@dataclass(frozen=True)
class Summary:
    """What is kept of an episode to know it again.

    Attributes:
        name: of the episode.
        num_steps: its length.
        rows: float32[16 * (s + a)], states and actions of evenly spread steps.
        digest: of all its numbers; equal ones are told of elsewhere.
        is_moving: whether the robot goes anywhere.
    """

    name: str
    num_steps: int
    rows: FloatArray
    digest: bytes
    is_moving: bool

    @classmethod
    def of(cls, recording: Recording, digest: bytes) -> Self:
        """Of an episode of finite numbers."""
        steps = np.linspace(0, recording.num_steps - 1, NUM_STEPS).astype(int)
        rows = np.concatenate([recording.state[steps], recording.actions[steps]], axis=1)
        moved = np.ptp(recording.state, axis=0) > MIN_MOTION
        is_moving = bool(moved.sum() >= MIN_COLUMNS)
        return cls(recording.name, recording.num_steps, rows.ravel(), digest, is_moving)


def check_twins(summaries: Sequence[Summary]) -> Iterator[Finding]:
    """Episodes that are an earlier one of the same length to TOLERANCE, and not to the bit.

    Args:
        summaries: of all episodes, in the order of the dataset.
    """
    by_length: dict[int, list[int]] = {}
    for index, each in enumerate(summaries):
        if each.is_moving:
            by_length.setdefault(each.num_steps, []).append(index)
    twins: dict[int, tuple[int, float]] = {}
    for indices in by_length.values():
        if len(indices) > 1:
            twins |= _twins([summaries[index] for index in indices], indices)
    for index in sorted(twins):
        other, difference = twins[index]
        value = f"{summaries[other].name} within {difference:.1g} in all of {NUM_STEPS} steps"
        yield NEAR_DUPLICATE_EPISODE.found(summaries[index].name, value)


def _twins(summaries: Sequence[Summary], indices: Sequence[int]) -> dict[int, tuple[int, float]]:
    """Index -> (index of the earlier one, largest difference), among episodes of one length."""
    rows = np.array([each.rows for each in summaries])
    limit = TOLERANCE * np.maximum(1.0, np.ptp(rows, axis=0))
    # near in all means near in the mean: only neighbours by that are compared
    means = (rows / limit).mean(axis=1)
    order = np.argsort(means, kind="stable")
    found: dict[int, tuple[int, float]] = {}
    for place, one in enumerate(order):
        for other in order[place + 1 :]:
            if means[other] - means[one] > 1.0:
                break
            first, second = sorted((int(one), int(other)))
            differences = np.abs(rows[first] - rows[second])
            is_same = summaries[first].digest == summaries[second].digest
            if not is_same and (differences <= limit).all():
                found.setdefault(indices[second], (indices[first], float(differences.max())))
    return found
