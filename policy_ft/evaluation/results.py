"""What an evaluation writes down."""

from itertools import zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from eval_envs.episodes import EpisodeSpec
from eval_envs.playing import Lost
from policy_ft.errors import describe, raise_faults
from policy_ft.evaluation.statistics import (
    PairedComparison,
    SuccessRate,
    compare_paired,
    success_rate,
)


class EpisodeRecord(EpisodeSpec):
    """What came of one episode."""

    success: bool = Field(description="Whether the commanded goal was reached at some step.")
    success_final: bool = Field(description="Whether it was reached at the last step.")
    success_any: bool = Field(
        description="Whether some object met the goal, commanded or not: control without grounding."
    )
    num_steps: int = Field(description="Control steps executed.")
    rewards: tuple[float, ...] = Field(description="The environment's reward of each control step.")
    family: str = Field(description="Family of the task; '' when the environment names none.")
    target: str = Field(description="The commanded object; '' when the environment names none.")
    instruction: str = Field(description="The task as a sentence; '' when nothing was seen.")
    lost: Lost | None = Field(
        description="What its simulator did instead of bringing it to an end, null as a rule; a "
        "lost episode is no success."
    )

    @property
    def spec(self) -> EpisodeSpec:
        """The episode itself."""
        return EpisodeSpec(**{name: getattr(self, name) for name in EpisodeSpec.model_fields})


class EvaluationResult(BaseModel):
    """The episodes of one policy, and how they were run."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    num_envs: int = Field(description="Environments that shared one call of the policy.")
    replan_steps: int = Field(description="Actions executed before the policy looked again.")
    num_sampling_steps: int = Field(description="Euler steps of the flow.")
    wall_s: float = Field(
        description="Duration of all episodes together, in seconds, without those of before."
    )
    episodes: tuple[EpisodeRecord, ...] = Field(description="The records in the suite's order.")
    actions: tuple[npt.NDArray[np.float32] | None, ...] = Field(
        (),
        exclude=True,
        repr=False,
        description="float32[t, a] of each episode, None of one lost or run before; not in "
        "the JSON.",
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

    @property
    def lost(self) -> tuple[EpisodeRecord, ...]:
        """The episodes that were lost with their simulators."""
        return tuple(episode for episode in self.episodes if episode.lost is not None)

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
            "num_lost": len(self.lost),
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
        UserError: the evaluations differ in environments, their settings or seeds, so their
            episodes are not pairs.
    """
    pairs = zip_longest(*([episode.spec for episode in each.episodes] for each in (first, second)))
    raise_faults(
        describe(
            f"second evaluation, episode {place}",
            "none" if theirs is None else repr(theirs),
            f"{'none' if ours is None else repr(ours)}, as in the first",
            "Evaluate both policies in the same environment on the same seeds.",
        )
        for place, (ours, theirs) in enumerate(pairs)
        if ours != theirs
    )
    return compare_paired(
        [episode.success for episode in first.episodes],
        [episode.success for episode in second.episodes],
    )
