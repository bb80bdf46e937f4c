"""Checks of quaternions: unit length, and one sign for one rotation."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from data_tools.doctor.checks.recording import Declared, FloatArray, Recording
from data_tools.doctor.checks.roles import Quaternion
from data_tools.finding import DATASET, Finding, Rule

# float16 and text files round to 5e-4; interpolating componentwise and mixing up columns do more.
NORM_TOLERANCE: Final = 1e-3
# cos of half the turn between two steps: below -0.5 the turn would be over 240 degrees, or, with
# the other sign, below 120.
FLIP_DOT: Final = -0.5
# Beyond this a start is the same rotation as the dataset's usual one, or its negative; in between
# it is another rotation, of which nobody can tell the sign.
SAME_ROTATION: Final = 0.7

QUATERNION_NORM = Rule(
    name="quaternion_norm",
    severity="warning",
    sentence="A quaternion is not of unit length.",
    threshold=f"1 +- {NORM_TOLERANCE:g}",
    remedy="Check that these four columns are one quaternion; normalize them where they are.",
)
QUATERNION_FLIP = Rule(
    name="quaternion_flip",
    severity="warning",
    sentence="A quaternion changes to its negative, the same rotation, from one step to the next.",
    threshold="neighbouring steps in one hemisphere",
    remedy="Repair it with --fix: the sign that stays nearest to the step before.",
    repair="Each quaternion takes the sign that is nearest to the one before.",
)
QUATERNION_HEMISPHERE = Rule(
    name="quaternion_hemisphere",
    severity="warning",
    sentence="Episodes start in the same rotation, written with opposite signs.",
    threshold="one sign for one rotation in all episodes",
    remedy="Repair it with --fix: the sign that most episodes start with.",
    repair="Such an episode is negated as a whole.",
)
RULES = (QUATERNION_NORM, QUATERNION_FLIP, QUATERNION_HEMISPHERE)


def quaternion_values(recording: Recording, quaternion: Quaternion) -> FloatArray:
    """float64[t, 4], in the order they are stored in."""
    source = recording.state if quaternion.part == "state" else recording.actions
    return source[:, list(quaternion.columns)]


def are_rotations(values: FloatArray) -> bool:
    """Whether float64[t, 4] are of unit length: by their numbers, and not by their names alone."""
    return bool((np.abs(np.linalg.norm(values, axis=1) - 1.0) <= NORM_TOLERANCE).all())


def first_rotation(recording: Recording, quaternion: Quaternion) -> FloatArray:
    """float64[4], what an episode starts with; zeros where its numbers are no rotations."""
    values = quaternion_values(recording, quaternion)
    return values[0] if are_rotations(values) else np.zeros(4)


def check_quaternions(recording: Recording, declared: Declared) -> Iterator[Finding]:
    """Quaternions that are not of unit length, at the worst step, or that change their sign."""
    for quaternion in declared.roles.quaternions:
        values = quaternion_values(recording, quaternion)
        lengths = np.linalg.norm(values, axis=1)
        step = int(np.argmax(np.abs(lengths - 1.0)))
        if abs(lengths[step] - 1.0) > NORM_TOLERANCE:
            value = f"{quaternion.part} {quaternion.name} of length {lengths[step]:.4g}"
            yield QUATERNION_NORM.found(recording.name, value, step=step)
        flips = sign_flips(values)
        if len(flips):
            value = f"{quaternion.part} {quaternion.name} changing its sign {len(flips)} times"
            yield QUATERNION_FLIP.found(recording.name, value, step=int(flips[0]))


def sign_flips(values: FloatArray) -> npt.NDArray[np.intp]:
    """int[n]: the steps whose quaternion is on the other side of the one before it.

    None where they are no rotations.

    Args:
        values: float64[t, 4].
    """
    if not are_rotations(values):
        return np.array([], dtype=np.intp)
    dots = np.einsum("td,td->t", values[1:], values[:-1])
    return np.flatnonzero(dots < FLIP_DOT) + 1


def check_hemispheres(
    declared: Declared, starts: Sequence[tuple[str, Sequence[FloatArray]]]
) -> Iterator[Finding]:
    """Quaternions with which some episodes start, and others with their negatives.

    Args:
        declared: which columns are quaternions.
        starts: of each episode, its name and the `first_rotation` of each quaternion.
    """
    for number, quaternion in enumerate(declared.roles.quaternions if starts else ()):
        values = np.array([first[number] for _, first in starts])
        dots = values @ usual_quaternion(values)
        opposite = np.flatnonzero(dots < -SAME_ROTATION)
        if len(opposite) and (dots > SAME_ROTATION).any():
            value = (
                f"{quaternion.part} {quaternion.name}: {len(opposite)} of {len(starts)} "
                f"episodes with the opposite sign, first {starts[int(opposite[0])][0]}"
            )
            yield QUATERNION_HEMISPHERE.found(DATASET, value)


def usual_quaternion(values: FloatArray) -> FloatArray:
    """float64[4], the direction that most of float64[n, 4] share, with the sign that most have."""
    direction = np.linalg.eigh(values.T @ values)[1][:, -1]
    signs = np.sign(values @ direction)
    # a tie goes to the first
    return direction * (np.sign(signs.sum()) or signs[0] or 1.0)
