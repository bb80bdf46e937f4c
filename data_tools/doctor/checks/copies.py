"""Columns that hold the numbers of another column, though they should be something else.

One quantity may lie in a file twice, and two fingers of one gripper move as one. So a copy is told
only where units, roles, sides or places in one vector say that the two are different quantities;
and of two actions only where the state columns that they drive move differently.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Final

import numpy as np

from data_tools.doctor.checks.recording import Declared, FloatArray, Recording
from data_tools.doctor.checks.roles import LENGTHS, RADIANS, numbers_in, sides, vector_name
from data_tools.finding import DATASET, Finding, Rule

# Share of a column's span that rounding, or noise added to a copy, may change.
TOLERANCE: Final = 1e-5
# Two columns further from a line than this are not looked at value by value.
MIN_CORRELATION: Final = 1 - 1e-6
# Columns of fewer different values (switches, flags) may be equal by chance.
MIN_VALUES: Final = 20
# States that move more alike than this may be asked for the same.
MAX_ALIKE: Final = 0.95
# Pairs that a finding names.
MAX_TOLD: Final = 4

COPIED_COLUMN = Rule(
    name="copied_column",
    severity="warning",
    sentence="Two columns of different quantities hold the same numbers.",
    threshold="numbers of its own in each column",
    remedy="Find out which was recorded wrongly; correct it, or name the columns without it in a "
    "sidecar's layout.state (or .actions). Nothing, if a mechanism couples the two.",
)
RULES = (COPIED_COLUMN,)


def check_copies(declared: Declared, sample: Sequence[Recording]) -> Iterator[Finding]:
    """Columns that equal another one to rounding in every step, or are a multiple of it.

    Args:
        declared: names and units of the columns.
        sample: enough episodes to judge all of them together.
    """
    conventions = declared.conventions
    states = np.concatenate([each.state for each in sample])
    copied = [
        _told(conventions.state.names, one, other, factor)
        for one, other, factor in sorted(_copies(states), key=lambda each: each[2] != 1.0)
        if _are_different_states(declared, one, other, is_equal=factor == 1.0)
    ]
    yield from _found("state", copied, len(states))
    driven = {pair.action: states[:, pair.state] for pair in declared.roles.pairs}
    copied = [
        _told(conventions.action.names, one, other, factor)
        for one, other, factor in _copies(np.concatenate([each.actions for each in sample]))
        if factor == 1.0
        and {one, other} <= driven.keys()
        # a resting column has no correlation, and moves as nothing else does
        and not _correlation(driven[one], driven[other]) > MAX_ALIKE
    ]
    yield from _found("actions", copied, len(states))


def _told(names: Sequence[str], one: int, other: int, factor: float) -> str:
    times = "" if factor == 1.0 else f" times {factor:.4g}"
    return f"{names[other]!r} is {names[one]!r}{times}"


def _found(part: str, copied: Sequence[str], num_steps: int) -> Iterator[Finding]:
    if copied:
        more = f" and {len(copied) - MAX_TOLD} more" if len(copied) > MAX_TOLD else ""
        told = f"{', '.join(copied[:MAX_TOLD])}{more}"
        yield COPIED_COLUMN.found(DATASET, f"in all {num_steps} steps of the {part} {told}")


def _copies(columns: FloatArray) -> Iterator[tuple[int, int, float]]:
    """(column, column, factor) of each two of float[t, d] that lie on one line, to TOLERANCE.

    The factor is 1 exactly where the two are equal.
    """
    moving = [i for i, each in enumerate(columns.T) if len(np.unique(each)) >= MIN_VALUES]
    if len(moving) < 2:
        return
    correlations = np.atleast_2d(np.corrcoef(columns[:, moving], rowvar=False))
    for (i, one), (j, other) in combinations(enumerate(moving), 2):
        if not abs(correlations[i, j]) > MIN_CORRELATION:
            continue
        x, y = columns[:, one], columns[:, other]
        limit = TOLERANCE * np.ptp(y)
        if np.abs(x - y).max() <= limit:
            yield one, other, 1.0
            continue
        factor = float((x - x.mean()) @ (y - y.mean()) / ((x - x.mean()) ** 2).sum())
        if np.abs(y - y.mean() - factor * (x - x.mean())).max() <= limit:
            yield one, other, factor


def _correlation(x: FloatArray, y: FloatArray) -> float:
    """Of two columns; 0 where one rests."""
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 0 else 0.0


def _are_different_states(declared: Declared, one: int, other: int, *, is_equal: bool) -> bool:
    """Whether anything says that these are two quantities.

    Multiples of each other are different only where one is a length and the other an angle: of
    other units, one may have been computed from the other.
    """
    roles, state = declared.roles, declared.conventions.state
    grippers = {one, other} & {*roles.state_grippers}
    kinds = {_kind(state.units[column]) for column in (one, other)}
    if len(grippers) == 2:
        return False
    if not is_equal:
        return kinds == {"length", "angle"} and not grippers
    if grippers or (len(kinds) == 2 and "" not in kinds):
        return True
    names = state.names[one], state.names[other]
    arms = [sides(name) for name in names]
    if all(arms) and arms[0] != arms[1]:
        return True
    # 'joint_1' and 'joint_2' lie in one vector; 'joint_1' and 'panda_joint1' may be one joint
    is_numbered = any(numbers_in(name) for name in names)
    are_joints = {one, other} <= {*roles.joints}
    return vector_name(names[0]) == vector_name(names[1]) or (are_joints and not is_numbered)


def _kind(unit: str) -> str:
    """The physical kind of a unit; '' where it has none."""
    if unit in LENGTHS:
        return "length"
    if unit in RADIANS:
        return "angle"
    return "" if unit == "1" else unit
