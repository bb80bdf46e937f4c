"""What config.json of a LeRobot policy says: sizes, features, and settings that must be off.

LeRobot's config class holds sizes of the model beside settings of one training run. Every key is
accounted for: read, required to have the value that is implemented, noted, or known to say nothing
about the policy; an unknown key that is switched on is refused.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError, model_validator

from policy_ft.config.base import PositiveInt, Real
from policy_ft.errors import (
    UserError,
    describe,
    dotted,
    nearest,
    raise_faults,
    validation_faults,
)
from policy_ft.formats.published import read_json_object
from policy_ft.formats.sizes import Stated, stated_variant
from policy_ft.formats.tensor_names import NAMES, PublishedFamily

IMAGES = "observation.images."
STATE, ACTION = "observation.state", "action"

_SIZES = {
    "chunk_size": "action_horizon",
    "max_state_dim": "state_dim",
    "max_action_dim": "action_dim",
    "num_inference_steps": "num_sampling_steps",
    "num_steps": "num_sampling_steps",
    "tokenizer_max_length": "max_prompt_tokens",
    "min_period": "expert.min_period",
    "max_period": "expert.max_period",
    "num_vlm_layers": "language.depth",
    "self_attn_every_n_layers": "expert.self_attention_every",
}
"""Key of config.json -> setting of the model."""

_VLM_SIZES = {
    "scale_factor": "connector.pixel_shuffle",
    "text_config.num_attention_heads": "language.num_heads",
    "text_config.num_key_value_heads": "language.num_kv_heads",
    "text_config.head_dim": "language.head_dim",
    "text_config.hidden_size": "language.width",
    "text_config.intermediate_size": "language.mlp_width",
    "text_config.rms_norm_eps": "language.norm_eps",
    "vision_config.num_attention_heads": "vision.num_heads",
    "vision_config.hidden_size": "vision.width",
    "vision_config.num_hidden_layers": "vision.depth",
    "vision_config.intermediate_size": "vision.mlp_width",
    "vision_config.patch_size": "vision.patch_size",
    "vision_config.layer_norm_eps": "vision.norm_eps",
    "vision_config.shifted_positions": "vision.shifted_positions",
}
"""Key below vlm_config -> setting of the model; not LeRobot's own, which downloads them."""

_IMPLEMENTED: dict[str, tuple[Any, ...]] = {
    "n_obs_steps": (1,),
    "use_visual_memory": (False,),
    "use_proprioceptive_memory": (False,),
    "rtc_training_max_delay": (0,),
    "adapt_to_pi_aloha": (False,),
    "use_delta_joint_actions_aloha": (False,),
    "add_image_special_tokens": (False,),
    "attention_mode": ("cross_attn",),
    "use_peft": (False,),
}
"""Keys that change what the model computes, and the values that are implemented."""

_NOTED: dict[str, Any] = {
    "rtc_config": None,
    "time_sampling_beta_alpha": 1.5,
    "time_sampling_beta_beta": 1.0,
    "time_sampling_scale": 0.999,
    "time_sampling_offset": 0.001,
    "proj_width": None,
    "attention_implementation": None,
}
"""Keys that do not change what the loaded model computes; noted where they differ from these."""

_OF_ONE_RUN = {
    *("type", "device", "dtype", "use_amp", "tags", "license", "private", "repo_id"),
    *("push_to_hub", "pretrained_path", "pretrained_revision", "gradient_checkpointing"),
    *("compile_model", "compile_mode", "use_cache", "load_vlm_weights", "vlm_model_name"),
    *("freeze_vision_encoder", "train_expert_only", "train_state_proj"),
    *("pad_language_to", "prefix_length", "expert_width_multiplier"),
    *("memory_frames", "memory_stride", "memory_temporal_attention_every"),
}
"""Keys that say nothing the weights do not: of training, of devices, of padding that is masked."""


