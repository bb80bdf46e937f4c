"""What happens when a measure stops to improve: rates fall, a phase begins, the run ends."""

from collections.abc import Mapping

from pydantic import JsonValue
from torch import Tensor

from policy_ft.config.measures import Standstill
from policy_ft.training.hooks import Hook, RunView


class Watch(Hook):
    """Does something when a measure has found nothing better for a while, and then waits again.

    Args:
        settings: which measure, and how long.
    """

    works_on_shards = True

    def __init__(self, settings: Standstill) -> None:
        self._settings = settings
        self._best: float | None = None
        self._num_worse = 0

    def begin(self, run: RunView) -> None:
        """Holds on to the run."""
        self._run = run

    def act(self, train_step: int) -> None:
        """What a standstill leads to, after step `train_step`."""
        raise NotImplementedError(
            f"hook {self.name!r}: found no act; expected what a standstill leads to. Write it."
        )

    def after_measure(self, train_step: int, kind: str, values: Mapping[str, float]) -> None:
        """Compares with the best so far."""
        if kind != self._settings.of:
            return
        value = -values["loss"] if kind == "validation" else values["success_rate"]
        if self._best is None or value > self._best:
            self._best, self._num_worse = value, 0
            return
        self._num_worse += 1
        if self._num_worse == self._settings.patience:
            self._num_worse = 0
            self.act(train_step)

    def told(self, train_step: int, what: str) -> str:
        """What people are told of a standstill."""
        measure, patience = self._settings.of, self._settings.patience
        return f"step {train_step}: {patience} measurements by {measure} were no better; {what}"

    def state_dict(self) -> Mapping[str, Tensor | JsonValue]:
        """The best so far, and how many since were worse."""
        return {"best": self._best, "num_worse": self._num_worse}

    def load_state_dict(self, state: Mapping[str, Tensor | JsonValue]) -> None:
        """Goes on counting."""
        self._best, self._num_worse = state["best"], state["num_worse"]  # type: ignore[assignment]


class Plateau(Watch):
    """Scales every rate when a measure stops to improve.

    Args:
        settings: which measure, and how long.
        factor: of the rates, between 0 and 1.
    """

    name = "plateau"

    def __init__(self, settings: Standstill, factor: float) -> None:
        super().__init__(settings)
        self._factor = factor

    def act(self, train_step: int) -> None:
        """Scales the rates."""
        self._run.scale_rates(self._factor)
        self._run.say(self.told(train_step, f"rates times {self._factor}"))


class EarlyStop(Watch):
    """Ends the run when a measure stops to improve."""

    name = "early_stop"

    def act(self, train_step: int) -> None:
        """Asks for the end."""
        patience, measure = self._settings.patience, self._settings.of
        self._run.request_stop(f"{patience} measurements by {measure} were no better")


class PhaseStart(Watch):
    """Begins a phase that waits, once the phase before it has stopped to improve.

    Args:
        settings: which measure, and how long.
        place: of the phase in the plan.
    """

    def __init__(self, settings: Standstill, place: int) -> None:
        super().__init__(settings)
        self.name = f"phase_{place}"
        self._place = place

    def after_measure(self, train_step: int, kind: str, values: Mapping[str, float]) -> None:
        """Watches while the phase before it lasts."""
        if self._run.plan.index_at(train_step) == self._place - 1:
            super().after_measure(train_step, kind, values)

    def act(self, train_step: int) -> None:
        """Begins the phase at the next step."""
        self._run.plan.began[self._place] = train_step
        self._run.say(self.told(train_step, f"phase {self._place} begins"))

    def state_dict(self) -> Mapping[str, Tensor | JsonValue]:
        """What is counted, and when the phase began."""
        return {**super().state_dict(), "began": self._run.plan.began.get(self._place)}

    def load_state_dict(self, state: Mapping[str, Tensor | JsonValue]) -> None:
        """Goes on counting, or in the phase."""
        super().load_state_dict(state)
        if isinstance(began := state["began"], int):
            self._run.plan.began[self._place] = began
