"""Checks of one episode's numbers: finite, in range, and moving as a robot can."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from data_tools.doctor.checks.recording import NO_RATE, Declared, FloatArray, Recording
from data_tools.finding import Finding, Rule, Told, not_checked
from data_tools.finite import nonfinite_columns
from data_tools.rules import LENGTHS

# Share of a column's legal range that float32 and a controller's rounding may use up.
RANGE_TOLERANCE: Final = 1e-3
# Joints of arms turn at up to 6.3 rad/s (the last ones of a UR5e or a Franka reach half of it), and
# hands of arms move at up to 3 m/s. At high rates the floors below are the wider bound.
MAX_JOINT_SPEED: Final = 2 * np.pi
MIN_JOINT_JUMP: Final = 0.5
MAX_POSITION_SPEED: Final = 3.0
MIN_POSITION_JUMP: Final = 0.1
# The slowest rate that robots are recorded at (Bridge): what an unknown rate is taken as, because
# the limits are widest there.
SLOWEST_HZ: Final = 5.0
# Below this [rad, m] a state stands still: ten times the noise of a good encoder.
MIN_STATE_MOTION: Final = 1e-3
# A command that swings this far [rad, m] moves any robot that listens.
MIN_COMMAND: Final = 0.05
STUCK_S: Final = 1.0

NOT_FINITE = Rule(
    name="not_finite",
    severity="error",
    sentence="A state or action is NaN or infinite.",
    threshold="finite numbers",
    remedy="Correct the values, or leave the episode out.",
)
ACTION_OUT_OF_RANGE = Rule(
    name="action_out_of_range",
    severity="error",
    sentence="An action lies beyond the range that is declared for its column.",
    threshold="the range that the conventions declare",
    remedy="Correct the declared range, or check the units of this column.",
)
ZERO_STATE = Rule(
    name="zero_state",
    severity="warning",
    sentence="Every state of an episode is zero: nobody recorded it, and a policy cannot use it.",
    threshold="readings of the robot",
    remedy="Record the state, or leave the episode out.",
)
STUCK_STATE = Rule(
    name="stuck_state",
    severity="warning",
    sentence="A state column stands still for a whole episode while its command moves.",
    threshold=f"motion above {MIN_STATE_MOTION:g} where the command swings by {MIN_COMMAND:g}",
    remedy="Check the sensor; compute the column from the joints, or leave the episode out.",
)
FROZEN_STATE = Rule(
    name="frozen_state",
    severity="warning",
    sentence="The whole state repeats itself, bit for bit, while the actions go on changing.",
    threshold=f"at most {STUCK_S:g} s",
    remedy="The robot's driver hung or steps were filled in: cut them out.",
)
JOINT_JUMP = Rule(
    name="joint_jump",
    severity="warning",
    sentence="A joint moves faster from one step to the next than arms can.",
    threshold=f"at most {MIN_JOINT_JUMP:g} rad or {MAX_JOINT_SPEED:.3g} rad/s a step",
    remedy="Look for a glitch, missing steps, two episodes in one, or degrees.",
)
POSITION_JUMP = Rule(
    name="position_jump",
    severity="warning",
    sentence="A position moves faster from one step to the next than arms can.",
    threshold=f"at most {MIN_POSITION_JUMP:g} m or {MAX_POSITION_SPEED:g} m/s a step",
    remedy="Look for a glitch, missing steps, two episodes in one, or millimetres.",
)
ANGLE_WRAP = Rule(
    name="angle_wrap",
    severity="warning",
    sentence="An angle jumps by more than half a turn: it wraps, or its rotation changes sign.",
    threshold="steps below pi",
    remedy="Unwrap the angle, or store the rotation in a form without jumps (rot6d).",
)
MOTION_RULES = (ZERO_STATE, STUCK_STATE, FROZEN_STATE, JOINT_JUMP, POSITION_JUMP, ANGLE_WRAP)
RULES = (LENGTHS, NOT_FINITE, ACTION_OUT_OF_RANGE, *MOTION_RULES)


def check_lengths(recording: Recording) -> Iterator[Finding]:
    """Arrays with more or fewer rows than the episode has steps."""
    parts = {"state": recording.state, "actions": recording.actions, "times": recording.times}
    for part, array in parts.items():
        if array is not None and len(array) != recording.num_steps:
            value = f"{len(array)} rows of {part} and {recording.num_steps} steps"
            yield LENGTHS.found(recording.name, value)


def check_finite(recording: Recording, declared: Declared) -> Iterator[Finding]:
    """The first NaN or infinity of each column, with the number of them."""
    arrays = {
        "action": (recording.actions, declared.conventions.action.names),
        "state": (recording.state, declared.conventions.state.names),
    }
    for part, (array, names) in arrays.items():
        for column, step, count in nonfinite_columns(array):
            value = f"{part} {names[column]!r} = {array[step, column]} ({count} in the column)"
            yield NOT_FINITE.found(recording.name, value, step=step)


def check_action_range(recording: Recording, declared: Declared) -> Iterator[Finding]:
    """Columns with actions beyond the declared range, each at its worst step."""
    action = declared.conventions.action
    low, high = np.array(action.low), np.array(action.high)
    with np.errstate(invalid="ignore"):  # an infinite action of a column without limits
        beyond = np.maximum(recording.actions - high, low - recording.actions)
    # a range open to one side has no width to take a share of
    width = np.where(np.isfinite(high - low), high - low, 1.0)
    # NaN and infinity are told of by `check_finite`
    beyond = np.where(np.isfinite(recording.actions), beyond, -np.inf)
    is_beyond = beyond > RANGE_TOLERANCE * width
    for column in np.flatnonzero(is_beyond.any(axis=0)).tolist():
        step = int(np.argmax(beyond[:, column]))
        value = f"action {action.names[column]!r} = {recording.actions[step, column]:g}"
        threshold = f"{low[column]:g} to {high[column]:g} as the conventions declare"
        yield ACTION_OUT_OF_RANGE.found(recording.name, value, step=step, threshold=threshold)


def check_motion(recording: Recording, declared: Declared) -> Iterator[Told]:
    """States that do not move although they should, or move as no robot can."""
    if not recording.state.any():
        yield ZERO_STATE.found(recording.name, f"zeros in all {recording.num_steps} steps")
        return
    yield from _check_stuck(recording, declared)
    yield from _check_frozen(recording, declared)
    yield from _check_jumps(recording, declared)


def _check_stuck(recording: Recording, declared: Declared) -> Iterator[Finding]:
    conventions = declared.conventions
    known = {*declared.roles.angles, *declared.roles.positions}
    for action, state in declared.roles.pairs:
        if conventions.action.references[action] != "absolute" or state not in known:
            continue
        moved = float(np.ptp(recording.state[:, state]))
        commanded = float(np.ptp(recording.actions[:, action]))
        if moved < MIN_STATE_MOTION and commanded > MIN_COMMAND:
            value = (
                f"state {conventions.state.names[state]!r} spanning {moved:.2g} while action "
                f"{conventions.action.names[action]!r} spans {commanded:.2g}"
            )
            yield STUCK_STATE.found(recording.name, value)


def _check_frozen(recording: Recording, declared: Declared) -> Iterator[Told]:
    longest = declared.steps(STUCK_S)
    if longest is None:
        yield not_checked(recording.name, NO_RATE, FROZEN_STATE)
        return
    is_same = (np.diff(recording.state, axis=0) == 0).all(axis=1)
    is_commanded = (np.diff(recording.actions, axis=0) != 0).any(axis=1)
    start, length = longest_run(is_same & is_commanded)
    if length > max(longest, 2):
        value = f"the same state in {length + 1} steps with changing actions"
        yield FROZEN_STATE.found(recording.name, value, step=start)


def longest_run(flags: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """(first index, length) of the longest run of True; (0, 0) without any."""
    edges = np.diff(np.concatenate([[0], flags.astype(np.int8), [0]]))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    if len(starts) == 0:
        return 0, 0
    best = int(np.argmax(ends - starts))
    return int(starts[best]), int(ends[best] - starts[best])


def _check_jumps(recording: Recording, declared: Declared) -> Iterator[Finding]:
    if recording.num_steps < 2:
        return
    rate = declared.control_hz or SLOWEST_HZ
    steps = np.abs(np.diff(recording.state, axis=0))
    roles = declared.roles
    wraps = [column for column in roles.angles if steps[:, column].max() > np.pi]
    for column in wraps:
        yield _jump(ANGLE_WRAP, recording, declared, steps, column, "rad")
    limit = max(MIN_JOINT_JUMP, MAX_JOINT_SPEED / rate)
    for column in roles.joints:
        if column not in wraps and steps[:, column].max() > limit:
            yield _jump(JOINT_JUMP, recording, declared, steps, column, "rad")
    limit = max(MIN_POSITION_JUMP, MAX_POSITION_SPEED / rate)
    for column in roles.positions:
        if steps[:, column].max() > limit:
            yield _jump(POSITION_JUMP, recording, declared, steps, column, "m")


def _jump(
    rule: Rule, recording: Recording, declared: Declared, steps: FloatArray, column: int, unit: str
) -> Finding:
    step = int(np.argmax(steps[:, column]))
    name = declared.conventions.state.names[column]
    value = f"state {name!r} moving {steps[step, column]:.3g} {unit} in one step"
    return rule.found(recording.name, value, step=step + 1)
