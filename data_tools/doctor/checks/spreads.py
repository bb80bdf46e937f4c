"""Checks of the columns over all episodes: still, far out, clipped, in another unit."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from data_tools.doctor.checks.numbers import MAX_JOINT_SPEED, MAX_POSITION_SPEED, SLOWEST_HZ
from data_tools.doctor.checks.recording import Declared, Extent, FloatArray, Recording, Spread
from data_tools.doctor.checks.roles import Part
from data_tools.finding import DATASET, Finding, Rule, Told, not_checked
from data_tools.stats import SMALLEST_MOTION, action_motions, floor, state_motions

Flags = npt.NDArray[np.bool_]

MAX_DEVIATIONS: Final = 10.0
# A turn and a little: joints of a UR arm reach 2 pi either way.
MAX_ANGLE: Final = 2 * np.pi * 1.01
MAX_POSITION: Final = 5.0
# How near to its limit [share of the range] an action counts as clipped there.
AT_LIMIT: Final = 1e-3
# A target that rests at its limit was clipped. A displacement or a speed is at its limit whenever
# the hand is in a hurry: scripted experts spend a third of their steps so.
MAX_CLIPPED: Final = {"absolute": 0.05, "delta": 0.6, "velocity": 0.6, "unknown": 0.6}
# A sensor that clips stays on its largest value, bit for bit, several steps at a time.
MAX_STATE_CLIPPED: Final = 0.05
SHORTEST_PLATEAU: Final = 3
# What 1 and 99 % quantiles map to +-1 should stay near it; beyond 10 it dominates every loss.
MAX_NORMALIZED: Final = 10.0
MAX_BEYOND_SHARE: Final = 1e-3

NEAR_CONSTANT_COLUMN = Rule(
    name="near_constant_column",
    severity="warning",
    sentence="A column never moves in the whole dataset.",
    threshold=(
        f"a column that spans more than {SMALLEST_MOTION:g} m or rad, or of a unit that is not "
        "known; a displacement moves that much in a second"
    ),
    remedy="Check the sensor; a policy is told 0 of such a state, and holds such an action.",
)
OUTLIER = Rule(
    name="outlier",
    severity="warning",
    sentence="A value lies far from all others of its column.",
    threshold=f"at most {MAX_DEVIATIONS:g} deviations from the mean",
    remedy="Check for a glitch of the sensor or a wrong unit.",
)
DEGREES = Rule(
    name="degrees",
    severity="warning",
    sentence="An angle declared in radians is larger than a turn and moves faster than arms can: "
    "it looks like degrees.",
    threshold=f"at most 2 pi either way, or at most {MAX_JOINT_SPEED:.3g} rad/s",
    remedy="Convert the column to radians, or declare its unit 'deg'.",
)
MILLIMETRES = Rule(
    name="millimetres",
    severity="warning",
    sentence="A position declared in metres is farther away than arms reach and moves faster than "
    "they can: it looks like millimetres.",
    threshold=f"at most {MAX_POSITION:g} m either way, or at most {MAX_POSITION_SPEED:g} m/s",
    remedy="Convert the column to metres, or declare its unit 'mm'.",
)
CLIPPED_ACTION = Rule(
    name="clipped_action",
    severity="warning",
    sentence="An action column is at its limit in a large share of the steps.",
    threshold=(
        f"at most {MAX_CLIPPED['absolute']:.0%} of the steps of a target, "
        f"{MAX_CLIPPED['delta']:.0%} of a displacement or speed"
    ),
    remedy="The recorder or an earlier conversion clipped it: record with wider limits.",
)
CLIPPED_STATE = Rule(
    name="clipped_state",
    severity="warning",
    sentence="A state column rests on its extreme value, bit for bit, between movements.",
    threshold=f"at most {MAX_STATE_CLIPPED:.0%} of the steps",
    remedy="Check the range of the sensor: what lies beyond was not recorded.",
)
NARROW_QUANTILES = Rule(
    name="narrow_quantiles",
    severity="warning",
    sentence="A column's usual range is so narrow that quantile normalization makes values huge.",
    threshold=(
        f"at most {MAX_BEYOND_SHARE:.1%} of the steps beyond {MAX_NORMALIZED:g} times the range "
        "between the 1 and 99 % quantiles"
    ),
    remedy="Normalize with mean_std or min_max, or leave the rare movements out.",
)
RULES = (
    *(NEAR_CONSTANT_COLUMN, OUTLIER, DEGREES, MILLIMETRES, CLIPPED_ACTION, CLIPPED_STATE),
    NARROW_QUANTILES,
)


def check_spreads(
    declared: Declared, names: Sequence[str], extents: Mapping[Part, list[Extent]]
) -> Iterator[Told]:
    """Columns that never move, values far from all others, and units that cannot be.

    Args:
        declared: names, units and roles of the columns.
        names: of the episodes.
        extents: of the same episodes' finite arrays.
    """
    for part, listed in extents.items():
        if not listed or not column_names(declared, part):
            continue
        spread = Spread.of(listed)
        columns = column_names(declared, part)
        magnitude = np.maximum(np.abs(spread.low), np.abs(spread.high))
        is_still = (spread.high - spread.low) / 2 < floor(magnitude, _motions(declared, part))
        resting = _resting_grippers(declared, spread) if part == "action" else set()
        for column in sorted({*np.flatnonzero(is_still).tolist()} - resting):
            value = f"{_word(part)} column {columns[column]!r} stays near {spread.mean[column]:g}"
            yield NEAR_CONSTANT_COLUMN.found(DATASET, value)
        judged = ~is_still & _may_be_outlier(declared, part)
        yield from _check_outliers(names, listed, spread, part, columns, judged)
        if part == "state":
            yield from _check_units(declared, spread)


def _resting_grippers(declared: Declared, spread: Spread) -> set[int]:
    """Action columns of grippers that stay open or closed all along, as in a pushing task."""
    return {
        gripper.action
        for gripper in declared.roles.grippers
        if {spread.low[gripper.action], spread.high[gripper.action]}
        in ({gripper.open_value}, {gripper.closed_value})
    }


def column_names(declared: Declared, part: Part) -> tuple[str, ...]:
    """The names of the state's or the action's columns."""
    conventions = declared.conventions
    return conventions.state.names if part == "state" else conventions.action.names


def _motions(declared: Declared, part: Part) -> FloatArray:
    conventions = declared.conventions
    return state_motions(conventions) if part == "state" else action_motions(conventions)


def _word(part: Part) -> str:
    return "state" if part == "state" else "actions"


def _may_be_outlier(declared: Declared, part: Part) -> Flags:
    """bool[d]: an action within declared limits is legal, however rare it is."""
    if part == "state":
        return np.ones(len(declared.conventions.state.names), dtype=bool)
    action = declared.conventions.action
    return ~(np.isfinite(action.low) & np.isfinite(action.high))


def _check_outliers(
    names: Sequence[str],
    extents: list[Extent],
    spread: Spread,
    part: Part,
    columns: Sequence[str],
    judged: Flags,
) -> Iterator[Finding]:
    scale = np.where(judged, spread.std, np.inf)
    for name, extent in zip(names, extents, strict=True):
        above, below = (extent.high - spread.mean) / scale, (spread.mean - extent.low) / scale
        is_high = above >= below
        deviations = np.where(is_high, above, below)
        column = int(np.argmax(deviations))
        if deviations[column] > MAX_DEVIATIONS:
            worst = (extent.high if is_high[column] else extent.low)[column]
            step = (extent.high_step if is_high[column] else extent.low_step)[column]
            told = f"{deviations[column]:.1f} deviations from the mean"
            value = f"{_word(part)} {columns[column]!r} = {worst:g}, {told}"
            yield OUTLIER.found(name, value, step=int(step))


def _check_units(declared: Declared, spread: Spread) -> Iterator[Told]:
    """A joint may turn on and on, and a base lie far away: the speed tells units from places."""
    rate = declared.control_hz or SLOWEST_HZ
    names = declared.conventions.state.names
    farthest = np.maximum(np.abs(spread.low), np.abs(spread.high))
    for rule, columns, unit, reach, speed in (
        (DEGREES, declared.roles.angles, "rad", MAX_ANGLE, MAX_JOINT_SPEED),
        (MILLIMETRES, declared.roles.positions, "m", MAX_POSITION, MAX_POSITION_SPEED),
    ):
        for column in columns:
            if farthest[column] <= reach:
                continue
            told = f"state {names[column]!r} reaching {farthest[column]:.4g} {unit}"
            usual = spread.motion[column] * rate
            if usual > speed:
                at = "" if declared.control_hz else f" if recorded at {rate:g} Hz"
                yield rule.found(DATASET, f"{told} and moving at {usual:.3g} {unit}/s{at}")
            else:
                why = f"{told} is no faster than arms: nothing tells its unit from its place"
                yield not_checked(DATASET, why, rule)


def check_clipping(declared: Declared, sample: Sequence[Recording]) -> Iterator[Finding]:
    """Actions at their declared limits, and states on their extreme values."""
    action = declared.conventions.action
    actions = np.concatenate([recording.actions for recording in sample])
    for column, name in enumerate(action.names):
        low, high = action.low[column], action.high[column]
        if column in declared.roles.action_grippers or not np.isfinite(high - low):
            continue
        near = AT_LIMIT * (high - low)
        values = actions[:, column]
        share = float(((np.abs(values - low) <= near) | (np.abs(values - high) <= near)).mean())
        if share > MAX_CLIPPED[action.references[column]] and np.ptp(values) > 0:
            value = f"action {name!r} at its limits in {share:.0%} of the steps"
            yield CLIPPED_ACTION.found(DATASET, value)
    for column in sorted({*declared.roles.angles, *declared.roles.positions}):
        share = _share_on_extremes([recording.state[:, column] for recording in sample])
        if share > MAX_STATE_CLIPPED:
            name = declared.conventions.state.names[column]
            value = f"state {name!r} on its extreme value in {share:.0%} of the steps"
            yield CLIPPED_STATE.found(DATASET, value)


def _share_on_extremes(episodes: Sequence[FloatArray]) -> float:
    """Share of steps on the column's smallest or largest value, in plateaus within episodes.

    A robot rests at the start and the end of an episode, and its pose there may be an extreme.
    """
    low, high = min(e.min() for e in episodes), max(e.max() for e in episodes)
    counted = 0
    for values in episodes:
        changes = np.flatnonzero(np.diff(values) != 0) + 1
        inner = pairwise(changes)
        counted += sum(
            int(end - start)
            for start, end in inner
            if end - start >= SHORTEST_PLATEAU and values[start] in (low, high)
        )
    return float(counted / sum(map(len, episodes)))


def check_quantiles(declared: Declared, sample: Sequence[Recording]) -> Iterator[Finding]:
    """Columns of which rare values lie far beyond the 1 and 99 % quantiles."""
    parts: dict[Part, FloatArray] = {
        "state": np.concatenate([recording.state for recording in sample]),
        "action": np.concatenate([recording.actions for recording in sample]),
    }
    grippers = {
        "state": declared.roles.state_grippers,
        "action": declared.roles.action_grippers,
    }
    for part, values in parts.items():
        low, high = np.quantile(values, [0.01, 0.99], axis=0)
        half = (high - low) / 2
        is_scaled = half > floor(np.abs(values).max(axis=0), _motions(declared, part))
        normalized = np.abs(values - (low + high) / 2) / np.where(is_scaled, half, np.inf)
        shares = (normalized > MAX_NORMALIZED).mean(axis=0)
        for column in np.flatnonzero(shares > MAX_BEYOND_SHARE).tolist():
            if column not in grippers[part]:
                value = (
                    f"{_word(part)} {column_names(declared, part)[column]!r} beyond "
                    f"{MAX_NORMALIZED:g} in {shares[column]:.1%} of the steps"
                )
                yield NARROW_QUANTILES.found(DATASET, value)
