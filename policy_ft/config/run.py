"""RunConfig: everything that decides a training run, and is saved in its checkpoints."""

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, JsonValue, model_validator

from policy_ft.config.base import OrOff, Seed, Settings
from policy_ft.config.data import DataConfig
from policy_ft.config.measures import EvaluationConfig, Standstill, ValidationConfig
from policy_ft.config.objectives import ObjectivesConfig
from policy_ft.config.optimizer import OptimizerConfig
from policy_ft.config.starting_policy import NewPolicy, PretrainedPolicy
from policy_ft.config.training import TrainingConfig
from policy_ft.config.tuning import TuningConfig


def _names_a_class(path: str) -> str:
    if not re.fullmatch(r"[\w.]+:\w+", path):
        raise ValueError("a text like 'module:ClassName'")
    return path


ClassPath = Annotated[str, AfterValidator(_names_a_class)]


class OwnMethod(Settings):
    """A method of your own: a class derived from Hook or Objective (docs/how-training-works.md)."""

    path: ClassPath = Field(description="Where the class is: 'module.of_mine:ClassName'.")
    args: dict[str, JsonValue] = Field(
        default_factory=dict, description="Keyword arguments that it is made with."
    )


class RunConfig(Settings):
    """One training run, complete."""

    seed: Seed = Field(
        0, description="Decides weights, split, order and noise; two seeds are two runs."
    )
    output_dir: str = Field(min_length=1, description="Directory of metrics and checkpoints.")
    policy: NewPolicy | PretrainedPolicy = Field(
        discriminator="kind", description="What is trained."
    )
    data: DataConfig = Field(description="The demonstrations.")
    tuning: TuningConfig = Field(TuningConfig(), description="Which parameters move.")
    optimizer: OptimizerConfig = Field(
        OptimizerConfig(), description="The optimizer and its schedule."
    )
    objectives: ObjectivesConfig = Field(
        ObjectivesConfig(), description="Terms of the loss beside flow matching."
    )
    methods: tuple[OwnMethod, ...] = Field(
        (), description="Methods of your own beside those that other settings ask for."
    )
    training: TrainingConfig = Field(description="Length, batch, precision and saving.")
    validation: ValidationConfig = Field(
        ValidationConfig(), description="The loss on held-out episodes."
    )
    evaluation: OrOff[EvaluationConfig] = Field(
        "off", description="Rollouts during training, or 'off'."
    )

    @model_validator(mode="after")
    def _executes_what_is_predicted(self) -> Self:
        if self.policy.kind == "new" and self.evaluation != "off":
            horizon, replan = self.policy.model.action_horizon, self.evaluation.replan_steps
            if replan > horizon:
                raise ValueError(
                    f"evaluation.replan_steps: found {replan} with policy.model.action_horizon "
                    f"{horizon}; expected at most the horizon. Lower replan_steps: a chunk has no "
                    "more steps."
                )
        return self

    @model_validator(mode="after")
    def _phases_follow_one_another(self) -> Self:
        num_steps, last = self.training.steps, 0
        for place, phase in enumerate(self.tuning.phases):
            start = phase.first_step(num_steps)
            where = f"tuning.phases.{place}.start: found {phase.start!r}"
            if start is None:
                last = num_steps  # nobody knows the step: only such phases may follow
            elif last == num_steps:
                raise ValueError(
                    f"{where} behind a phase that waits for a measure; expected one that waits as "
                    "well. Give it a start like {of: validation, patience: 3}, or move it forward."
                )
            elif not last < start < num_steps:
                raise ValueError(
                    f"{where}, step {start}; expected one after step {last} and before the last, "
                    f"training.steps {num_steps}. Sort the phases, correct the start or train for "
                    "more steps."
                )
            else:
                last = start
        return self

    @model_validator(mode="after")
    def _caches_what_stays(self) -> Self:
        if self.training.feature_cache_gb and self.data.augmentation != "off":
            raise ValueError(
                f"training.feature_cache_gb: found {self.training.feature_cache_gb} with "
                "data.augmentation; expected one of the two, for varied images have other features "
                "in every epoch. Set one of them to 0 or off."
            )
        return self

    @model_validator(mode="after")
    def _measures_what_is_watched(self) -> Self:
        watched = {
            "training.early_stop": self.training.early_stop,
            "optimizer.plateau": self.optimizer.plateau,
            **{
                f"tuning.phases.{place}.start": phase.start
                for place, phase in enumerate(self.tuning.phases)
            },
        }
        for where, watch in watched.items():
            if isinstance(watch, Standstill) and watch.of == "rollout" and self.evaluation == "off":
                raise ValueError(
                    f"{where}: found of: rollout with evaluation off; expected rollouts to watch. "
                    "Fill in the evaluation block, or watch validation."
                )
        return self

    @model_validator(mode="after")
    def _says_whose_statistics(self) -> Self:
        """Nobody can tell which is right: a default would be a guess."""
        chosen = self.data.mixture_statistics
        is_from_data = self.policy.kind == "new" or self.policy.statistics == "data"
        is_needed = bool(self.data.mixture) and is_from_data
        if is_needed and chosen is None:
            raise ValueError(
                "data.mixture_statistics: found none for statistics from several datasets; "
                "expected shared or own. Say shared where one robot recorded all, own where "
                "ranges differ."
            )
        if not is_needed and chosen is not None:
            why = "policy.statistics checkpoint" if self.data.mixture else "data.path"
            raise ValueError(
                f"data.mixture_statistics: found {chosen!r} with {why}; expected none. Remove it"
                + (", or set policy.statistics to data." if self.data.mixture else ".")
            )
        return self
