"""Does an episode begin with what the episode before ended with?

A recorder that does not empty its buffer gives the first step the last picture, reading or command
of the episode before. Such a beginning is equal to the other's end and unlike what follows: it
jumps further in that one step than anywhere else, and a robot that goes on where it was does not.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Self

import numpy as np

from data_tools.doctor.checks.pictures import UNDECODABLE_FRAME, Frame, Pictures
from data_tools.doctor.checks.recording import Declared, FloatArray, Recording
from data_tools.errors import UserError
from data_tools.finding import Finding, Rule

# Pictures are compared as the means of so many fields a side, in grey levels of 255.
SIDE: Final = 16
MIN_CHANGE: Final = 1.0
# What a stale beginning leaves to the end before it, as a share of its jump to what follows, and
# how many times the largest other step that jump is.
MAX_SHARE: Final = 0.25
MIN_TIMES: Final = 4.0
# So many first pictures may be stale; after them, as many show how much a picture changes.
MAX_STALE: Final = 3
# A jump of less [rad, m, or of a command] says nothing.
MIN_JUMP: Final = 0.01
MIN_STEPS: Final = 5
# A column of fewer different values is a switch.
MIN_VALUES: Final = 10
# Two commands that are one to the last bits of float32.
TOLERANCE: Final = 1e-6

REMEDY: Final = (
    "The recorder's buffer was not emptied. Start the episode later: robot-data filter "
    "--min-steps 2 writes a keep-file of all steps, whose ranges may be edited."
)

STALE_FIRST_FRAME = Rule(
    name="stale_first_frame",
    severity="warning",
    sentence="The first picture of an episode is the last one of the episode before.",
    threshold="a first picture like the second",
    remedy=REMEDY,
)
STALE_FIRST_ROW = Rule(
    name="stale_first_row",
    severity="warning",
    sentence="The first state or action of an episode is the last one of the episode before.",
    threshold="a first row from which the robot, or its commands, could go on",
    remedy=REMEDY,
)
RULES = (STALE_FIRST_FRAME, STALE_FIRST_ROW)


def coarse(frame: Frame) -> FloatArray:
    """float64[16, 16, 3], the means of fields of uint8[y, x, 3]; noise of a sensor vanishes."""
    rows, columns = (
        np.linspace(0, size, min(SIDE, size) + 1).astype(int)[:-1] for size in frame.shape[:2]
    )
    sums = np.add.reduceat(np.add.reduceat(frame, rows, 0, np.float64), columns, 1)
    counts = np.outer(np.diff([*rows, frame.shape[0]]), np.diff([*columns, frame.shape[1]]))
    fields: FloatArray = sums / counts[..., None]
    return fields


@dataclass(frozen=True)
class Ending:
    """What is left of an episode when the next one is looked at.

    Attributes:
        name: of the episode.
        state: float64[s], its last state.
        action: float64[a], its last action.
        pictures: camera name -> `coarse` of its last frame.
    """

    name: str
    state: FloatArray
    action: FloatArray
    pictures: Mapping[str, FloatArray]

    @classmethod
    def of(cls, recording: Recording, seen: Sequence[Pictures]) -> Self:
        """Of an episode of finite numbers and its pictures."""
        pictures = {each.camera: coarse(each.last) for each in seen if each.last is not None}
        return cls(recording.name, recording.state[-1], recording.actions[-1], pictures)


def check_beginning(
    before: Ending, recording: Recording, declared: Declared, seen: Sequence[Pictures]
) -> Iterator[Finding]:
    """A first state, action or picture that belongs to the episode before.

    Args:
        before: the end of that episode.
        recording: an episode of finite numbers.
        declared: which columns are what.
        seen: its pictures.
    """
    if recording.num_steps < MIN_STEPS:
        return
    column = _stale_state(before, recording, declared)
    if column is not None:
        name = declared.conventions.state.names[column]
        yield _row_finding(before, recording, "state", name, recording.state[:2, column])
    column = _stale_action(before, recording, declared)
    if column is not None:
        name = declared.conventions.action.names[column]
        yield _row_finding(before, recording, "action", name, recording.actions[:2, column])
    for pictures in seen:
        last = before.pictures.get(pictures.camera)
        if last is not None and pictures.first is not None:
            yield from _check_picture(before, last, recording, pictures, coarse(pictures.first))


def _row_finding(
    before: Ending, recording: Recording, part: str, name: str, values: FloatArray
) -> Finding:
    value = (
        f"the last {part} of {before.name}, {name!r} = {values[0]:.4g}, and then {values[1]:.4g}"
    )
    return STALE_FIRST_ROW.found(recording.name, value, step=0)


def _stale_state(before: Ending, recording: Recording, declared: Declared) -> int | None:
    """The state column that jumps most, where all that jump were at the end before."""
    rows = recording.state
    jump, usual = _jumps(rows)
    # a switch jumps whenever it moves
    is_switch = np.array([len(np.unique(column)) < MIN_VALUES for column in rows.T], bool)
    is_switch[list(declared.roles.state_grippers)] = True
    odd = np.flatnonzero(~is_switch & (jump > np.maximum(MIN_JUMP, MIN_TIMES * usual)))
    if not len(odd):
        return None
    is_last = (np.abs(rows[0] - before.state)[odd] <= MAX_SHARE * jump[odd]).all()
    return int(odd[np.argmax((jump / usual)[odd])]) if is_last else None


def _jumps(rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Two float64[d]: the first step, and the largest of the others, never 0."""
    steps = np.abs(np.diff(rows, axis=0))
    floor = TOLERANCE * np.maximum(1.0, np.abs(rows).max(axis=0))
    return steps[0], np.maximum(steps[1:].max(axis=0), floor)


