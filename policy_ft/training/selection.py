"""Which checkpoint is the best one: by rollouts where there are any, else by validation loss."""

from dataclasses import dataclass
from typing import Literal, Self

Metric = Literal["rollout_success_rate", "validation_loss"]


@dataclass(frozen=True)
class Best:
    """The best step so far and the number that says so."""

    train_step: int
    metric: Metric
    value: float

    def as_json(self) -> dict[str, int | str | float]:
        """Plain values for a JSON file."""
        return {"train_step": self.train_step, "metric": self.metric, "value": self.value}

    @classmethod
    def from_json(cls, saved: dict[str, int | str | float]) -> Self:
        """The inverse of `as_json`."""
        return cls(**saved)  # type: ignore[arg-type]


def better(best: Best | None, candidate: Best) -> Best:
    """The better of two steps; the earlier one when they are equal.

    Success in rollouts is what a policy is for. Validation loss stands in when a run has no
    rollouts: it warns of over-fitting, but a checkpoint chosen by it can be 50-100 % worse than the
    best (robomimic, Mandlekar et al. 2021).
    """
    if best is None or best.metric != candidate.metric:  # rollouts were turned on or off
        return candidate
    if candidate.metric == "rollout_success_rate":
        return candidate if candidate.value > best.value else best
    return candidate if candidate.value < best.value else best
