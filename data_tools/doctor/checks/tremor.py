"""Shaky episodes: motion faster than hands move, held against the other episodes.

Arms that a person moves hardly turn back above 3 Hz; a tremor, a loose joint or a noisy sensor do.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from data_tools.doctor.checks.recording import NO_RATE, Declared, FloatArray, Recording
from data_tools.finding import DATASET, Rule, Told, not_checked

# A shake turns back within half a period of this; what is slower is meant.
SLOWEST_HZ: Final = 4.0
# What goes on longer than this is the motion that is shaken.
WINDOW_S: Final = 0.2
# A column shakes where it turns over twice in so many of the blocks of this many seconds and steps:
# one blow, or a target that jumps now and then, is in few of them.
BLOCK_S: Final = 0.5
MIN_BLOCK: Final = 8
SHARE: Final = 0.7
# Below this rate nothing faster than a hand can be seen.
MIN_HZ: Final = 10.0
# What a sensor's noise and quick hands may do [rad, m].
FLOOR: Final = 2e-3
MAX_TIMES: Final = 4.0
MIN_EPISODES: Final = 5
MIN_BLOCKS: Final = 6

SHAKY_EPISODE = Rule(
    name="shaky_episode",
    severity="warning",
    sentence="A column shakes in an episode, faster than hands move and more than in the others.",
    threshold=(
        f"above {SLOWEST_HZ:g} Hz at most {MAX_TIMES:g} times what is usual and {FLOOR:g} rad or m"
    ),
    remedy="Look at it (robot-data view): a loose part, a noisy sensor or an unsure operator. "
    "Leave it out if the shaking is not meant.",
)
RULES = (SHAKY_EPISODE,)


def shaking(recording: Recording, declared: Declared) -> Mapping[str, float] | None:
    """How much each angle and position shakes [rad, m], of the state and of targets.

    Half of what it goes to and fro in SHARE of the time. None where the rate is unknown or too low,
    and of an episode that is too short.
    """
    rate = declared.control_hz
    if rate is None or rate < MIN_HZ or recording.num_steps < MIN_BLOCKS * _block(rate):
        return None
    return {label: _to_and_fro(rows, rate) for label, rows in _columns(recording, declared).items()}


def _columns(recording: Recording, declared: Declared) -> dict[str, FloatArray]:
    """Words for each column that is looked at, and its float64[t]."""
    known = {*declared.roles.angles, *declared.roles.positions}
    conventions = declared.conventions
    columns = {
        f"state {conventions.state.names[column]!r}": recording.state[:, column]
        for column in sorted(known)
    }
    for action, state in declared.roles.pairs:
        alike = conventions.action.units[action] == conventions.state.units[state]
        if state in known and alike and conventions.action.references[action] == "absolute":
            columns[f"action {conventions.action.names[action]!r}"] = recording.actions[:, action]
    return columns


def _block(rate: float) -> int:
    """Steps of a block; of fewer than MIN_BLOCK even noise hardly turns over twice."""
    return max(MIN_BLOCK, round(BLOCK_S * rate))


def _to_and_fro(column: FloatArray, rate: float) -> float:
    """Half the second largest quick swing in a block of BLOCK_S; in SHARE of the blocks it is more.

    Args:
        column: float64[t].
        rate: steps a second.
    """
    half = max(1, round(WINDOW_S * rate / 2))
    means = np.convolve(column, np.full(2 * half + 1, 1 / (2 * half + 1)), mode="valid")
    fast = column[half:-half] - means
    steps = np.diff(fast)
    moving = np.flatnonzero(steps)
    # the places where it turns back
    turns = moving[1:][np.diff(np.sign(steps[moving])) != 0]
    swings = np.abs(np.diff(fast[turns]))
    is_quick = np.diff(turns) <= max(1.0, rate / (2 * SLOWEST_HZ))
    size = _block(rate)
    num_blocks = len(fast) // size
    seconds = np.zeros(num_blocks)
    blocks = turns[1:] // size
    for block in range(num_blocks):
        quick = np.sort(swings[is_quick & (blocks == block)])
        seconds[block] = quick[-2] if len(quick) > 1 else 0.0
    return float(np.quantile(seconds, 1 - SHARE)) / 2


def check_shaking(
    declared: Declared, shakings: Mapping[str, Mapping[str, float]]
) -> Iterator[Told]:
    """Episodes of which a column shakes far more than it does in most others.

    Args:
        declared: the control rate.
        shakings: episode name -> `shaking`, of the episodes where it is known.
    """
    if declared.control_hz is None or declared.control_hz < MIN_HZ:
        why = f"control_hz is below {MIN_HZ:g}" if declared.control_hz else NO_RATE
        yield not_checked(DATASET, why, SHAKY_EPISODE)
    elif len(shakings) < MIN_EPISODES:
        why = f"fewer than {MIN_EPISODES} episodes are long enough"
        yield not_checked(DATASET, why, SHAKY_EPISODE)
    elif not next(iter(shakings.values())):
        why = "no state column is known as an angle or a position"
        yield not_checked(DATASET, why, SHAKY_EPISODE)
    else:
        labels = next(iter(shakings.values()))
        usual = {
            label: max(FLOOR, float(np.median([each[label] for each in shakings.values()])))
            for label in labels
        }
        for name, found in shakings.items():
            worst = max(found, key=lambda label: found[label] / usual[label])
            if found[worst] > MAX_TIMES * usual[worst]:
                value = (
                    f"{worst} shaking by {found[worst]:.2g}, where {usual[worst]:.2g} is usual at "
                    "most"
                )
                yield SHAKY_EPISODE.found(name, value)
