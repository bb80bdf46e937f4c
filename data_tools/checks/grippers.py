"""Checks of grippers: does what is declared open open, and are the values the declared ones?"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from data_tools.checks.recording import DATASET, Declared, FloatArray, Recording
from data_tools.checks.roles import GripperColumns
from data_tools.finding import Finding, Rule

# Fingers need up to this long; the width is looked at from now until then. A grasp may be shorter,
# so a gripper is wrong only where its width follows the command at none of these delays.
TRAVEL_S: Final = 0.5
MIN_CORRELATION: Final = 0.5
MIN_COMMAND: Final = 1e-3
# How far from the declared values [share of their distance] a command may lie.
TOLERANCE: Final = 0.25
# A gripper used as a switch is at one end of its own range [share of it] most of the time; the
# noise of one that is not used lies in between.
AT_END: Final = 0.1
MIN_AT_ENDS: Final = 0.8
MIN_STEPS: Final = 30
# Noise of fewer steps may look like any correlation.
MIN_PAIRS: Final = 60

GRIPPER_POLARITY = Rule(
    name="gripper_polarity",
    severity="error",
    sentence="The gripper closes when the declared opening command is given.",
    threshold=f"a correlation of opening command and later width above -{MIN_CORRELATION:g}",
    remedy="Exchange open_value and closed_value of this gripper in the conventions.",
)
GRIPPER_VALUES = Rule(
    name="gripper_values",
    severity="warning",
    sentence="Gripper commands lie far from the declared open and closed values.",
    threshold=f"commands within {TOLERANCE:.0%} of the way between the declared values",
    remedy="Declare the values the data holds: 0 and 1, -1 and 1, or the device's units.",
)
RULES = (GRIPPER_POLARITY, GRIPPER_VALUES)


def check_grippers(declared: Declared, sample: Sequence[Recording]) -> Iterator[Finding]:
    """Grippers that move against their declaration, or in other units."""
    for gripper in declared.roles.grippers:
        if gripper.open_value == gripper.closed_value:
            continue
        commands = [_opening(each.actions[:, gripper.action], gripper) for each in sample]
        together = np.concatenate(commands)
        if np.ptp(together) < MIN_COMMAND:
            continue
        yield from _check_values(declared, gripper, together)
        if gripper.state is not None:
            yield from _check_polarity(declared, sample, gripper, gripper.state, commands)


def _opening(commands: FloatArray, gripper: GripperColumns) -> FloatArray:
    """float64[t] of the commands: 0 where declared closed, 1 where declared open."""
    return (commands - gripper.closed_value) / (gripper.open_value - gripper.closed_value)


def _check_values(
    declared: Declared, gripper: GripperColumns, opening: FloatArray
) -> Iterator[Finding]:
    action, column = declared.conventions.action, gripper.action
    # what is beyond the column's limits is told of by `check_action_range`
    limits = sorted(_opening(np.array([action.low[column], action.high[column]]), gripper))
    opening = np.clip(opening, *limits)
    low, high = float(opening.min()), float(opening.max())
    is_beyond = low < -TOLERANCE or high > 1 + TOLERANCE
    # a gripper that only ever opens or closes, and in between moves fast
    near = AT_END * (high - low)
    is_switch = float(((opening < low + near) | (opening > high - near)).mean()) > MIN_AT_ENDS
    # a continuous gripper need not open fully; a switch that does not has other values
    is_enough = len(opening) >= MIN_STEPS
    is_short = is_switch and is_enough and (low > TOLERANCE or high < 1 - TOLERANCE)
    if is_beyond or is_short:
        span = gripper.open_value - gripper.closed_value
        ends = sorted(gripper.closed_value + span * end for end in (low, high))
        value = f"action {action.names[column]!r} from {ends[0]:g} to {ends[1]:g}"
        ends_told = f"{gripper.open_value:g} (open) and {gripper.closed_value:g} (closed)"
        threshold = f"{ends_told}, +- {TOLERANCE:.0%} of the way between"
        yield GRIPPER_VALUES.found(DATASET, value, threshold=threshold)


def _check_polarity(
    declared: Declared,
    sample: Sequence[Recording],
    gripper: GripperColumns,
    state: int,
    commands: Sequence[FloatArray],
) -> Iterator[Finding]:
    travel = declared.steps(TRAVEL_S)
    lags = range(max(1, round(travel if travel is not None else 1)) + 1)
    widths = [_width(recording.state[:, state], gripper) for recording in sample]
    found = [each for lag in lags if (each := _correlation(commands, widths, lag)) is not None]
    if found and min(found) < -MIN_CORRELATION and max(found) < MIN_CORRELATION:
        correlation = min(found)
        conventions = declared.conventions
        value = (
            f"correlation {correlation:.2f} of action "
            f"{conventions.action.names[gripper.action]!r} (declared {gripper.open_value:g} open) "
            f"with state {conventions.state.names[state]!r} within {TRAVEL_S:g} s"
        )
        yield GRIPPER_POLARITY.found(DATASET, value)


def _correlation(
    commands: Sequence[FloatArray], widths: Sequence[FloatArray], lag: int
) -> float | None:
    """Of the command with the width so many steps later.

    None where one of them stands still, and of too few steps.
    """
    pairs = [
        (command[: len(command) - lag], width[lag:])
        for command, width in zip(commands, widths, strict=True)
        if len(command) > lag
    ]
    if not pairs:
        return None
    command, width = (np.concatenate(side) for side in zip(*pairs, strict=True))
    if len(command) < MIN_PAIRS or np.ptp(command) < MIN_COMMAND or np.ptp(width) == 0:
        return None
    return float(np.corrcoef(command, width)[0, 1])


def _width(column: FloatArray, gripper: GripperColumns) -> FloatArray:
    """float64[t], larger is wider, as far as is known."""
    if gripper.sense == "width":
        return np.abs(column)
    return column if gripper.open_value > gripper.closed_value else -column
