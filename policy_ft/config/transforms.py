"""Settings of the one path from an observation to numbers and back; saved in transforms.json."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictBool

from data_tools.actions import Normalization, RangeEpsilon, ScaleRule, StillColumns
from data_tools.formats.mapping.mapping import ColumnMap
from policy_ft.config.base import Real, Settings

Resize = Literal[
    "none",
    "pil_bilinear_center_pad",
    "torch_bilinear_lefttop_pad",
    "torch_bilinear_center_pad",
    "torch_bilinear_center_pad_minus_three",
]
Prompt = Literal[
    "plain",
    "cased",
    "pi0",
    "lerobot_pi0",
    "pi05",
    "pi05_padded_state",
    "pi05_no_state",
    "smolvla",
]


def _each_once(cameras: tuple[str | None, ...]) -> tuple[str | None, ...]:
    names = [name for name in cameras if name is not None]
    if len(set(names)) < len(names):
        raise ValueError(
            f"found {list(cameras)}; expected each camera once. Remove the repeated name."
        )
    if cameras and not names:
        raise ValueError(
            f"found {list(cameras)}; expected at least one camera. Name one for a slot, or write "
            "[] for a policy without images."
        )
    return cameras


Slots = Annotated[tuple[str | None, ...], AfterValidator(_each_once)]
"""The camera of each slot of a model, None for an empty one."""


class TransformsConfig(Settings):
    """Which cameras fill the slots, and how images, numbers and prompts are made uniform."""

    cameras: Slots = Field(
        description="Names of the cameras, each once, in the order of the model's slots; null "
        "leaves a slot empty and masked, and fewer than the model's slots leave the last ones so. "
        "Every camera named here must be in every observation. []: the policy sees no images.",
    )
    resize: Resize = Field(
        "none",
        description="none: images must already have the model's size. pil_bilinear_center_pad: PIL "
        "bilinear on uint8, aspect ratio kept, black padding around the centre, as pi0's reference "
        "code does. torch_bilinear_lefttop_pad: bilinear without antialiasing on floats, black "
        "padding on the left and at the top (SmolVLA). torch_bilinear_center_pad: the same around "
        "the centre (LeRobot's pi0 and pi0.5). torch_bilinear_center_pad_minus_three: the same "
        "with a padding of -3 instead of black's -1, for pi0 and pi0.5 trained with LeRobot up to "
        "0.4.4, which pads before it scales.",
    )
    state_maps: tuple[ColumnMap, ...] = Field(
        (),
        description="How state columns become the model's, where a pretrained model knows them in "
        "another sense or unit than the robot; before anything else.",
    )
    action_maps: tuple[ColumnMap, ...] = Field(
        (), description="The same for action columns; undone on what the model predicts."
    )
    state_normalization: Normalization = Field(
        "mean_std",
        description="identity: as is. mean_std: zero mean, unit deviation. quantiles: the 1 %..99 "
        "% range becomes [-1, 1], not clipped; quantiles_10_90: the 10 %..90 % range. min_max: the "
        "whole range becomes [-1, 1], so one outlier sets the scale.",
    )
    action_normalization: Normalization = Field(
        "mean_std", description="The same for actions, after delta_actions have been made relative."
    )
    epsilon: Real = Field(
        0.0,
        ge=0,
        description="Added to deviations and ranges before dividing: 1e-6 in openpi, 1e-8 in "
        "LeRobot.",
    )
    range_epsilon: RangeEpsilon = Field(
        "added",
        description="added: epsilon is added to every range. for_zero: it stands in for a range "
        "that is exactly zero (LeRobot).",
    )
    still_columns: StillColumns = Field(
        "hold",
        description="hold: a column that never moves (by 1e-4 m or rad, or its like in its unit) "
        "is held: such an action comes back as its constant and carries no loss, such a state is 0 "
        "to the model whatever the robot reads. One that moves in rare moments alone is scaled by "
        "all that it spans. center: as hold, but columns that move rarely are not scaled, and "
        "identity passes all on, as in checkpoints made before December 2026. divide: all are "
        "scaled alike, as published models saw them; a sensor's noise may then become values in "
        "the thousands.",
    )
    delta_actions: tuple[str, ...] = Field(
        (),
        description="Action columns that the data stores as absolute targets and the model sees "
        "relative to the state column of the same name at the start of the chunk (for "
        "every step of it, as in pi0).",
    )
    double_delta: StrictBool = Field(
        False,
        description="Whether delta_actions may name columns that are relative already: some "
        "checkpoints (openpi's pi0_libero) were trained so. Wrong for anything new.",
    )
    prompt: Prompt = Field(
        "plain",
        description="plain: outer white space cut, inner white space collapsed, lower case. cased: "
        "the same, case kept, for language models pretrained on cased text. pi0: the cleaned "
        "sentence and a newline, as openpi writes it for pi0 and for a pi0.5 that is not told its "
        "state. lerobot_pi0: the sentence as it is, ending in a newline. pi05: the sentence and "
        "the state in 256 steps. pi05_padded_state: the same with the padding of the state, for "
        "pi0.5 trained with LeRobot up to 0.4.4. pi05_no_state: without it, as LeRobot writes it. "
        "smolvla: lerobot_pi0 without a begin-of-text token.",
    )

    @property
    def camera_names(self) -> tuple[str, ...]:
        """The cameras that fill slots, in the order of the slots."""
        return tuple(name for name in self.cameras if name is not None)

    @property
    def scale_rule(self) -> ScaleRule:
        """How small scales are treated."""
        return ScaleRule(self.epsilon, self.range_epsilon, self.still_columns)
