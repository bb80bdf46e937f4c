"""Which action is executed when: executors own the queue of actions between policy and robot.

Delays are counted in actions. A chunk is predicted from what was seen at one step and arrives at a
later one; its action i is meant for step `observed_at + i`, so those of the steps gone by are never
executed.

To add one (an average of overlapping chunks, real-time chunking): keep what `push` gives you, tell
in `num_ready` how many actions may be executed before the next chunk must be there, and hand them
out in `pop`. What a sampler has to know of promised actions belongs into the SampleRequest.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from policy_ft.errors import UserError, describe

FloatArray = npt.NDArray[np.float32]


class Executor(Protocol):
    """The queue of actions of one robot or environment."""

    @property
    def replan_steps(self) -> int:
        """Actions of a chunk that are executed before the policy looks again."""

    @property
    def num_ready(self) -> int:
        """Actions that can be executed before another chunk is needed."""

    def reset(self, seed: int) -> None:
        """Forgets everything: an episode begins.

        Args:
            seed: of the episode, for executors that draw anything.
        """

    def push(self, chunk: FloatArray, observed_at: int, now: int) -> None:
        """Takes a new chunk.

        Args:
            chunk: float32[h, A], in the robot's own units.
            observed_at: the step whose observation it was predicted from.
            now: the step that is executed next.

        Raises:
            UserError: the chunk arrives too late to be used, or is shorter than what is executed.
        """

    def pop(self, count: int) -> FloatArray:
        """float32[n, A], the next actions: `count` of them, or as many as are ready."""


@dataclass
class RecedingHorizon:
    """The first actions of each chunk, and then the next chunk.

    Example: chunks of 8 actions, 3 of them executed. Seen at step 10 and there at step 12, a chunk
    gives its actions 2, 3 and 4 to the steps 12, 13 and 14.

    Attributes:
        replan_steps: actions executed before the policy looks again.
    """

    replan_steps: int
    _queue: list[FloatArray] = field(default_factory=list)

    @property
    def num_ready(self) -> int:
        """Actions of the present chunk that are left."""
        return len(self._queue)

    def reset(self, seed: int) -> None:
        """Empties the queue."""
        self._queue = []

    def push(self, chunk: FloatArray, observed_at: int, now: int) -> None:
        """Replaces what is left by the new chunk's actions for the steps from `now` on."""
        delay, horizon = now - observed_at, len(chunk)
        if not 1 <= self.replan_steps <= horizon:
            expected = f"1 to {horizon}, the actions the policy predicts at a time"
            remedy = f"Set replan_steps to at most {horizon}."
            raise UserError(describe("replan_steps", str(self.replan_steps), expected, remedy))
        if not 0 <= delay <= horizon - self.replan_steps:
            raise UserError(
                describe(
                    "delay",
                    f"{delay} steps from observation (step {observed_at}) to arrival (step {now})",
                    f"0 to {horizon - self.replan_steps}: of {horizon} actions {self.replan_steps} "
                    "are executed after those that are late",
                    "Execute fewer actions of a chunk (replan_steps), or make the policy faster.",
                )
            )
        self._queue = list(chunk[delay : delay + self.replan_steps])

    def pop(self, count: int) -> FloatArray:
        """float32[n, A], the next actions."""
        taken, self._queue = self._queue[:count], self._queue[count:]
        return np.stack(taken) if taken else np.zeros((0, 0), np.float32)
