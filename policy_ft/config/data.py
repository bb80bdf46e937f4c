"""Settings of the demonstrations: where they are, how they are split and read, or made."""

import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, JsonValue, Tag, model_validator

from data_tools.mapping.mapping import ColumnChoice, ConventionsMapping
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


Paths = Annotated[tuple[str, ...], BeforeValidator(_one_or_more)]

SMALLEST_SHARE: Final = 0.001
"""Shares are honoured in blocks of 1000 samples; a smaller one would often get none of a block."""

SOURCE_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


class SourceConfig(Settings):
    """One dataset of a mixture, and how its columns become those of the others."""

    path: Paths = Field(
        min_length=1,
        description="HDF5 file, folder or glob, or a list of them, read as one dataset; or the "
        "folder of a LeRobot dataset.",
    )
    weight: Real = Field(
        gt=0,
        description="Share of the samples, relative to the other weights: with 4 and 1 four of "
        "five samples come from the first, however many episodes each has.",
    )
    max_episodes_per_task: PositiveInt | Literal["all"] = Field(
        "all",
        description="Most episodes of one task, chosen at random by the run's seed. A task is what "
        "the episodes' attribute 'task' says, or else their instruction.",
    )
    cameras: dict[str, str | None] = Field(
        {},
        description="Name of a camera as the policy knows it -> the dataset's own name; null where "
        "there is no such camera, whose slot is then masked. Others are taken by name.",
    )
    state: ColumnChoice = Field(
        ColumnChoice(), description="How the state's columns become the policy's."
    )
    action: ColumnChoice = Field(
        ColumnChoice(), description="How the action's columns become the policy's."
    )

    @property
    def mapping(self) -> ConventionsMapping:
        """How the dataset's observations and actions become the policy's."""
        return ConventionsMapping(cameras=self.cameras, state=self.state, action=self.action)


class DataConfig(Settings):
    """The demonstrations of a run."""

    path: Paths = Field(
        (),
        description="HDF5 file, folder or glob, or a list of them, read as one dataset; or the "
        "folder of a LeRobot dataset. Either this or mixture.",
    )
    mixture: dict[str, SourceConfig] = Field(
        {},
        description="Name -> dataset, where a run trains on several: other robots, or old "
        "demonstrations that must not be forgotten. All follow the conventions of the first, or "
        "with policy.statistics checkpoint those of the policy.",
    )
    mixture_statistics: Literal["shared", "own"] | None = Field(
        None,
        description="Needed where a mixture's statistics are computed from data. shared: one "
        "normalization, from the training episodes of all datasets together, weights aside. own: "
        "each dataset is normalized by its own training episodes.",
    )
    policy_statistics_of: str | None = Field(
        None,
        description="With mixture_statistics own: the dataset whose statistics the checkpoint "
        "keeps, for it is that robot it will drive; the first where none is named.",
    )
    validation_fraction: Real = Field(
        0.1,
        gt=0,
        lt=1,
        description="Share of the episodes kept out of training, whole episodes and at least one "
        "of each dataset. More measures better and trains on less.",
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

    @property
    def shares(self) -> dict[str, float]:
        """Name of each dataset of the mixture -> its share of the samples; they add up to 1."""
        total = sum(each.weight for each in self.mixture.values())
        return {name: each.weight / total for name, each in self.mixture.items()}

    @model_validator(mode="after")
    def _path_or_mixture(self) -> Self:
        if bool(self.path) == bool(self.mixture):
            found = "both" if self.path else "neither"
            raise ValueError(
                f"path: found {found} of path and mixture; expected one of them. Name the one "
                "dataset in path, or several with their weights in mixture."
            )
        return self

    @model_validator(mode="after")
    def _collect_into_one_file(self) -> Self:
        if self.collect != "off" and len(self.path) != 1:
            raise ValueError(
                f"path: found {len(self.path)} paths {list(self.path)} with collect; expected one, "
                "the file that is recorded. Give one path or set collect to off."
            )
        return self

    @model_validator(mode="after")
    def _sound_mixture(self) -> Self:
        faults = []
        for name, share in self.shares.items():
            if not SOURCE_NAME.fullmatch(name):
                faults.append(
                    f"mixture: found the name {name!r}; expected a letter, and then letters, "
                    "digits, - and _. Rename the dataset."
                )
            if share < SMALLEST_SHARE:
                faults.append(
                    f"mixture.{name}.weight: found a share of {share:.2g}; expected at least "
                    f"{SMALLEST_SHARE}. Raise its weight, or leave the dataset out."
                )
        if self.policy_statistics_of is not None and (
            self.mixture_statistics != "own" or self.policy_statistics_of not in self.mixture
        ):
            faults.append(
                f"policy_statistics_of: found {self.policy_statistics_of!r} with "
                f"mixture_statistics {self.mixture_statistics!r}; expected own, and one of "
                f"{list(self.mixture)}. Correct the name, or remove the setting."
            )
        if faults:
            raise ValueError("\n".join(faults))
        return self
