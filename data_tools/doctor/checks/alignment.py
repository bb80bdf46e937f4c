"""Do actions come before the motion they cause? Lag, meaning and sign, by evidence.

A displacement command a_t shows in s_{t+1+k} - s_{t+k}, and a target in s_{t+k}. On data that is
paired rightly k is 0 or a few steps of the controller's delay; a motion that comes before its
command (k < 0) means that observations and actions were paired wrongly, as in LIBERO's raw files
(Lifelong-Robot-Learning/LIBERO#54). Slow hands and smooth motions make neighbouring k alike, so a
finding asks for half the unexplained variance, not for the best k alone.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np

from data_tools.doctor.checks.lags import MIN_STEPS, Columns
from data_tools.doctor.checks.recording import Declared, Recording
from data_tools.doctor.checks.references import (
    LOOKS_ABSOLUTE,
    LOOKS_DELTA,
    LOOKS_VELOCITY,
    STRONG,
    check_reference,
    check_unnamed_references,
    motion_columns,
    target_columns,
)
from data_tools.doctor.checks.references import RULES as REFERENCE_RULES
from data_tools.doctor.checks.roles import Pair
from data_tools.finding import DATASET, Finding, NotChecked, Rule, Told, not_checked

EARLIEST: Final = -2
# Pairs may be shifted by more; but an early lag must leave this share of the usual episode.
MAX_EARLY_SHARE: Final = 0.25
# Soft controllers trail their targets by up to half a second; a mistake of the clock is longer.
MAX_DELAY_S: Final = 0.5
MAX_DELAY_STEPS: Final = 5
# Share of the variance that a lag must explain before it says anything.
MIN_EXPLAINED: Final = 0.5
# How much of the unexplained variance of all causal lags may remain at the non-causal one.
MAX_REMAINING: Final = 0.5
# What two lags that explain everything may differ by.
ROUNDING: Final = 1e-9
# And how much more a late lag must explain to be worth a sentence.
MIN_GAIN: Final = 0.05
# Below this [rad, m] a column does not move enough to say anything.
MIN_MOTION: Final = 1e-3
# Share of the motion of a column that float32 may blur.
COPY_TOLERANCE: Final = 1e-5

ACTIONS_AFTER_MOTION = Rule(
    name="actions_after_motion",
    severity="error",
    sentence="The robot moves before the action that should move it: pairs are shifted.",
    threshold="motion in the step of the action or after it",
    remedy="Observations were stored after their actions: pair each with the next action "
    "(action_shift in the layout).",
)
LATE_MOTION = Rule(
    name="late_motion",
    severity="warning",
    sentence="The robot moves long after the action that should move it.",
    threshold=f"at most {MAX_DELAY_STEPS} steps or {MAX_DELAY_S:g} s",
    remedy="Check the clocks of robot and recorder, or shift the actions.",
)
ACTION_IS_STATE = Rule(
    name="action_is_state",
    severity="warning",
    sentence="Every target equals the position of its own step: a policy learns to stand still.",
    threshold="targets ahead of the state",
    remedy="Use the leader's positions, or the state of the next step, as actions.",
)
INVERTED_ACTION = Rule(
    name="inverted_action",
    severity="warning",
    sentence="A column moves the robot against its sign.",
    threshold="a positive action that raises its state",
    remedy="Check the frame and sign that are declared for the column.",
)
RULES = (*(ACTIONS_AFTER_MOTION, LATE_MOTION, ACTION_IS_STATE, *REFERENCE_RULES, INVERTED_ACTION),)


def check_alignment(declared: Declared, sample: Sequence[Recording]) -> Iterator[Told]:
    """Pairs that are shifted, late, copied, mistaken for another reference, or inverted."""
    moving = [pair for pair in declared.roles.pairs if _moves(sample, pair)]
    references = declared.conventions.action.references
    motions = [pair for pair in moving if references[pair.action] in ("delta", "velocity")]
    targets = [pair for pair in moving if references[pair.action] == "absolute"]
    yield from _not_judged(declared, motions, targets)
    lags = range(EARLIEST, latest(declared) + 1)
    mistaken: set[Pair] = set()
    for pair in (*motions, *targets):
        for finding in check_reference(declared, sample, pair, lags):
            mistaken.add(pair)
            yield finding
    yield from check_unnamed_references(declared, sample)
    motions = [pair for pair in motions if pair not in mistaken]
    targets = [pair for pair in targets if pair not in mistaken]
    copied = [pair for pair in targets if _is_copy(sample, pair)]
    if copied:
        names = [declared.conventions.action.names[pair.action] for pair in copied]
        yield ACTION_IS_STATE.found(DATASET, f"actions {names} equal to the state")
    targets = [pair for pair in targets if pair not in copied]
    yield from _check_lag(declared, sample, motions, motion_columns, "displacements")
    yield from _check_lag(declared, sample, targets, target_columns, "targets")
    yield from _check_signs(declared, sample, motions, lags)


def _not_judged(
    declared: Declared, motions: Sequence[Pair], targets: Sequence[Pair]
) -> Iterator[NotChecked]:
    """Which rules no pair of columns lets us look at."""
    if not declared.roles.pairs:
        why = "no names and units tell which state column an action column drives"
        yield not_checked(DATASET, why, *RULES)
        return
    why = "no action column that drives a moving state column is declared as {}"
    if not motions:
        told = why.format("a displacement or a speed")
        yield not_checked(DATASET, told, LOOKS_ABSOLUTE, INVERTED_ACTION)
    if not targets:
        yield not_checked(DATASET, why.format("a target"), LOOKS_DELTA, ACTION_IS_STATE)
    if not motions and not targets:
        told = why.format("either")
        yield not_checked(DATASET, told, ACTIONS_AFTER_MOTION, LATE_MOTION, LOOKS_VELOCITY)


def latest(declared: Declared) -> int:
    """The longest delay that is looked at, in steps: twice what a robot may have."""
    return 2 * max(MAX_DELAY_STEPS, int(np.ceil(declared.steps(MAX_DELAY_S) or 0)))


def _earliest(declared: Declared, sample: Sequence[Recording]) -> int:
    """As far before the action as a controller may trail behind it, in episodes long enough."""
    usual = float(np.median([recording.num_steps for recording in sample]))
    return min(EARLIEST, -min(latest(declared) // 2, int(MAX_EARLY_SHARE * usual)))


def _moves(sample: Sequence[Recording], pair: Pair) -> bool:
    steps = sum(recording.num_steps for recording in sample)
    action = max(np.ptp(recording.actions[:, pair.action]) for recording in sample)
    state = max(np.ptp(recording.state[:, pair.state]) for recording in sample)
    return bool(steps >= MIN_STEPS and action > 0 and state > MIN_MOTION)


def _check_lag(
    declared: Declared,
    sample: Sequence[Recording],
    pairs: Sequence[Pair],
    columns_of: Callable[[Sequence[Recording], Pair, int], Columns],
    kind: str,
) -> Iterator[Finding]:
    if not pairs:
        return
    lags = range(_earliest(declared, sample), latest(declared) + 1)
    columns = [columns_of(sample, pair, lags[-1]) for pair in pairs]
    explained = {lag: float(np.mean([each.fit(lag).explained for each in columns])) for lag in lags}
    best = max(lags, key=lambda lag: explained[lag])
    delay = declared.steps(MAX_DELAY_S)
    longest = max(MAX_DELAY_STEPS, 0.0 if delay is None else delay)
    # motion that repeats itself looks as early as it is late: then nothing shows that it is early
    expected = range(0, (lags[-1] if best < 0 else int(longest)) + 1)
    rest = 1 - max(explained[lag] for lag in expected)
    is_clear = (
        explained[best] > MIN_EXPLAINED
        and rest > ROUNDING
        and 1 - explained[best] < MAX_REMAINING * rest
    )
    value = (
        f"{kind} that explain {explained[best]:.0%} of the motion {abs(best)} steps "
        f"{'before' if best < 0 else 'after'} them, and at most {1 - rest:.0%} of it "
        f"0 to {expected[-1]} steps after them"
    )
    if is_clear and best < 0:
        yield ACTIONS_AFTER_MOTION.found(DATASET, value)
    elif is_clear and best > longest and explained[best] - (1 - rest) > MIN_GAIN:
        yield LATE_MOTION.found(DATASET, value)


def _is_copy(sample: Sequence[Recording], pair: Pair) -> bool:
    moved = max(np.ptp(recording.state[:, pair.state]) for recording in sample)
    return all(
        np.abs(recording.actions[:, pair.action] - recording.state[:, pair.state]).max()
        <= COPY_TOLERANCE * moved
        for recording in sample
    )


def _check_signs(
    declared: Declared, sample: Sequence[Recording], pairs: Sequence[Pair], lags: range
) -> Iterator[Finding]:
    conventions = declared.conventions
    if conventions.action.frame != conventions.state.frame:
        return  # axes of two frames may point against each other
    for pair in pairs:
        motions = motion_columns(sample, pair, lags[-1])
        best = max((motions.fit(lag) for lag in lags if lag >= 0), key=lambda fit: fit.explained)
        if best.correlation < -STRONG:
            name = conventions.action.names[pair.action]
            value = (
                f"action {name!r} with correlation {best.correlation:.2f} to the motion of "
                f"{conventions.state.names[pair.state]!r}"
            )
            yield INVERTED_ACTION.found(DATASET, value)
