"""Settings of the demonstrations: where they are, how they are split and read, or made."""

import re
from typing import Final, Literal, Self

from pydantic import Field, JsonValue, model_validator

from data_tools.formats.mapping.mapping import ColumnChoice, ConventionsMapping
from policy_ft.config.augmentation import AugmentationConfig
from policy_ft.config.base import (
    NonNegativeInt,
    OrOff,
    PositiveInt,
    Real,
    Seed,
    Settings,
    Texts,
)


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


SMALLEST_SHARE: Final = 0.001
"""Shares are honoured in blocks of 1000 samples; a smaller one would often get none of a block."""

SOURCE_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


class SelectionConfig(Settings):
    """Which episodes of which files make one dataset, and which of them validate."""

    path: Texts = Field(
        min_length=1,
        description="HDF5 file, folder or glob, or a list of them, read as one dataset; or the "
        "folder of a LeRobot dataset.",
    )
    layout: str | None = Field(
        None,
        description="Name of the layout to read HDF5 files as (docs/data-layouts.md); null detects "
        "it.",
    )
    mask: str | None = Field(
        None,
        description="Filter key to train on, e.g. train: the episodes that the files list in "
        "mask/train. null takes all.",
    )
    keep: str | None = Field(
        None,
        description="Keep-file to train on, as robot-data filter and split write it: windows start "
        "only where it says.",
    )
    validation_mask: str | None = Field(
        None,
        description="Filter key of the episodes to validate on, e.g. valid; validation_fraction "
        "then plays no part.",
    )
    validation_keep: str | None = Field(
        None,
        description="Keep-file of the episodes to validate on; validation_fraction then plays no "
        "part.",
    )

    allow_external_links: bool = Field(
        False,
        description="Whether HDF5 files may lead to data in other files, and sidecars to files "
        "outside the folder of path. true only for data you trust: a link may name any file.",
    )

    tolerance_s: Real | None = Field(
        None,
        gt=0,
        description="How far times of a LeRobot folder may lie from the frames of its videos, in "
        "seconds; null takes what its conventions.yaml says, or 1e-4.",
    )

    ignore: tuple[str, ...] = Field(
        (),
        description="Rules of robot-data validate whose errors are meant and keep no run from "
        "starting, e.g. [gripper_polarity] (docs/data-checks.md).",
    )

    @property
    def names_validation(self) -> bool:
        """Whether the episodes to validate on are chosen here and not at random."""
        return self.validation_mask is not None or self.validation_keep is not None

    @model_validator(mode="after")
    def _trains_on_others(self) -> Self:
        if self.names_validation and self.mask is None and self.keep is None:
            name = "validation_mask" if self.validation_mask is not None else "validation_keep"
            value = self.validation_mask or self.validation_keep
            raise ValueError(
                f"{name}: found {value!r} and neither mask nor keep; expected the episodes to "
                "train on, too, or these would be among them. Set mask or keep."
            )
        return self


class SourceConfig(SelectionConfig):
    """One dataset of a mixture, and how its columns become those of the others."""

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


class DataConfig(SelectionConfig):
    """The demonstrations of a run."""

    path: Texts = Field(
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
    split_groups: tuple[str, ...] = Field(
        ("source_demo",),
        description="Attributes of episodes: those that share a value are all trained on or all "
        "validated on, as generated children of one demonstration should be.",
    )
    columns: tuple[str, ...] = Field(
        (),
        description="Columns of the data that training uses; every episode must have them. weight: "
        "how much each step, with the actions after it, counts in the loss, 0 or more; only the "
        "ratios matter, and a step of weight 0 is not trained on "
        "(docs/bring-your-own-hdf5.md).",
    )
    collect: OrOff[CollectConfig] = Field(
        "off",
        description="How to make data.path when it does not exist; 'off' refuses a missing path.",
    )
    augmentation: OrOff[AugmentationConfig] = Field(
        "off", description="How training samples are varied; off takes them as recorded."
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
    def _selections_in_the_mixture(self) -> Self:
        fields = {name: f for name, f in SelectionConfig.model_fields.items() if name != "path"}
        chosen = [name for name, f in fields.items() if getattr(self, name) != f.default]
        if self.mixture and chosen:
            raise ValueError(
                f"{chosen[0]}: found {chosen} beside mixture; expected none. Give them to the "
                "datasets of the mixture that they are for."
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
