"""Settings of the one path from an observation to numbers and back; saved in transforms.json."""

from typing import Literal

from pydantic import Field, field_validator

from data_tools.actions import Normalization
from policy_ft.config.base import Settings


class TransformsConfig(Settings):
    """Which cameras fill the slots, and how images, numbers and prompts are made uniform."""

    cameras: tuple[str, ...] = Field(
        min_length=1,
        description="Names of the cameras, each once, in the order of the model's slots. Fewer "
        "than the "
        "model's slots leave the last slots empty and masked; every one named here "
        "must be in every observation.",
    )
    resize: Literal["none", "pil_bilinear_center_pad"] = Field(
        "none",
        description="none: images must already have the model's size. pil_bilinear_center_pad: PIL "
        "bilinear on uint8, aspect ratio kept, black padding around the centre, as "
        "pi0's reference code does.",
    )
    state_normalization: Normalization = Field(
        "mean_std",
        description="identity: as is. mean_std: zero mean, unit deviation. quantiles: the 1 %..99 "
        "% range becomes [-1, 1], not clipped. min_max: the whole range becomes [-1, "
        "1], so one outlier sets the scale.",
    )
    action_normalization: Normalization = Field(
        "mean_std", description="The same for actions, after delta_actions have been made relative."
    )
    delta_actions: tuple[str, ...] = Field(
        (),
        description="Action columns that the data stores as absolute targets and the model sees "
        "relative to the state column of the same name at the start of the chunk (for "
        "every step of it, as in pi0).",
    )
    prompt: Literal["plain", "cased"] = Field(
        "plain",
        description="plain: outer white space cut, inner white space collapsed, lower case. cased: "
        "the same, case kept, for language models pretrained on cased text.",
    )

    @field_validator("cameras")
    @classmethod
    def _each_once(cls, cameras: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(cameras)) < len(cameras):
            raise ValueError(
                f"found {list(cameras)}; expected each camera once. Remove the repeated name."
            )
        return cameras