def _stale_action(before: Ending, recording: Recording, declared: Declared) -> int | None:
    """The action column that jumps most, where the first action is the last one before, to a bit.

    And the robot was taken elsewhere in between: one that goes on may be told the same again.
    """
    columns = [
        column
        for column in range(recording.actions.shape[1])
        if column not in declared.roles.action_grippers
    ]
    rows = recording.actions[:, columns]
    last, first = before.action[columns], rows[0]
    is_again = np.abs(first - last) <= TOLERANCE * np.maximum(1.0, np.abs(last))
    is_told_later = (np.abs(rows[1:] - first) <= TOLERANCE).all(axis=1).any()
    action = declared.conventions.action
    at_limit = [first[i] in (action.low[c], action.high[c]) for i, c in enumerate(columns)]
    says_something = (first != 0) & ~np.array(at_limit, dtype=bool)
    if not columns or not is_again.all() or is_told_later or says_something.sum() < 2:
        return None
    steps = np.abs(np.diff(recording.state[1:], axis=0)).max(axis=0)
    is_elsewhere = np.abs(recording.state[1] - before.state) > MIN_TIMES * steps + MIN_JUMP
    jump, usual = _jumps(rows)
    worst = int(np.argmax(jump / usual))
    # targets go on from where the robot is; speeds may do what they like
    are_targets = {action.references[column] for column in columns} == {"absolute"}
    is_odd = not are_targets or jump[worst] > MIN_TIMES * usual[worst]
    return columns[worst] if is_elsewhere.any() and is_odd else None


def _check_picture(
    before: Ending,
    last: FloatArray,
    recording: Recording,
    pictures: Pictures,
    first: FloatArray,
) -> Iterator[Finding]:
    """Decodes a few more frames, but only of an episode whose first one is so like the other's."""
    own = coarse(pictures.last) if pictures.last is not None else first
    if last.shape != first.shape or _change(first, last) > MAX_SHARE * _change(first, own):
        return
    shown = [first]
    for step in range(1, min(recording.num_steps, 2 * MAX_STALE + 1)):
        try:
            shown.append(coarse(recording.episode.image(pictures.camera, step)))
        except UserError as error:
            value = f"camera {pictures.camera!r}: {error}"
            yield UNDECODABLE_FRAME.found(recording.name, value, step=step)
            return
    changes = np.array([_change(*each) for each in pairwise(shown)])
    jump = int(np.argmax(changes[:MAX_STALE]))
    rest = float(np.delete(changes, jump).max())
    farthest = max(_change(each, last) for each in shown[: jump + 1])
    if changes[jump] > max(MIN_CHANGE, MIN_TIMES * rest) and farthest <= MAX_SHARE * changes[jump]:
        count = f"the first {jump + 1} pictures" if jump else "the first picture"
        value = (
            f"camera {pictures.camera!r}: {count} within {farthest:.2g} grey levels of the last "
            f"one of {before.name}, and {changes[jump]:.2g} from the next"
        )
        yield STALE_FIRST_FRAME.found(recording.name, value, step=0)


def _change(one: FloatArray, other: FloatArray) -> float:
    return float(np.abs(one - other).mean())
