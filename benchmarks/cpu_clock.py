"""CPU time of each step of a run, which other programs on the machine hardly change."""

import time
from itertools import pairwise
from statistics import median

from policy_ft.training.hooks import Hook


class CpuClock(Hook):
    """A hook that notes the CPU time of the process after every step."""

    name = "cpu_clock"

    def __init__(self) -> None:
        self._times: list[float] = []

    def after_step(self, train_step: int) -> dict[str, float]:
        """Notes it."""
        self._times.append(time.process_time())
        return {}

    def step_s(self, first: int = 2, last: int | None = None) -> float:
        """Median CPU seconds of the steps `first` to `last`, counted from 1; the first is not."""
        times = self._times[first - 1 : last]
        return median(b - a for a, b in pairwise(times))
