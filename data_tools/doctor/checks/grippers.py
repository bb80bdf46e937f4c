"""Checks of grippers: does what is declared open open, and are the values the declared ones?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from data_tools.doctor.checks.recording import NO_RATE, Declared, FloatArray, Recording
from data_tools.doctor.checks.roles import GripperColumns
from data_tools.finding import DATASET, Finding, Rule, Told, not_checked

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
# One episode has few steps, and one grasp may hide in the delay: it contradicts only where its
# width follows the command this clearly in the wrong sense, and at no delay in the right one.
CLEAR: Final = 0.7
UNCLEAR: Final = 0.3
MIN_EPISODE_PAIRS: Final = 25
# And only where the command goes this share of the declared way, and the width this share of what
# is usual: a gripper that rests shows noise.
MIN_COMMANDED: Final = 0.5
MIN_USUAL_WIDTH: Final = 0.25
# So many delays between none and TRAVEL_S are looked at in each episode.
NUM_LAGS: Final = 11

GRIPPER_POLARITY = Rule(
    name="gripper_polarity",
    severity="error",
    sentence="The gripper's width shrinks when the declared opening command is given.",
    threshold=f"a correlation of opening command and later width above -{MIN_CORRELATION:g}",
    remedy="Look at that step (robot-data view). If the fingers are closed there, exchange "
    "open_value and closed_value of this gripper; if they are open, the reading is no width: "
    "correct its unit or name.",
)
GRIPPER_VALUES = Rule(
    name="gripper_values",
    severity="warning",
    sentence="Gripper commands lie far from the declared open and closed values.",
    threshold=f"commands within {TOLERANCE:.0%} of the way between the declared values",
    remedy="Declare the values the data holds: 0 and 1, -1 and 1, or the device's units. Which of "
    "them opens is not told by them: look at a frame.",
)
GRIPPER_FLIPPED = Rule(
    name="gripper_flipped",
    severity="error",
    sentence="The gripper of an episode answers its command the other way than in most episodes.",
    threshold=f"one sign of the correlation of command and later reading, where beyond {CLEAR:g}",
    remedy="Look at a frame of both kinds (robot-data view): turn round in these episodes what is "
    "wrong there, commands or readings, or leave them out.",
)
RULES = (GRIPPER_POLARITY, GRIPPER_FLIPPED, GRIPPER_VALUES)


@dataclass(frozen=True)
class Response:
    """How one gripper answers its commands in one episode.

    Attributes:
        episode: its name.
        gripper: which.
        width: how far the reading goes, in the unit of its column.
        lowest: the lowest correlation of command and reading over all delays.
        highest: the highest.
    """

    episode: str
    gripper: GripperColumns
    width: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, recording: Recording, gripper: GripperColumns, travel_steps: float) -> Self | None:
        """None where the command or the width stays where it is, and of too few steps."""
        if gripper.state is None:
            return None
        last = _last_lag(travel_steps)
        if recording.num_steps < last + MIN_EPISODE_PAIRS:
            return None
        command = _opening(recording.actions[:, gripper.action], gripper)
        width = _width(recording.state[:, gripper.state], gripper)
        found = [
            _correlated(command[: len(command) - lag], width[lag:])
            for lag in np.unique(np.linspace(0, last, NUM_LAGS).astype(int))
            if np.ptp(command[: len(command) - lag]) > MIN_COMMANDED and np.ptp(width[lag:]) > 0
        ]
        if not found:
            return None
        return cls(recording.name, gripper, float(np.ptp(width)), min(found), max(found))

    @property
    def sense(self) -> int:
        """1 where the reading follows the command, -1 where it goes against it, 0 if unclear."""
        if self.highest > CLEAR and self.lowest > -UNCLEAR:
            return 1
        return -1 if self.lowest < -CLEAR and self.highest < UNCLEAR else 0


def responses(declared: Declared, recording: Recording) -> Iterator[Response]:
    """What `check_grippers` has to know of every episode: of each gripper that is used, a line.

    Nothing where the control rate is unknown: a grasp of unknown duration may hide in the delay.
    """
    travel = declared.steps(TRAVEL_S)
    if travel is None:
        return
    for gripper in declared.roles.grippers:
        response = Response.of(recording, gripper, travel)
        if response is not None:
            yield response


def check_grippers(
    declared: Declared, sample: Sequence[Recording], answers: Sequence[Response]
) -> Iterator[Told]:
    """Grippers that move against their declaration, or each other, or in other units.

    Args:
        declared: which columns are grippers, and what opens them.
        sample: enough episodes to judge all of them together.
        answers: `responses` of every episode.
    """
    yield from _not_judged(declared)
    for gripper in declared.roles.grippers:
        commands = [_opening(each.actions[:, gripper.action], gripper) for each in sample]
        together = np.concatenate(commands)
        if np.ptp(together) < MIN_COMMAND:
            continue
        yield from _check_values(declared, gripper, together)
        if gripper.state is not None:
            if gripper.wider:
                yield from _check_polarity(declared, sample, gripper, gripper.state, commands)
            own = [answer for answer in answers if answer.gripper == gripper]
            yield from _check_each(declared, own)


def _not_judged(declared: Declared) -> Iterator[Told]:
    """Which rules nothing that is declared lets us look at, each reason once."""
    grippers = declared.roles.grippers
    if not grippers:
        yield not_checked(DATASET, "no gripper is declared", *RULES)
    elif declared.control_hz is None:
        yield not_checked(DATASET, NO_RATE, GRIPPER_FLIPPED)
    for gripper in grippers:
        name = declared.conventions.action.names[gripper.action]
        if gripper.state is None:
            why = f"no state column is known to tell of the gripper {name!r}"
            yield not_checked(DATASET, why, GRIPPER_POLARITY, GRIPPER_FLIPPED)
        elif not gripper.wider:
            state = declared.conventions.state.names[gripper.state]
            why = f"nothing says whether a larger state {state!r} is a wider gripper"
            yield not_checked(DATASET, f"{why}: it has no unit of length", GRIPPER_POLARITY)


def _check_each(declared: Declared, answers: Sequence[Response]) -> Iterator[Finding]:
    """Episodes that contradict most others; of equally many, the declaration or the first one."""
    if not answers:
        return
    least = MIN_USUAL_WIDTH * float(np.median([answer.width for answer in answers]))
    moved = [answer for answer in answers if answer.width >= least]
    senses = [answer.sense for answer in moved if answer.sense]
    if not senses:
        return
    usual_sense = int(np.sign(sum(senses))) or (1 if moved[0].gripper.wider else senses[0])
    num_usual = senses.count(usual_sense)
    for answer in moved:
        if answer.sense == -usual_sense:
            extreme = answer.lowest if answer.sense < 0 else answer.highest
            name = declared.conventions.action.names[answer.gripper.action]
            value = (
                f"correlation {extreme:.2f} of action {name!r} with the reading within "
                f"{TRAVEL_S:g} s, and the other sign in {num_usual} episodes"
            )
            yield GRIPPER_FLIPPED.found(answer.episode, value)


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
    # a continuous gripper need not open fully; a switch that does not has other values
    is_enough = len(opening) >= MIN_STEPS
    is_short = is_switch(opening) and is_enough and (low > TOLERANCE or high < 1 - TOLERANCE)
    if is_beyond or is_short:
        span = gripper.open_value - gripper.closed_value
        ends = sorted(gripper.closed_value + span * end for end in (low, high))
        value = f"action {action.names[column]!r} from {ends[0]:g} to {ends[1]:g}"
        ends_told = f"{gripper.open_value:g} (open) and {gripper.closed_value:g} (closed)"
        threshold = f"{ends_told}, +- {TOLERANCE:.0%} of the way between"
        yield GRIPPER_VALUES.found(DATASET, value, threshold=threshold)


def is_switch(commands: FloatArray) -> bool:
    """Whether a gripper only ever opens or closes, and in between moves fast."""
    low, high = float(commands.min()), float(commands.max())
    near = AT_END * (high - low)
    return float(((commands <= low + near) | (commands >= high - near)).mean()) > MIN_AT_ENDS


def _check_polarity(
    declared: Declared,
    sample: Sequence[Recording],
    gripper: GripperColumns,
    state: int,
    commands: Sequence[FloatArray],
) -> Iterator[Finding]:
    longest = max(recording.num_steps for recording in sample)
    lags = range(min(_last_lag(declared.steps(TRAVEL_S)), longest) + 1)
    widths = [_width(recording.state[:, state], gripper) for recording in sample]
    found = [
        (lag, each) for lag in lags if (each := _correlation(commands, widths, lag)) is not None
    ]
    lag, correlation = min(found, key=lambda each: each[1], default=(0, 0.0))
    if correlation < -MIN_CORRELATION and max(each for _, each in found) < MIN_CORRELATION:
        conventions = declared.conventions
        value = (
            f"correlation {correlation:.2f} of action "
            f"{conventions.action.names[gripper.action]!r} (declared {gripper.open_value:g} open) "
            f"with state {conventions.state.names[state]!r} within {TRAVEL_S:g} s; "
            f"{gripper.wider}, so larger is wider; {_narrowest(sample, commands, widths, lag)}"
        )
        yield GRIPPER_POLARITY.found(DATASET, value)


def _narrowest(
    sample: Sequence[Recording],
    commands: Sequence[FloatArray],
    widths: Sequence[FloatArray],
    lag: int,
) -> str:
    """Where the width is smallest after an opening command, for a person to look at."""
    places = [
        (float(width[lag:][is_open].min()), int(np.flatnonzero(is_open)[step]) + lag, each.name)
        for each, command, width in zip(sample, commands, widths, strict=True)
        if (is_open := command[: max(0, len(command) - lag)] > 1 - TOLERANCE).any()
        for step in [int(np.argmin(width[lag:][is_open]))]
    ]
    if not places:
        return "no command opens it fully"
    width, step, name = min(places)
    return f"told to open, it is {width:.3g} at step {step} of {name}"


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
    return _correlated(command, width)


def _last_lag(travel_steps: float | None) -> int:
    return max(1, round(travel_steps)) if travel_steps is not None else 1


def _correlated(command: FloatArray, width: FloatArray) -> float:
    """The correlation of two that move."""
    command, width = command - command.mean(), width - width.mean()
    return float(command @ width / np.sqrt((command @ command) * (width @ width)))


def _width(column: FloatArray, gripper: GripperColumns) -> FloatArray:
    """float64[t], larger is wider where anything says so."""
    return np.abs(column) if gripper.wider else column
