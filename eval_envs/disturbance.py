"""Mistakes for demonstrations to recover from: what is executed is not what the expert asked for.

The recorded label stays the expert's clean action at the visited state, so a policy learns the way
back and not the mistake. Source of the idea: M. Laskey et al. (2017), DART: Noise Injection for
Robust Imitation Learning.
"""

import numpy as np
import numpy.typing as npt

from data_tools.conventions import ActionSpec
from data_tools.errors import UserError, describe

_JITTER = 0.25
_BURST_CHANCE = 0.03
_SLIP_CHANCE = 0.03
_LONGEST = 3


class Disturbance:
    """Turns clean actions into executed ones, with a memory of its own for mistakes that last.

    At every step the motion columns get Gaussian noise (standard deviation 0.25 of half their
    range). At each step there is a 3 % chance of a burst, one to three steps in a random direction,
    and a 3 % chance of one to three steps with the grippers commanded the wrong way. `strength`
    scales all three; 0 leaves actions alone.

    Args:
        random: the source of all its randomness.
        action: layout of the action, which tells grippers from motion and the range of each column.
        strength: 0 to 2.

    Raises:
        UserError: strength out of range.
    """

    def __init__(self, random: np.random.Generator, action: ActionSpec, strength: float) -> None:
        if not 0.0 <= strength <= 2.0:
            raise UserError(
                describe("noise", repr(strength), "0 (none) to 2", "Use 1 for the usual amount.")
            )
        self._random, self._strength = random, strength
        self._low, self._high = np.array(action.low), np.array(action.high)
        self._is_gripper = np.isin(action.names, [gripper.column for gripper in action.grippers])
        self._burst = np.zeros(len(self._low))
        self._burst_left = self._slip_left = 0

    def __call__(self, action: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """float32[a] to execute in place of this clean action."""
        self._draw_mistakes()
        jitter = (
            self._random.normal(0.0, _JITTER * self._strength, len(action))
            * (self._high - self._low)
            / 2
        )
        moved = self._burst if self._burst_left else action + jitter
        commanded = self._low + self._high - action if self._slip_left else action
        self._burst_left, self._slip_left = (
            max(self._burst_left - 1, 0),
            max(self._slip_left - 1, 0),
        )
        executed = np.where(self._is_gripper, commanded, moved)
        return np.clip(executed, self._low, self._high).astype(np.float32)

    def _draw_mistakes(self) -> None:
        burst_starts, slip_starts = self._random.random(2) < self._strength * np.array(
            [_BURST_CHANCE, _SLIP_CHANCE]
        )
        direction, lengths = (
            self._random.uniform(self._low, self._high),
            self._random.integers(1, _LONGEST + 1, 2),
        )
        if burst_starts and not self._burst_left:
            self._burst, self._burst_left = direction, int(lengths[0])
        if slip_starts and not self._slip_left:
            self._slip_left = int(lengths[1])