class Feature(BaseModel):
    """One input or output of a LeRobot policy."""

    model_config = ConfigDict(extra="allow", frozen=True)
    type: str = Field(description="VISUAL, STATE, ACTION, ...")
    shape: tuple[StrictInt, ...] = Field(
        min_length=1, description="Of one step; images are [3, y, x]."
    )

    @property
    def image_size(self) -> tuple[int, int]:
        """Rows and columns of an image."""
        return self.shape[-2], self.shape[-1]

    @model_validator(mode="after")
    def _images_have_three_channels(self) -> Self:
        if self.type == "VISUAL" and (len(self.shape) != 3 or self.shape[0] != 3):
            raise ValueError(
                f"shape: found {list(self.shape)}; expected [3, rows, columns] for an image. "
                "Cameras of other channels are not implemented."
            )
        return self


class LerobotConfig(BaseModel):
    """The keys of config.json that decide what the policy does. Others are allowed, see above."""

    model_config = ConfigDict(extra="allow", frozen=True)
    type: Literal["pi0", "pi05", "smolvla"] = Field(description="The policy's family.")
    input_features: dict[str, Feature] = Field(default_factory=dict, description="By key.")
    output_features: dict[str, Feature] = Field(default_factory=dict, description="By key.")
    normalization_mapping: dict[str, str] = Field(
        default_factory=dict, description="Feature type -> kind of normalization."
    )
    chunk_size: PositiveInt = Field(50, description="Steps of a chunk.")
    n_action_steps: PositiveInt = Field(50, description="Steps executed before looking again.")
    max_state_dim: PositiveInt = Field(32, description="Columns of the padded state.")
    max_action_dim: PositiveInt = Field(32, description="Columns of a padded action.")
    min_period: Real = Field(4e-3, description="Shortest period of the time embedding.")
    max_period: Real = Field(4.0, description="Longest period of the time embedding.")
    tokenizer_max_length: PositiveInt | None = Field(None, description="Longest prompt in tokens.")
    empty_cameras: StrictInt = Field(0, ge=0, description="Slots that stay empty.")
    image_resolution: tuple[PositiveInt, PositiveInt] | None = Field(
        None, description="(rows, columns) the model sees; pi0 and pi0.5."
    )
    resize_imgs_with_padding: tuple[PositiveInt, PositiveInt] | None = Field(
        None, description="(columns, rows) the model sees; SmolVLA and old pi0."
    )
    paligemma_variant: str | None = Field(None, description="Name of the language model.")
    action_expert_variant: str | None = Field(None, description="Name of the action expert.")
    num_expert_layers: StrictInt = Field(-1, description="Expert blocks; as the VLM's if < 1.")
    num_vlm_layers: PositiveInt | None = Field(None, description="Blocks of the VLM; SmolVLA.")
    use_relative_actions: bool | None = Field(None, description="Since LeRobot 0.5.1.")
    relative_exclude_joints: tuple[str, ...] = Field((), description="Columns kept absolute.")
    action_feature_names: tuple[str, ...] | None = Field(None, description="Action columns.")
    vlm_config: dict[str, Any] = Field(default_factory=dict, description="Sizes of a small VLM.")

    @property
    def family(self) -> PublishedFamily:
        """The same word as ours."""
        return self.type

    @property
    def camera_keys(self) -> tuple[str, ...]:
        """Keys of the cameras in the order of the slots, without those that stay empty."""
        return tuple(
            key
            for key, feature in self.input_features.items()
            if feature.type == "VISUAL" and ".empty_camera_" not in key
        )

    @property
    def num_cameras(self) -> int:
        """Camera slots, empty ones included."""
        return len(self.camera_keys) + self.empty_cameras


def read_lerobot_config(path: Path) -> tuple[LerobotConfig, dict[str, Any]]:
    """The settings of a config.json, and the document itself.

    Raises:
        UserError: no or damaged JSON, another kind of policy, a value of the wrong type, a setting
            whose effect is not implemented, or an unknown one that is on; all of them.
    """
    document = read_json_object(path)
    if document.get("type") not in NAMES:
        found, remedy = (
            "nothing, the key is missing",
            "Add the key, or copy the whole directory again.",
        )
        if "type" in document:
            found = repr(document["type"])
            remedy = "Give the directory of such a policy; other kinds are not read."
        raise UserError(describe(f"{path}, type", found, f"one of {list(NAMES)}", remedy))
    raise_faults([*_unimplemented(document, path), *_unknown(document, path)])
    try:
        return LerobotConfig.model_validate(document), document
    except ValidationError as error:
        raise UserError(
            validation_faults(error, LerobotConfig, lambda key: f"{path}, {dotted(key)}")
        ) from None


