"""Settings of the demonstrations: where they are, how they are split and read, or made."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, JsonValue, Tag, model_validator

from policy_ft.config.base import NonNegativeInt, PositiveInt, Real, Seed, Settings, on_or_off


class CollectConfig(Settings):
    """How to record demonstrations with a scripted expert when data.path does not exist yet."""

    env: str = Field(
        "eval_envs:Tabletop-v0", description="Gymnasium id with its module: 'module:Id-v0'."
    )
    task: str = Field(
        description="Task or family of tasks that the expert shows, as the environment names it."
    )
    num_episodes: PositiveInt = Field(
        description="Demonstrations to keep; failed attempts are not counted."
    )
    seed: Seed = Field(
        0,
        description="Decides every attempt; attempt i is a function of the seed and i alone, so "
        "two seeds are two sets of episodes.",
    )
    noise: Real = Field(
        0.0,
        ge=0,
        le=1,
        description="How strongly the expert is disturbed, so that demonstrations also show "
        "recoveries. 0: not at all.",
    )
    env_args: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="Further keyword arguments of gymnasium.make, e.g. image_size.",
    )


def _one_or_more(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class DataConfig(Settings):
    """The demonstrations of a run."""

    path: Annotated[tuple[str, ...], BeforeValidator(_one_or_more)] = Field(
        min_length=1,
        description="HDF5 file, folder or glob; or a list of them, read as one dataset.",
    )
    validation_fraction: Real = Field(
        0.1,
        gt=0,
        lt=1,
        description="Share of the episodes kept out of training, whole episodes and at least one. "
        "More measures better and trains on less.",
    )
    collect: Annotated[
        Annotated[CollectConfig, Tag("on")] | Annotated[Literal["off"], Tag("off")],
        Discriminator(on_or_off),
    ] = Field(
        "off",
        description="How to make data.path when it does not exist; 'off' refuses a missing path.",
    )
    num_workers: NonNegativeInt = Field(
        2,
        description="Processes that read and encode samples. 0 reads in the training process: "
        "right for tiny runs and for machines with two cores.",
    )
    prefetch: PositiveInt = Field(
        4,
        description="Micro-batches each worker prepares ahead. More hides slower disks and costs "
        "memory.",
    )

    @model_validator(mode="after")
    def _collect_into_one_file(self) -> Self:
        if self.collect != "off" and len(self.path) != 1:
            raise ValueError(
                f"path: found {len(self.path)} paths {list(self.path)} with collect; expected one, "
                "the file that is recorded. Give one path or set collect to off."
            )
        return self
