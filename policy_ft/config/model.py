"""Settings that decide a model's architecture; saved in the checkpoint as model.json."""

from typing import Annotated, Literal, Self

from pydantic import Field, StrictBool, StrictInt, model_validator

from policy_ft.config.base import PositiveInt, Real, Settings


class VisionConfig(Settings):
    """The vision tower: any timm model with feature levels, cut after one of them."""

    tower: str = Field(
        description="Name of the timm model, e.g. 'resnetv2_18' or 'vit_base_patch16_siglip_224'."
    )
    tower_args: dict[str, StrictBool | StrictInt | float | str | list[int]] = Field(
        default_factory=dict,
        description="Keyword arguments of timm.create_model that change the architecture.",
    )
    feature_level: Annotated[StrictInt, Field(ge=0)] = Field(
        description="Index of the timm feature level whose grid cells become image tokens; deeper "
        "is coarser."
    )
    film: StrictBool = Field(
        False,
        description="Whether the instruction scales and shifts the tower's features after every "
        "level up to "
        "feature_level (FiLM, Perez et al. 2017; in a VLA: OpenVLA-OFT+). Helps small towers to "
        "listen.",
    )


class DecoderConfig(Settings):
    """The language decoder: a stack of transformer blocks of one published family."""

    family: Literal["llama", "qwen2", "qwen3", "gemma"] = Field(
        description="Decides norms, biases, activation and embedding scale; also transformers' "
        "model_type."
    )
    vocab_size: PositiveInt = Field(
        description="Rows of the token embedding; at least the tokenizer's size."
    )
    width: PositiveInt = Field(
        description="Size of the residual stream (transformers: hidden_size)."
    )
    depth: PositiveInt = Field(description="Number of blocks (transformers: num_hidden_layers).")
    mlp_width: PositiveInt = Field(
        description="Hidden size of each block's MLP (transformers: intermediate_size)."
    )
    num_heads: PositiveInt = Field(description="Query heads (transformers: num_attention_heads).")
    num_kv_heads: PositiveInt = Field(description="Key and value heads; divides num_heads.")
    head_dim: PositiveInt = Field(description="Size of one head; even, for the rotary embedding.")
    rope_theta: Real = Field(
        10_000.0, gt=0, description="Base of the rotary embedding's wavelengths."
    )
    norm_eps: Real = Field(1e-6, gt=0, description="Added to the mean square in RMSNorm.")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_kv_heads: found {self.num_kv_heads} with num_heads {self.num_heads}; "
                f"expected a divisor "
                "of num_heads. Set num_kv_heads to num_heads or a divisor of it."
            )
        if self.head_dim % 2:
            raise ValueError(
                f"head_dim: found {self.head_dim}; expected an even number. The rotary embedding "
                f"turns pairs."
            )
        return self


class ExpertConfig(Settings):
    """The action expert: a block beside each decoder block, reading its keys and values."""

    width: PositiveInt = Field(
        description="Size of the expert's residual stream; even, for the time embedding."
    )
    mlp_width: PositiveInt = Field(description="Hidden size of each expert block's MLP.")


class ModelConfig(Settings):
    """A VLA composed of a timm tower, a projector, a decoder and a flow-matching action expert."""

    kind: Literal["composed"] = Field("composed", description="The family of backbone.")
    image_height: PositiveInt = Field(description="Rows of every image the model sees, in pixels.")
    image_width: PositiveInt = Field(
        description="Columns of every image the model sees, in pixels."
    )
    num_cameras: PositiveInt = Field(
        description="Camera slots, in the order of the transforms' cameras."
    )
    max_prompt_tokens: PositiveInt = Field(
        description="Longest instruction in tokens; longer ones are refused."
    )
    state_dim: PositiveInt = Field(
        description="Columns of the state; a robot with fewer is zero-padded."
    )
    action_dim: PositiveInt = Field(
        description="Columns of an action; a robot with fewer is zero-padded."
    )
    action_horizon: PositiveInt = Field(description="Steps of an action chunk.")
    num_sampling_steps: PositiveInt = Field(
        10,
        description="Euler steps from noise to actions; more is slower and closer to the exact "
        "flow.",
    )
    vision: VisionConfig = Field(description="The vision tower.")
    language: DecoderConfig = Field(description="The language decoder.")
    expert: ExpertConfig = Field(description="The action expert.")
