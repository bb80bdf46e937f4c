"""What is measured while a run goes on: ValidationConfig, EvaluationConfig."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from policy_ft.config.base import PositiveInt, Real, Seed, Settings


class Standstill(Settings):
    """When a measure counts as no longer improving."""

    of: Literal["validation", "rollout"] = Field(
        "validation",
        description="The measure: validation's loss, or the success rate of rollouts.",
    )
    patience: PositiveInt = Field(
        3, description="Measurements in a row of which none was better than the best before."
    )


class ValidationConfig(Settings):
    """The loss on held-out episodes, on a fixed grid of noise and flow time."""

    every: PositiveInt = Field(500, description="Train steps between two validations.")
    num_windows: PositiveInt = Field(
        256,
        description="Windows of the held-out episodes, evenly spread; all of them when there are "
        "fewer.",
    )
    num_noise: PositiveInt = Field(2, description="Noise draws per window and time.")
    times: tuple[Annotated[Real, Field(gt=0, le=1)], ...] = Field(
        (0.1, 0.3, 0.5, 0.7, 0.9),
        min_length=1,
        description="Flow times of the grid; 1 is noise, 0 is data.",
    )


class EvaluationConfig(Settings):
    """Rollouts in a Gymnasium environment; their success selects the best checkpoint."""

    env: str = Field(
        "eval_envs:Tabletop-v0", description="Gymnasium id with its module: 'module:Id-v0'."
    )
    env_args: dict[str, JsonValue] = Field(
        default_factory=dict, description="Keyword arguments of gymnasium.make, e.g. task."
    )
    episodes: PositiveInt = Field(
        50, description="Episodes of one evaluation, divided evenly over the environments."
    )
    seed: Seed = Field(
        10_000, description="Seed of the first episode; the next ones count up from it."
    )
    num_envs: PositiveInt = Field(1, description="Environments stepped side by side.")
    replan_steps: PositiveInt = Field(
        description="Steps of each chunk that are executed before predicting again."
    )
    every: PositiveInt = Field(
        description="Train steps between two evaluations; the last step is always evaluated."
    )
