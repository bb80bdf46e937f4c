"""What is measured of a policy while it is trained, and what of it selects the best checkpoint."""

from collections.abc import Callable
from dataclasses import dataclass

from policy_ft.policy import Policy
from policy_ft.training.selection import Best, Metric


@dataclass(frozen=True)
class Measure:
    """Something that is measured every so many steps, with the weights that are then saved.

    Attributes:
        kind: of its records in the metrics, 'validation' or 'rollout'.
        every: train steps between two; the last step is always measured.
        run: policy -> finite numbers by name, on every process alike.
        metric: under which the best checkpoint is chosen by it; None where something else chooses.
        value: which of the numbers that is.
        saves_first: whether a due step is saved before, as what is measured may fail.
    """

    kind: str
    every: int
    run: Callable[[Policy], dict[str, float]]
    metric: Metric | None = None
    value: str = ""
    saves_first: bool = False

    def candidate(self, train_step: int, values: dict[str, float]) -> Best | None:
        """This step as the best one so far, if this is what chooses it."""
        return None if self.metric is None else Best(train_step, self.metric, values[self.value])
