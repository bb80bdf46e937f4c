"""Long pauses: a robot that stands, and is told nothing, in the middle of an episode.

Tasks have waits of their own, so an episode is held against the others with its sentence.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from data_tools.doctor.checks.recording import NO_RATE, Declared, FloatArray, Recording
from data_tools.finding import Rule, Told, not_checked

# Steps are looked at in blocks of this long; the noise of a sensor is less in their means.
BLOCK_S: Final = 0.25
# A joint [rad] or hand [m] that stays within this stands still, ten times the noise of encoders.
MAX_MOTION: Final = 0.01
# A column of a command that stays within this share of its way in the episode asks for nothing.
MAX_COMMAND: Final = 0.15
LONGEST_S: Final = 3.0
MAX_TIMES: Final = 4.0
MIN_EPISODES: Final = 5

LONG_PAUSE = Rule(
    name="long_pause",
    severity="warning",
    sentence="The robot stands still in the middle of an episode, for far longer than in others.",
    threshold=(
        f"at most {LONGEST_S:g} s, or {MAX_TIMES:g} times the usual longest pause of the episodes "
        "with this sentence"
    ),
    remedy="The operator waited: leave idle steps out with robot-data filter --noops, or the "
    "episode.",
)
RULES = (LONG_PAUSE,)


class Pause(NamedTuple):
    """The longest time without motion or command inside an episode; 0 steps without any.

    Attributes:
        start: the step it begins at.
        steps: its length.
    """

    start: int
    steps: int


def longest_pause(recording: Recording, declared: Declared) -> Pause | None:
    """The longest rest that neither begins nor ends the episode.

    None where nobody knows the rate, or no state column is known as an angle or a position.
    """
    block = declared.steps(BLOCK_S)
    columns = [*declared.roles.angles, *declared.roles.positions]
    if block is None or not columns:
        return None
    size = max(1, round(block))
    states = _blocks(recording.state[:, columns], size)
    commands = _blocks(_commands(recording, declared), size)
    is_still = (np.ptp(states, axis=1) <= MAX_MOTION).all(axis=1)
    is_told = (np.abs(commands.mean(axis=1)) > MAX_COMMAND).any(axis=1)
    places = states.mean(axis=1)
    best, start = Pause(0, 0), 0
    for end in range(1, len(places) + 1):
        goes_on = (
            end < len(places)
            and (is_still & ~is_told)[start]
            and (is_still & ~is_told)[end]
            and np.abs(places[end] - places[start]).max() <= MAX_MOTION
        )
        if not goes_on:
            is_inside = start > 0 and end < len(places)
            if is_inside and (is_still & ~is_told)[start] and (end - start) * size > best.steps:
                best = Pause(start * size, (end - start) * size)
            start = end
    return best


def _blocks(rows: FloatArray, size: int) -> FloatArray:
    """float64[n, size, d] of float64[t, d]; rows that fill no block are left out."""
    count = len(rows) // size
    return rows[: count * size].reshape(count, size, rows.shape[1])


def _commands(recording: Recording, declared: Declared) -> FloatArray:
    """float64[t, a], how much each command asks for, as a share of the most in the episode.

    A target asks where it moves, as does a gripper; a displacement or speed where it is not 0.
    """
    references = np.array(declared.conventions.action.references)
    is_motion = np.isin(references, ("delta", "velocity"))
    is_motion[list(declared.roles.action_grippers)] = False
    steps = np.diff(recording.actions, axis=0, prepend=recording.actions[:1])
    asked: FloatArray = np.where(is_motion, recording.actions, steps)
    most = np.abs(asked).max(axis=0)
    return asked / np.where(most > 0, most, 1.0)


def check_pauses(declared: Declared, pauses: Sequence[tuple[str, str, Pause]]) -> Iterator[Told]:
    """Episodes with a pause far longer than those of most others of their task.

    Args:
        declared: the control rate.
        pauses: name, sentence and `longest_pause` of each episode.
    """
    rate = declared.control_hz
    by_sentence: dict[str, list[tuple[str, Pause]]] = {}
    for name, sentence, pause in pauses:
        by_sentence.setdefault(sentence, []).append((name, pause))
    for episodes in by_sentence.values():
        if len(episodes) < MIN_EPISODES or rate is None:
            why = f"fewer than {MIN_EPISODES} episodes share a sentence" if rate else NO_RATE
            for name, _ in episodes:
                yield not_checked(name, why, LONG_PAUSE)
            continue
        usual = float(np.median([pause.steps for _, pause in episodes])) / rate
        for name, pause in episodes:
            seconds = pause.steps / rate
            if seconds > max(LONGEST_S, MAX_TIMES * usual):
                value = f"{seconds:.1f} s without motion, where {usual:.1f} s are usual at most"
                yield LONG_PAUSE.found(name, value, step=pause.start)
