"""Lag in one episode only: a robot that answers its commands at another delay than in the others.

Whatever the robot's delay is, one set-up has one; an episode with another was recorded by another
clock, dropped rows on one side or was put together wrongly.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from data_tools.doctor.checks.recording import NO_RATE, Declared, FloatArray, Recording
from data_tools.finding import DATASET, Rule, Told, not_checked

# Delays either way that are looked at; and so many pairs must be left at the largest.
FARTHEST_S: Final = 1.0
MIN_PAIRS: Final = 30
MIN_MOTION: Final = 1e-3
# Of 1,296 simulated datasets none has an episode 0.1 s and 3 steps off that fits its own delay this
# many times better [ratio of what is left unexplained] than the usual one.
MIN_OFF_S: Final = 0.1
MIN_OFF_STEPS: Final = 3
MIN_TIMES: Final = 2.5
# What must be left unexplained at the usual delay, and explained at the episode's own.
MIN_LEFT: Final = 0.01
MIN_EXPLAINED: Final = 0.5
MIN_EPISODES: Final = 5
# Of two columns' squares, so that columns at rest have no correlation.
TINY: Final = 1e-24
# And how far delays of single episodes mostly spread, in deviations.
MIN_DEVIATIONS: Final = 5.0

ODD_LAG = Rule(
    name="odd_lag",
    severity="warning",
    sentence="In one episode the robot answers its actions at another delay than in the others.",
    threshold=f"within {MIN_OFF_S:g} s and {MIN_OFF_STEPS} steps of the usual delay",
    remedy="Check the clocks of this recording, and that states and actions are of the same rows; "
    "pair them anew, or leave the episode out.",
)
RULES = (ODD_LAG,)


@dataclass(frozen=True)
class LagCurve:
    """How well the actions of an episode explain the motion, so many steps later or earlier.

    Attributes:
        explained: float64[2 * farthest + 1], the mean share over all pairs of columns, from
            `farthest` steps before the action to as many after it.
    """

    explained: FloatArray

    @classmethod
    def of(cls, recording: Recording, declared: Declared) -> Self | None:
        """None where nothing that drives something moves, and of an episode that is too short."""
        farthest = round(declared.steps(FARTHEST_S) or 0)
        if not farthest or recording.num_steps - farthest - 1 < MIN_PAIRS:
            return None
        references = declared.conventions.action.references
        pairs = [
            pair
            for pair in declared.roles.pairs
            if np.ptp(recording.actions[:, pair.action]) > 0
            and np.ptp(recording.state[:, pair.state]) > MIN_MOTION
        ]
        by_kind = {
            is_target: [
                pair for pair in pairs if (references[pair.action] == "absolute") is is_target
            ]
            for is_target in (True, False)
        }
        curves = []
        for is_target, chosen in by_kind.items():
            if chosen:
                x = recording.actions[:, [pair.action for pair in chosen]]
                y = recording.state[:, [pair.state for pair in chosen]]
                curves.append(_explained(x, y if is_target else np.diff(y, axis=0), farthest))
        return cls(np.concatenate(curves, axis=1).mean(axis=1)) if curves else None

    @property
    def best(self) -> int:
        """The delay that explains most, in steps."""
        return int(np.argmax(self.explained)) - len(self.explained) // 2

    def left(self, lag: int) -> float:
        """The share of the variance that this delay leaves unexplained."""
        return 1.0 - float(self.explained[lag + len(self.explained) // 2])


def _explained(x: FloatArray, y: FloatArray, farthest: int) -> FloatArray:
    """float64[2 * farthest + 1, p]: squared correlation of x[t] with y[t + lag], of each column.

    0 where it is negative: half a period later motion that repeats itself is the other way round.

    Args:
        x: float64[t, p].
        y: float64[t or t - 1, p].
        farthest: the largest lag.
    """
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    size = len(x) + len(y)
    spectrum = np.conj(np.fft.rfft(x, size, axis=0)) * np.fft.rfft(y, size, axis=0)
    lags = np.arange(-farthest, farthest + 1)
    products = np.fft.irfft(spectrum, size, axis=0)[lags % size]
    first = np.maximum(0, -lags)
    end = np.minimum(len(x), len(y) - lags)
    count = (end - first)[:, None]
    sums = {}
    for name, array, start, stop in (
        ("x", x, first, end),
        ("y", y, first + lags, end + lags),
    ):
        for power in (1, 2):
            total = np.concatenate([np.zeros((1, x.shape[1])), np.cumsum(array**power, axis=0)])
            sums[name, power] = total[stop] - total[start]
    shared = products - sums["x", 1] * sums["y", 1] / count
    spreads = [sums[each, 2] - sums[each, 1] ** 2 / count for each in ("x", "y")]
    scale = spreads[0] * spreads[1]
    return np.where(scale > TINY, np.maximum(shared, 0.0) ** 2 / np.maximum(scale, TINY), 0.0)


def check_lags(declared: Declared, curves: Mapping[str, LagCurve]) -> Iterator[Told]:
    """Episodes whose delay is clearly another than that of most others.

    Args:
        declared: the control rate.
        curves: episode name -> curve, of the episodes where something moves.
    """
    rate = declared.control_hz
    if rate is None or len(curves) < MIN_EPISODES:
        why = f"fewer than {MIN_EPISODES} episodes have pairs of columns that move and are "
        yield not_checked(DATASET, f"{why}long enough" if rate else NO_RATE, ODD_LAG)
        return
    lags = np.array([curve.best for curve in curves.values()])
    usual = int(np.median(lags))
    spread = float(np.median(np.abs(lags - usual)))
    limit = max(MIN_OFF_S * rate, MIN_OFF_STEPS, MIN_DEVIATIONS * spread)
    for name, curve in curves.items():
        left = min(curve.left(lag) for lag in (usual - 1, usual, usual + 1) if _is_in(curve, lag))
        own = curve.left(curve.best)
        is_clear = left > max(MIN_LEFT, MIN_TIMES * own) and own < 1 - MIN_EXPLAINED
        if abs(curve.best - usual) >= limit and is_clear:
            value = (
                f"a delay of {curve.best} steps ({curve.best / rate:.2g} s) explains "
                f"{1 - own:.0%} of the motion, and the usual {usual} steps at most {1 - left:.0%}"
            )
            yield ODD_LAG.found(name, value)


def _is_in(curve: LagCurve, lag: int) -> bool:
    return abs(lag) <= len(curve.explained) // 2
