"""Gripper chatter: commands that open and close faster than fingers go anywhere."""

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from data_tools.doctor.checks.grippers import is_switch
from data_tools.doctor.checks.numbers import longest_run
from data_tools.doctor.checks.recording import NO_RATE, Declared, FloatArray, Recording
from data_tools.doctor.checks.roles import GripperColumns
from data_tools.finding import DATASET, Rule, Told, not_checked

# Fingers need half a second; a command held for less than this reached no finger.
SHORTEST_S: Final = 0.2
# Three in a row: one may be a slip of the operator, or a grasp that was tried again. More, where no
# reading shows that the fingers stay behind.
MIN_HOLDS: Final = 3
MIN_UNSEEN_HOLDS: Final = 5
# Fingers that turn over more often than this meanwhile follow: quick ones may, and one grasp may be
# under way.
MAX_FOLLOWED: Final = 1
# A trigger that is held half is no switch: only what crosses this middle part turns over.
BETWEEN: Final = (0.25, 0.75)

GRIPPER_CHATTER = Rule(
    name="gripper_chatter",
    severity="warning",
    sentence="A gripper's command opens and closes again and again, and its fingers do not follow.",
    threshold=f"fewer than {MIN_HOLDS} holds in a row of under {SHORTEST_S:g} s (of "
    f"{MIN_UNSEEN_HOLDS} where no reading shows the fingers)",
    remedy="Hold the command (a debounced button, hysteresis) where it was recorded, or leave the "
    "episode out.",
)
RULES = (GRIPPER_CHATTER,)


def check_chatter(recording: Recording, declared: Declared) -> Iterator[Told]:
    """Grippers whose command turns over several times before fingers can have moved."""
    shortest = declared.steps(SHORTEST_S)
    if shortest is None:
        yield not_checked(recording.name, NO_RATE, GRIPPER_CHATTER)
        return
    switches = [
        gripper
        for gripper in declared.roles.grippers
        if declared.conventions.action.references[gripper.action] == "absolute"
    ]
    if not switches:
        yield not_checked(DATASET, "no gripper is declared that is told a place", GRIPPER_CHATTER)
    for gripper in switches:
        commands = recording.actions[:, gripper.action]
        if not is_switch(commands):
            continue
        turns = _turns(commands, gripper.closed_value, gripper.open_value)
        # a hold of one step is short at any rate
        start, longest = longest_run(np.diff(turns) <= max(1, math.ceil(shortest) - 1))
        if longest < (MIN_UNSEEN_HOLDS if gripper.state is None else MIN_HOLDS):
            continue
        first, last = int(turns[start]), int(turns[start + longest])
        followed = _finger_turns(recording, gripper, first, last)
        if followed <= MAX_FOLLOWED:
            name = declared.conventions.action.names[gripper.action]
            value = (
                f"action {name!r} turning over {longest + 1} times within {last - first + 1} steps"
            )
            seen = "" if gripper.state is None else f", and the fingers {followed} times"
            yield GRIPPER_CHATTER.found(recording.name, f"{value}{seen}", step=first)


def _finger_turns(recording: Recording, gripper: GripperColumns, first: int, last: int) -> int:
    """How often the reading turns over between these steps; 0 where there is none."""
    if gripper.state is None:
        return 0
    reading = recording.state[:, gripper.state]
    low, high = float(reading.min()), float(reading.max())
    return len(_turns(reading[first : last + 2], low, high)) if high > low else 0


def _turns(values: FloatArray, one: float, other: float) -> npt.NDArray[np.intp]:
    """int[n]: the steps at which values go over from near `one` to near `other`, or back."""
    low, high = BETWEEN
    way = (values - one) / (other - one)
    sides = np.where(way > high, 1, np.where(way < low, -1, 0))
    steps = np.flatnonzero(sides)
    turned: npt.NDArray[np.intp] = steps[1:][np.diff(sides[steps]) != 0]
    return turned
