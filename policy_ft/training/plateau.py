"""Learning rates that fall when a measure stops to improve."""

from collections.abc import Mapping

from pydantic import JsonValue
from torch import Tensor

from policy_ft.training.hooks import Hook, RunView


class Plateau(Hook):
    """Scales every rate when `patience` measurements in a row found nothing better.

    Args:
        kind: 'validation' watches its loss, 'rollout' the success rate.
        factor: of the rates, between 0 and 1.
        patience: measurements without a better one.
    """

    name = "plateau"

    def __init__(self, kind: str, factor: float, patience: int) -> None:
        self._kind, self._factor, self._patience = kind, factor, patience
        self._best: float | None = None
        self._num_worse = 0

    def begin(self, run: RunView) -> None:
        """Holds on to the run, whose rates it scales."""
        self._run = run

    def after_measure(self, train_step: int, kind: str, values: Mapping[str, float]) -> None:
        """Compares with the best so far."""
        if kind != self._kind:
            return
        value = -values["loss"] if kind == "validation" else values["success_rate"]
        if self._best is None or value > self._best:
            self._best, self._num_worse = value, 0
            return
        self._num_worse += 1
        if self._num_worse == self._patience:
            self._run.scale_rates(self._factor)
            self._run.say(f"step {train_step}: nothing better, rates times {self._factor}")
            self._num_worse = 0

    def state_dict(self) -> Mapping[str, Tensor | JsonValue]:
        """The best so far, and how many since were worse."""
        return {"best": self._best, "num_worse": self._num_worse}

    def load_state_dict(self, state: Mapping[str, Tensor | JsonValue]) -> None:
        """Goes on counting."""
        self._best, self._num_worse = state["best"], state["num_worse"]  # type: ignore[assignment]
