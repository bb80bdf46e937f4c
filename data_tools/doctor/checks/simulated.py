"""The exact test of pairing, where the simulator's own states lie beside the observations."""

from collections.abc import Iterator, Sequence
from typing import Final, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from data_tools.doctor.checks.recording import FloatArray, Recording
from data_tools.finding import DATASET, Rule, Told, not_checked

# Observations may be float32; a joint that moves does so by more between two steps.
TOLERANCE: Final = 1e-5
MIN_COLUMNS: Final = 2
MIN_MOTION: Final = 1e-2

SHIFTED_OBSERVATIONS = Rule(
    name="shifted_observations",
    severity="error",
    sentence="Observations equal the simulator's states of the next step: pairs are shifted.",
    threshold="observations that equal the simulator's states of their own step",
    remedy="Pair each observation with the next action (action_shift in the layout).",
)
RULES = (SHIFTED_OBSERVATIONS,)


@runtime_checkable
class HasSimulatorStates(Protocol):
    """An episode that kept the simulator's states, as robomimic, LIBERO and RoboCasa files do."""

    def simulator_states(self) -> npt.NDArray[np.floating] | None:
        """float[t, n], the flattened state of the simulator when action t was taken, or None."""


def check_simulator_states(sample: Sequence[Recording]) -> Iterator[Told]:
    """Observations that equal the simulator's states one step off, to the last bit of float32."""
    shifts = []
    for recording in sample:
        episode = recording.episode
        states = episode.simulator_states() if isinstance(episode, HasSimulatorStates) else None
        if states is not None and len(states) == len(recording.state):
            shifts.append((exact_shift(recording.state, np.asarray(states)), recording.name))
        else:
            why = "no states of a simulator were kept"
            yield not_checked(recording.name, why, SHIFTED_OBSERVATIONS)
    found = [(shift, name) for shift, name in shifts if shift]
    if found:
        shift, name = found[0]
        value = (
            f"a shift of {shift:+d} steps in {len(found)} of {len(shifts)} episodes, e.g. {name}"
        )
        yield SHIFTED_OBSERVATIONS.found(DATASET, value)


def exact_shift(observed: FloatArray, states: npt.NDArray[np.floating]) -> int | None:
    """K in -2..2 so that observed[t] == states[t + k] for all t; None where no k or several fit.

    No column needs a name: whichever moving columns of the observation equal a column of the
    simulator's state at one k, and at no other, decide; at least two of them, and all alike.

    Args:
        observed: float64[t, s], the recorded state of the robot.
        states: float[t, n], the simulator's.
    """
    moving = [column for column in observed.T if np.ptp(column) > MIN_MOTION]
    votes = [
        [shift for shift in range(-2, 3) if _equals_any(column, states, shift)] for column in moving
    ]
    decided = [vote[0] for vote in votes if len(vote) == 1]
    if len(decided) < MIN_COLUMNS or len(set(decided)) != 1:
        return None
    return decided[0]


def _equals_any(column: FloatArray, states: npt.NDArray[np.floating], shift: int) -> bool:
    start, end = max(0, -shift), min(len(column), len(states) - shift)
    if end - start < 2:
        return False
    differences = np.abs(states[start + shift : end + shift] - column[start:end, None])
    return bool((differences.max(axis=0) <= TOLERANCE).any())