def stated_sizes(config: LerobotConfig, document: Mapping[str, Any]) -> dict[str, Stated]:
    """Setting of the model -> what config.json says, for `model_config`."""
    stated = {
        name: Stated(key, document[key])
        for key, name in _SIZES.items()
        if document.get(key) is not None
    }
    if config.camera_keys:
        stated["num_cameras"] = Stated("input_features", config.num_cameras)
    for key, part in (("paligemma_variant", "language"), ("action_expert_variant", "expert")):
        stated.update(stated_variant(key, document.get(key), part))
    stated.update(_image_size(config))
    for key, name in _VLM_SIZES.items():
        value: Any = config.vlm_config
        for step in key.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        if value is not None:
            stated[name] = Stated(f"vlm_config.{key}", value)
    return stated


def config_notes(document: Mapping[str, Any], action_horizon: int) -> tuple[str, ...]:
    """Settings of config.json that the loaded policy does not honour, for the report.

    Args:
        document: config.json.
        action_horizon: steps of a chunk.
    """
    steps = document.get("n_action_steps", action_horizon)
    cut = f"config.json, n_action_steps {steps}: {action_horizon}, for a chunk has no more steps"
    unused = [
        f"{key} {document[key]!r}"
        for key in _NOTED
        if document.get(key, _NOTED[key]) != _NOTED[key]
    ]
    unknown = [f"{key} {value!r}" for key, value in document.items() if not _is_known(key)]
    notes = [f"config.json, {key}: has no effect here" for key in (*unused, *unknown)]
    return (*notes, cut) if steps > action_horizon else tuple(notes)


def _image_size(config: LerobotConfig) -> dict[str, Stated]:
    if config.family != "smolvla" and config.image_resolution is not None:
        key, (height, width) = "image_resolution", config.image_resolution
    elif config.resize_imgs_with_padding is not None:
        key, (width, height) = "resize_imgs_with_padding", config.resize_imgs_with_padding
    else:
        return {}
    return {"image_height": Stated(key, height), "image_width": Stated(key, width)}


def _unimplemented(document: Mapping[str, Any], path: Path) -> list[str]:
    faults = []
    for key, values in _IMPLEMENTED.items():
        if key in document and document[key] not in values:
            expected = " or ".join(repr(value) for value in values)
            remedy = "This setting changes what the model computes and is not implemented."
            faults.append(describe(f"{path}, {key}", repr(document[key]), expected, remedy))
    experts, blocks = document.get("num_expert_layers", -1), document.get("num_vlm_layers")
    if isinstance(experts, int) and experts > 0 and experts != blocks:
        remedy = "An expert of another depth is not implemented."
        expected = f"-1 or {blocks!r}, as num_vlm_layers"
        faults.append(describe(f"{path}, num_expert_layers", repr(experts), expected, remedy))
    return faults


def _unknown(document: Mapping[str, Any], path: Path) -> list[str]:
    """Unknown keys that are on: nobody can say that they change nothing."""
    faults = []
    for key, value in document.items():
        if not _is_known(key) and value not in (None, False):
            hint = nearest(key, [*_SIZES, *_IMPLEMENTED, *_NOTED, *LerobotConfig.model_fields])
            remedy = "Remove the key if it changes nothing the model computes"
            remedy += f"; {hint}" if hint else "."
            expected = "a key that is known, or null or false"
            faults.append(
                describe(f"{path}, {key}", f"an unknown key, {value!r}", expected, remedy)
            )
    return faults


def _is_known(key: str) -> bool:
    known = (_OF_ONE_RUN, _SIZES, _IMPLEMENTED, _NOTED, LerobotConfig.model_fields)
    return key.startswith(("optimizer_", "scheduler_")) or any(key in stated for stated in known)
