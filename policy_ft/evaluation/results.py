"""What an evaluation writes down."""

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from policy_ft.errors import UserError, describe
from policy_ft.evaluation.statistics import (
    PairedComparison,
    SuccessRate,
    compare_paired,
    success_rate,
)


class EpisodeRecord(BaseModel):
    """What came of one episode."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(description="Seed the environment was reset with.")
    success: bool = Field(description="Whether the commanded goal was reached at some step.")
    success_final: bool = Field(description="Whether it was reached at the last step.")
    success_any: bool = Field(
        description="Whether some object met the goal, commanded or not: control without grounding."
    )
    num_steps: int = Field(description="Control steps executed.")
    family: str = Field(description="Family of the task; '' when the environment names none.")
    target: str = Field(description="The commanded object; '' when the environment names none.")
    instruction: str = Field(description="The task as a sentence.")


class EvaluationResult(BaseModel):
    """The episodes of one policy in one environment, and how they were run."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    env: str = Field(description="Gymnasium id.")
    env_args: dict[str, JsonValue] = Field(description="Keyword arguments of gymnasium.make.")
    num_envs: int = Field(description="Environments that shared one call of the policy.")
    replan_steps: int = Field(description="Actions executed before the policy looked again.")
    num_sampling_steps: int = Field(description="Euler steps of the flow.")
    wall_s: float = Field(description="Duration of all episodes together, in seconds.")
    episodes: tuple[EpisodeRecord, ...] = Field(description="One record a seed, in seed order.")
    actions: tuple[npt.NDArray[np.float32], ...] = Field(
        (), exclude=True, repr=False, description="float32[t, a] of each episode; not in the JSON."
    )

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each episode."""
        return tuple(episode.seed for episode in self.episodes)

    @property
    def success(self) -> SuccessRate:
        """Success on the commanded goal."""
        return success_rate([episode.success for episode in self.episodes])

    @property
    def success_final(self) -> SuccessRate:
        """Success that still held at the last step."""
        return success_rate([episode.success_final for episode in self.episodes])

    @property
    def success_any(self) -> SuccessRate:
        """Success with any object, commanded or not."""
        return success_rate([episode.success_any for episode in self.episodes])

    def by_family(self) -> dict[str, "EvaluationResult"]:
        """The same result split by task family, families in alphabetic order."""
        families = sorted({episode.family for episode in self.episodes})
        return {family: self._only(family) for family in families}

    def summary(self) -> dict[str, Any]:
        """Plain values for a JSON file: success rates, success by family, settings, every episode.

        `EvaluationResult.model_validate` reads back what is under "evaluation".
        """
        return {
            **self.success.model_dump(),
            "success_final": self.success_final.model_dump(),
            "success_any": self.success_any.model_dump(),
            "families": {
                family: result.success.model_dump() for family, result in self.by_family().items()
            },
            "evaluation": self.model_dump(mode="json"),
        }

    def _only(self, family: str) -> "EvaluationResult":
        kept = [index for index, each in enumerate(self.episodes) if each.family == family]
        return self.model_copy(
            update={
                "episodes": tuple(self.episodes[index] for index in kept),
                "actions": tuple(self.actions[index] for index in kept if self.actions),
            }
        )


def compare_results(first: EvaluationResult, second: EvaluationResult) -> PairedComparison:
    """What two evaluations of the same episodes say about their policies.

    Raises:
        UserError: the evaluations differ in environment, its settings or seeds, so their episodes
            are not pairs.
    """
    faults = [
        describe(
            f"second evaluation, {name}",
            repr(theirs),
            f"{ours!r} as in the first",
            "Evaluate both policies in the same environment on the same seeds.",
        )
        for name in ("env", "env_args", "seeds")
        if (ours := getattr(first, name)) != (theirs := getattr(second, name))
    ]
    if faults:
        raise UserError(faults)
    return compare_paired(
        [episode.success for episode in first.episodes],
        [episode.success for episode in second.episodes],
    )
