"""Commands clipped by the recorder: they rest at a bound that nobody declared, the robot does not.

A plateau alone says nothing: waypoints, poses at rest and the limits of a joystick make them, too.
But a robot that goes on beyond a target that stands still was told more than was recorded.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from data_tools.doctor.checks.lags import spread_lags
from data_tools.doctor.checks.recording import Declared, FloatArray, Recording
from data_tools.doctor.checks.references import target_columns
from data_tools.doctor.checks.roles import Pair
from data_tools.doctor.checks.spreads import AT_LIMIT
from data_tools.finding import DATASET, Rule, Told, not_checked

# Steps at one extreme value, bit for bit, within an episode; so many of them in all.
SHORTEST_PLATEAU: Final = 3
MIN_STEPS: Final = 12
MIN_PLATEAUS: Final = 2
# How far beyond the bound the robot goes: of how far it is from its targets elsewhere (the usual
# and the largest but for 1 %), and of the way of the column.
MIN_TIMES: Final = 1.0
MIN_SHARE: Final = 0.02
MOST: Final = 0.99
# In so many steps of the plateaus.
MIN_BEYOND: Final = 0.5

CLIPPED_TARGETS = Rule(
    name="clipped_targets",
    severity="warning",
    sentence="Targets stand still at a bound that is not declared, while the robot goes beyond it.",
    threshold="targets as far as the robot goes",
    remedy="The recorder or a conversion clipped them: record with wider limits, or take the state "
    "of the next step as the target (robot-data relabel --actions next-state).",
)
RULES = (CLIPPED_TARGETS,)


class _Plateaus(NamedTuple):
    """Where targets are at one bound: bool[t] of each episode, and the number of plateaus.

    Attributes:
        flags: in plateaus that neither begin nor end the episode, where robots rest.
        elsewhere: away from the bound.
        number: of plateaus.
    """

    flags: list[npt.NDArray[np.bool_]]
    elsewhere: list[npt.NDArray[np.bool_]]
    number: int


def check_saturation(
    declared: Declared, sample: Sequence[Recording], latest: int
) -> Iterator[Told]:
    """Columns of targets that were cut off where the robot went further.

    Args:
        declared: names, units, references and declared ranges.
        sample: enough episodes to judge all of them together.
        latest: the longest delay that a robot may have, in steps.
    """
    action, state = declared.conventions.action, declared.conventions.state
    pairs = [
        pair
        for pair in declared.roles.pairs
        if action.references[pair.action] == "absolute"
        and action.units[pair.action] == state.units[pair.state]
    ]
    if len(pairs) < len(action.names) - len(declared.roles.action_grippers):
        why = "only targets are looked at whose names and units tell the state that they move"
        yield not_checked(DATASET, why, CLIPPED_TARGETS)
    for pair in pairs:
        values = np.concatenate([each.actions[:, pair.action] for each in sample])
        limits = action.low[pair.action], action.high[pair.action]
        for sign, declared_limit in ((-1.0, limits[0]), (1.0, limits[1])):
            bound = float((sign * values).max() * sign)
            near = AT_LIMIT * float(np.ptp(values))
            if near == 0 or abs(bound - declared_limit) <= near:
                continue
            plateaus = _plateaus(sample, pair, bound)
            num_steps = sum(int(flags.sum()) for flags in plateaus.flags)
            if plateaus.number < MIN_PLATEAUS or num_steps < MIN_STEPS:
                continue
            beyond, lag = _beyond(sample, pair, plateaus, sign, latest)
            if beyond > MIN_SHARE * float(np.ptp(values)):
                value = (
                    f"action {action.names[pair.action]!r} at {bound:.4g} in {num_steps} steps of "
                    f"{plateaus.number} plateaus, where {lag} steps later state "
                    f"{state.names[pair.state]!r} goes {beyond:.2g} beyond it"
                )
                yield CLIPPED_TARGETS.found(DATASET, value)


def _plateaus(sample: Sequence[Recording], pair: Pair, bound: float) -> _Plateaus:
    flags, elsewhere, number = [], [], 0
    for each in sample:
        values = each.actions[:, pair.action]
        found = np.zeros(len(values), dtype=bool)
        changes = np.flatnonzero(np.diff(values) != 0) + 1
        for start, end in pairwise(changes):
            if values[start] == bound and end - start >= SHORTEST_PLATEAU:
                found[start:end] = True
                number += 1
        flags.append(found)
        elsewhere.append(values != bound)
    return _Plateaus(flags, elsewhere, number)


def _beyond(
    sample: Sequence[Recording], pair: Pair, plateaus: _Plateaus, sign: float, latest: int
) -> tuple[float, int]:
    """(how far the robot goes beyond the bound, the delay); 0 where it does so elsewhere, too."""
    columns = target_columns(sample, pair, latest)
    lag = max(spread_lags(0, latest), key=lambda each: columns.fit(each).correlation)
    inside: list[FloatArray] = []
    outside: list[FloatArray] = []
    for each, *found in zip(sample, plateaus.flags, plateaus.elsewhere, strict=True):
        length = max(0, each.num_steps - lag)
        flags, elsewhere = (where[:length] for where in found)
        off = sign * (each.state[lag:, pair.state] - each.actions[:length, pair.action])
        if elsewhere.any():
            # a leader and its follower may differ by a constant
            off = off - np.median(off[elsewhere])
            inside.append(off[flags])
            outside.append(off[elsewhere])
    usual = float(np.quantile(np.concatenate(outside), MOST)) if outside else np.inf
    on = np.concatenate(inside) if inside else np.zeros(1)
    is_beyond = on > MIN_TIMES * usual
    return (float(on.max()), lag) if is_beyond.mean() > MIN_BEYOND else (0.0, lag)
