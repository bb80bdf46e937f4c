"""Settings of the policy that a run starts from: a new one, or a checkpoint's."""

from typing import Annotated, Literal, Self

from pydantic import Field, StrictInt, model_validator

from policy_ft.config.base import OrWord, Settings
from policy_ft.config.edits import Edit
from policy_ft.config.model import ModelConfig
from policy_ft.config.resize import ModelResize
from policy_ft.config.transforms import Resize, TransformsConfig


class TrainedTokenizer(Settings):
    """A tokenizer that is trained on the instructions of the training episodes."""

    train: Annotated[StrictInt, Field(ge=258)] = Field(
        description="Size of the vocabulary to train: 256 bytes, padding, begin-of-text, and "
        "merges beyond those."
    )


class NewPolicy(Settings):
    """A policy with random weights."""

    kind: Literal["new"]
    model: ModelConfig = Field(description="The architecture.")
    transforms: TransformsConfig = Field(
        description="The path from observations to numbers and back."
    )
    tokenizer: OrWord[TrainedTokenizer, str] = Field(
        description="Path of a tokenizer.json to read, or {train: vocabulary size} to train one."
    )
    language_weights: str = Field(
        "random",
        min_length=1,
        description="Directory of a transformers checkpoint that fills the language decoder; "
        "'random' starts it at random.",
    )
    vision_weights: str = Field(
        "random",
        min_length=1,
        description="Safetensors file of a timm model that fills the vision tower; 'random' starts "
        "it at random.",
    )

    @model_validator(mode="after")
    def _tower_can_be_filled(self) -> Self:
        if self.vision_weights != "random" and self.model.vision.kind != "timm":
            raise ValueError(
                f"vision_weights: found {self.vision_weights!r} with model.vision.kind "
                f"{self.model.vision.kind!r}; expected kind timm, whose files these are. Load a "
                "whole checkpoint with kind pretrained instead."
            )
        return self

    @model_validator(mode="after")
    def _every_camera_has_a_slot(self) -> Self:
        slots, cameras = self.model.num_cameras, self.transforms.cameras
        has_vision = self.model.vision.kind != "none"
        if bool(cameras) != has_vision:
            expected = "at least one camera" if has_vision else "[]"
            remedy = "Set model.vision to {kind: none}" if has_vision else "Name a tower there"
            raise ValueError(
                f"transforms.cameras: found {list(cameras)} with model.vision.kind "
                f"{self.model.vision.kind!r}; expected {expected}. {remedy}, or change the cameras."
            )
        if not has_vision and self.transforms.resize != "none":
            raise ValueError(
                f"transforms.resize: found {self.transforms.resize!r} with model.vision.kind "
                "'none'; expected none. Leave it out: there are no images."
            )
        says_state = self.transforms.prompt in ("pi05", "pi05_padded_state")
        if not has_vision and self.model.expert.state_token == "none" and not says_state:
            raise ValueError(
                "model.expert.state_token: found 'none' with model.vision.kind 'none'; expected "
                "suffix or prefix. Change it: such a policy would see nothing but its instruction."
            )
        if len(cameras) > slots:
            raise ValueError(
                f"model.num_cameras: found {slots} with the cameras {list(cameras)}; expected at "
                f"least {len(cameras)}. Raise policy.model.num_cameras or remove "
                "cameras from policy.transforms.cameras."
            )
        return self


class PretrainedPolicy(Settings):
    """A policy read from a checkpoint directory, with the transforms it was trained with."""

    kind: Literal["pretrained"]
    path: str = Field(description="Checkpoint directory.")
    statistics: Literal["checkpoint", "data"] = Field(
        "checkpoint",
        description="checkpoint: normalize as the checkpoint does, right for the same robot. data: "
        "compute new statistics on the training episodes, right for a new robot or new "
        "units.",
    )
    still_columns: Literal["auto", "hold", "divide"] = Field(
        "auto",
        description="What becomes of columns that never move, as in transforms.still_columns. "
        "auto: with statistics of the checkpoint what it did, with those of the data hold.",
    )
    init_missing: tuple[str, ...] = Field(
        (),
        description="Patterns of parameter names that may be absent from the checkpoint and start "
        "at random; any other missing tensor is refused.",
    )
    embodiment: str = Field(
        "checkpoint",
        min_length=1,
        description="The robot a published checkpoint is used for: a preset (aloha, droid, libero, "
        "ur5e) or a YAML file. checkpoint: what the checkpoint says; the rest is unknown.",
    )
    tokenizer: str = Field(
        "checkpoint",
        min_length=1,
        description="tokenizer.json, a directory that holds one, or a hub id, for published "
        "checkpoints without. checkpoint: its own.",
    )
    resize: ModelResize = Field(
        ModelResize(), description="Sizes that differ from the checkpoint's."
    )
    edits: tuple[Edit, ...] = Field(
        (),
        exclude_if=lambda edits: not edits,
        description="What the checkpoint's network is changed by once its weights are loaded, "
        "behind the edits that it has: adapters (kind lora), blocks taken out (kind drop_layers).",
    )
    image_resize: Literal["checkpoint"] | Resize = Field(
        "checkpoint",
        description="How images become the model's size, as in transforms.resize, where they have "
        "another size than those that the checkpoint takes as they are. checkpoint: as it did.",
    )

    @property
    def transforms(self) -> dict[str, str]:
        """The settings of TransformsConfig that are asked for, beside those of the checkpoint."""
        asked = {"still_columns": self.still_columns, "resize": self.image_resize}
        return {name: value for name, value in asked.items() if value not in ("auto", "checkpoint")}
