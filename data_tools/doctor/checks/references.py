"""Are actions what they are declared to be: targets, displacements or speeds? By evidence.

A target is where the robot will be, so its numbers go where the state's go: 0.02 is no target of a
joint that is at 1. A displacement shows in the state's next motion, and its sum in the state's
place. Names and units tell which columns belong together; what neither tells is compared bit for
bit. Motion that repeats itself looks like anything a quarter of a period later, so places count as
explained at any delay that a controller may have.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Self

import numpy as np

from data_tools.doctor.checks.lags import Columns, Fit, spread_lags
from data_tools.doctor.checks.numbers import MAX_JOINT_SPEED, MAX_POSITION_SPEED
from data_tools.doctor.checks.recording import Declared, FloatArray, Recording
from data_tools.doctor.checks.roles import METRES, RADIANS, Pair
from data_tools.finding import DATASET, Finding, Rule

# Correlations that leave no doubt, and those that leave nothing.
CLEAR: Final = 0.95
STRONG: Final = 0.8
WEAK: Final = 0.5
# How much of what the declared meaning leaves unexplained the other one may leave.
MAX_LEFT: Final = 0.25
# A target and the position it leads to have the same unit: the slope between them is near 1. Of
# 3,600 simulated columns of targets, all are between 0.77 and 1.02, and of displacements above 3.
TARGET_SLOPES: Final = (0.7, 1.4)
POSSIBLE_SLOPES: Final = (1 / 3, 3.0)
# Below this rate a displacement a step and a speed a second are too near each other to tell.
MIN_HZ: Final = 5.0
# Share of a column's span, and of its magnitude, that float32 and differences of it may blur.
SPAN_TOLERANCE: Final = 1e-5
MAGNITUDE_TOLERANCE: Final = 1e-6
# Fewer different values may be equal by chance.
MIN_VALUES: Final = 20
# Recorders fill the last step of an episode with something else.
NUM_LAST: Final = 1

LOOKS_ABSOLUTE = Rule(
    name="looks_absolute",
    severity="error",
    sentence="An action declared as a displacement follows the position: it looks like a target.",
    threshold="displacements or speeds as declared",
    remedy="Correct the column's reference: 'absolute'.",
)
LOOKS_DELTA = Rule(
    name="looks_delta",
    severity="error",
    sentence="An action declared as a target or speed is the motion of a step: a displacement.",
    threshold="targets or speeds as declared",
    remedy="Correct the column's reference: 'delta'.",
)
LOOKS_VELOCITY = Rule(
    name="looks_velocity",
    severity="error",
    sentence="An action declared as a target or displacement is proportional to the motion, and "
    "not equal to that of a step: it looks like a speed.",
    threshold="targets or displacements as declared",
    remedy="Correct the column's reference: 'velocity', or, of normalized numbers, 'delta'.",
)
RULES = (LOOKS_ABSOLUTE, LOOKS_DELTA, LOOKS_VELOCITY)


def motion_columns(sample: Sequence[Recording], pair: Pair, gap: int) -> Columns:
    """Lag k pairs a_t with s_{t+1+k} - s_{t+k}."""
    columns = [(each.actions[:, pair.action], each.state[:, pair.state]) for each in sample]
    return Columns.of([(actions, np.diff(state)) for actions, state in columns], gap)


def target_columns(sample: Sequence[Recording], pair: Pair, gap: int) -> Columns:
    """Lag k pairs a_t with s_{t+k}, each about its mean over the episode.

    A leader arm and its follower differ by a constant, which says nothing about time.
    """
    columns = [(each.actions[:, pair.action], each.state[:, pair.state]) for each in sample]
    return Columns.of(columns, gap, about_own_mean=True)


def _sum_columns(sample: Sequence[Recording], pair: Pair, gap: int) -> Columns:
    """Lag k pairs a_0 + ... + a_t with s_{t+k}, each about its mean over the episode."""
    columns = [
        (np.cumsum(each.actions[:, pair.action]), each.state[:, pair.state]) for each in sample
    ]
    return Columns.of(columns, gap, about_own_mean=True)


@dataclass(frozen=True)
class _Evidence:
    """How well each meaning of an action column explains the state it drives.

    Attributes:
        name: of the action column.
        declared: its reference.
        state: name of the state column.
        spans: how far action and state go.
        place: the best fit of the state's place by the action.
        motion: of its motion in a step.
        total: of its place by the sum of the actions.
    """

    name: str
    declared: str
    state: str
    spans: tuple[float, float]
    place: Fit
    motion: Fit
    total: Fit

    @classmethod
    def of(cls, declared: Declared, sample: Sequence[Recording], pair: Pair, lags: range) -> Self:
        """Over all lags that a controller may have, and as many before the action for places."""
        action, state = declared.conventions.action, declared.conventions.state
        is_target = action.references[pair.action] == "absolute"
        is_alike = _are_units_alike(declared, pair)
        latest = lags[-1] if is_target or is_alike else lags[-1] // 2
        place = target_columns(sample, pair, lags[-1])
        places = [place.fit(lag) for lag in spread_lags(-latest if is_target else 0, latest)]
        low, high = POSSIBLE_SLOPES if is_alike or not is_target else (0.0, np.inf)
        possible = [fit for fit in places if low <= fit.slope <= high]
        motion, total = motion_columns(sample, pair, lags[-1]), _sum_columns(sample, pair, lags[-1])
        return cls(
            name=action.names[pair.action],
            declared=action.references[pair.action],
            state=state.names[pair.state],
            spans=(_span(sample, "actions", pair.action), _span(sample, "state", pair.state)),
            place=max(possible, key=lambda fit: fit.correlation, default=Fit(0.0, 0.0)),
            motion=max((motion.fit(lag) for lag in lags), key=lambda fit: abs(fit.correlation)),
            total=max(map(total.fit, spread_lags(0, lags[-1])), key=lambda fit: fit.correlation),
        )

    def __str__(self) -> str:
        return (
            f"action {self.name!r}, declared {self.declared}, spanning {self.spans[0]:.3g} where "
            f"state {self.state!r} spans {self.spans[1]:.3g}: correlation "
            f"{self.place.correlation:.2f} with its place, {self.motion.correlation:.2f} with its "
            f"motion, which is {self.motion.slope:.3g} times the number a step"
        )


def _span(sample: Sequence[Recording], part: str, column: int) -> float:
    values = np.concatenate([getattr(each, part)[:, column] for each in sample])
    return float(np.ptp(values))


def check_reference(
    declared: Declared, sample: Sequence[Recording], pair: Pair, lags: range
) -> Iterator[Finding]:
    """A column whose numbers behave as another reference than the declared one.

    Args:
        declared: names, units and references.
        sample: enough episodes to judge.
        pair: an action column and the state column that its name says it drives.
        lags: the delays at which a robot may answer, from a little before the action on.
    """
    exact = _exact_finding(declared, sample, pair)
    if exact is not None:
        yield exact
        return
    found = _Evidence.of(declared, sample, pair, lags)
    if found.declared == "absolute":
        yield from _check_target(declared, pair, found)
        return
    left_by_place, left_by_motion = 1 - found.place.explained, 1 - found.motion.explained
    is_place = found.place.correlation > CLEAR and _is_near(found.place.slope, 1.0)
    is_no_motion = abs(found.motion.correlation) < STRONG
    speed = _asked_speed(declared, sample, pair)
    if is_place and (speed or (is_no_motion and left_by_place < MAX_LEFT * left_by_motion)):
        yield LOOKS_ABSOLUTE.found(DATASET, f"{found}{speed}")
    elif found.motion.correlation > CLEAR:
        yield from _check_scale(declared, pair, found, speed)


def _check_target(declared: Declared, pair: Pair, found: _Evidence) -> Iterator[Finding]:
    is_alike = _are_units_alike(declared, pair)
    left_by_place, left_by_motion = 1 - found.place.explained, 1 - found.motion.explained
    is_motion = (
        abs(found.motion.correlation) > STRONG
        and left_by_motion < MAX_LEFT * left_by_place
        and found.place.correlation < CLEAR
    )
    # noise of the sensor hides a step's motion, not where the motions lead
    is_sum = found.total.correlation > CLEAR and found.place.correlation < WEAK and is_alike
    if is_motion or is_sum:
        slope = found.motion.slope if is_motion else found.total.slope
        rule = LOOKS_DELTA if is_alike and _is_near(abs(slope), 1.0) else LOOKS_VELOCITY
        yield rule.found(DATASET, str(found))


def _check_scale(declared: Declared, pair: Pair, found: _Evidence, speed: str) -> Iterator[Finding]:
    """Displacements declared as speeds, and the other way round, where units are physical."""
    rate = declared.control_hz
    unit = declared.conventions.state.units[pair.state]
    told = declared.conventions.action.units[pair.action]
    if rate is None or rate < MIN_HZ or unit not in RADIANS | METRES:
        return
    if found.declared == "velocity" and told == f"{unit}/s":
        if _is_near(found.motion.slope, 1.0):
            yield LOOKS_DELTA.found(DATASET, str(found))
    elif speed and _is_near(found.motion.slope * rate, 1.0):
        yield LOOKS_VELOCITY.found(DATASET, f"{found}{speed}")


def _asked_speed(declared: Declared, sample: Sequence[Recording], pair: Pair) -> str:
    """What displacements ask for, in words, where no arm can do it; '' elsewhere.

    A controller may be so soft that the robot does a small part of what it is asked for; but then
    nobody would ask for more than arms can do.
    """
    rate, unit = declared.control_hz, declared.conventions.state.units[pair.state]
    is_displacement = declared.conventions.action.references[pair.action] == "delta"
    if rate is None or not is_displacement or not _are_units_alike(declared, pair):
        return ""
    if unit not in RADIANS | METRES:
        return ""
    values = np.concatenate([np.abs(each.actions[:, pair.action]) for each in sample])
    speed = float(np.quantile(values, 0.99)) * rate
    fastest = MAX_JOINT_SPEED if unit in RADIANS else MAX_POSITION_SPEED
    return f"; taken at its word it asks for {speed:.3g} {unit}/s" if speed > fastest else ""


def _are_units_alike(declared: Declared, pair: Pair) -> bool:
    conventions = declared.conventions
    return conventions.action.units[pair.action] == conventions.state.units[pair.state]


def _is_near(slope: float, expected: float) -> bool:
    low, high = TARGET_SLOPES
    return low * expected < slope < high * expected


def check_unnamed_references(declared: Declared, sample: Sequence[Recording]) -> Iterator[Finding]:
    """The same of columns that no name pairs, where the numbers equal those of a state column."""
    action, state = declared.conventions.action, declared.conventions.state
    roles = declared.roles
    known = {*roles.action_grippers, *(pair.action for pair in roles.pairs)}
    for column in range(len(action.names)):
        if column not in known:
            pairs = (Pair(column, other) for other in range(len(state.names)))
            found = (_exact_finding(declared, sample, pair) for pair in pairs)
            yield from islice(filter(None, found), 1)


def _exact_finding(declared: Declared, sample: Sequence[Recording], pair: Pair) -> Finding | None:
    """Of a column that is another thing than declared to the last bit that float32 keeps."""
    action, state = declared.conventions.action, declared.conventions.state
    reference = action.references[pair.action]
    value = (
        f"action {action.names[pair.action]!r}, declared {reference}, equal to the {{}} of state "
        f"{state.names[pair.state]!r} in every step of {len(sample)} episodes"
    )
    if reference == "absolute" and _are_equal(sample, pair, np.diff):
        return LOOKS_DELTA.found(DATASET, value.format("motion in the step"))
    if reference in ("delta", "velocity") and _are_equal(sample, pair, _next_places):
        return LOOKS_ABSOLUTE.found(DATASET, value.format("place after the step"))
    return None


def _next_places(state: FloatArray) -> FloatArray:
    return state[1:]


def _are_equal(
    sample: Sequence[Recording], pair: Pair, expected: Callable[[FloatArray], FloatArray]
) -> bool:
    """Whether the action is what `expected` makes of the state, in every step but the last."""
    values: set[float] = set()
    for each in sample:
        if each.num_steps <= NUM_LAST:
            continue
        state = each.state[:, pair.state]
        told = each.actions[:-NUM_LAST, pair.action]
        tolerance = max(SPAN_TOLERANCE * np.ptp(told), MAGNITUDE_TOLERANCE * np.abs(state).max())
        if np.abs(told - expected(state)).max() > tolerance:
            return False
        values |= {*told[: MIN_VALUES * 10].tolist()} if len(values) < MIN_VALUES else set()
    return len(values) >= MIN_VALUES
