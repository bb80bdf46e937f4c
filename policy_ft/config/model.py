"""Settings that decide a model's architecture; saved in the checkpoint as model.json."""

from typing import Literal, Self

from pydantic import Field, StrictBool, StrictInt, model_validator

from policy_ft.config.base import NonNegativeInt, PositiveInt, Real, Settings
from policy_ft.config.edits import Edit


class TimmVisionConfig(Settings):
    """A vision tower from timm: any model with feature levels, cut after one of them."""

    kind: Literal["timm"] = Field("timm", description="Where the tower's code comes from.")
    tower: str = Field(
        description="Name of the timm model, e.g. 'resnetv2_18' or 'vit_base_patch16_siglip_224'."
    )
    tower_args: dict[str, StrictBool | StrictInt | float | str | list[int]] = Field(
        default_factory=dict,
        description="Keyword arguments of timm.create_model that change the architecture.",
    )
    feature_level: NonNegativeInt = Field(
        description="Index of the timm feature level whose grid cells become image tokens; deeper "
        "is coarser."
    )
    film: StrictBool = Field(
        False,
        description="Whether the instruction scales and shifts the tower's features after every "
        "level up to feature_level (FiLM, Perez et al. 2017; in a VLA: OpenVLA-OFT+). Helps small "
        "towers to listen.",
    )


class SiglipVisionConfig(Settings):
    """The SigLIP tower of pi0, pi0.5 and SmolVLA (Zhai et al. 2023), under its published names."""

    kind: Literal["siglip"] = Field(description="Where the tower's code comes from.")
    patch_size: PositiveInt = Field(description="Rows and columns of a patch, in pixels.")
    width: PositiveInt = Field(description="Size of the residual stream (hidden_size).")
    depth: PositiveInt = Field(description="Number of blocks (num_hidden_layers).")
    num_heads: PositiveInt = Field(description="Attention heads; divides width.")
    mlp_width: PositiveInt = Field(
        description="Hidden size of each block's MLP (intermediate_size)."
    )
    norm_eps: Real = Field(1e-6, gt=0, description="Added to the variance in LayerNorm.")
    shifted_positions: StrictBool = Field(
        False,
        description="Whether patch i of a row or column takes the learned position of patch i - 1 "
        "(patch 0 its own). A rounding fault of SmolVLM in transformers 4 when it computes in "
        "float32; on for checkpoints that were trained with it.",
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.num_heads:
            raise ValueError(
                f"num_heads: found {self.num_heads} with width {self.width}; expected a divisor of "
                "width. Change one of the two."
            )
        return self


class NoVisionConfig(Settings):
    """No vision tower: the policy reads instruction and state alone."""

    kind: Literal["none"] = Field(description="That there is none.")


class ConnectorConfig(Settings):
    """What lies between the tower's features and the decoder's stream."""

    pixel_shuffle: PositiveInt = Field(
        1,
        description="Features of n x n neighbouring cells become one token (SmolVLM: 4); 1 keeps "
        "every cell.",
    )
    bias: StrictBool = Field(True, description="Whether the projection adds a bias.")
    slot_positions: StrictBool = Field(
        True,
        description="Whether every cell of every camera slot has a learned position of its own.",
    )
    scale_tokens: StrictBool = Field(
        False,
        description="Whether image and prompt tokens are multiplied by the root of the decoder's "
        "width, beyond what its family does (SmolVLA).",
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
    time: Literal["adaptive_norm", "concat"] = Field(
        "adaptive_norm",
        description="How flow time enters. adaptive_norm: it scales, shifts and gates every block "
        "(pi0.5). concat: it is mixed into every action token by an MLP (pi0, SmolVLA).",
    )
    state_token: Literal["suffix", "prefix", "none"] = Field(
        "suffix",
        description="Where the state enters. suffix: the expert's first token (pi0). prefix: the "
        "backbone's last token (SmolVLA). none: the prompt says it in words (pi0.5).",
    )
    self_attention_every: PositiveInt = Field(
        1,
        description="Blocks whose index is a multiple of this attend to prefix and suffix "
        "together; the others to the prefix alone, through projections of its keys and values. 1 "
        "in pi0, 2 in SmolVLA.",
    )
    causal: StrictBool = Field(
        False, description="Whether an action step sees only the steps up to itself (SmolVLA)."
    )
    min_period: Real = Field(
        4e-3, gt=0, description="Shortest period of the time embedding; flow time runs from 0 to 1."
    )
    max_period: Real = Field(4.0, gt=0, description="Longest period of the time embedding.")

    @model_validator(mode="after")
    def _embeds_time(self) -> Self:
        if self.width % 2:
            raise ValueError(
                f"width: found {self.width}; expected an even number. The time embedding is half "
                "sines, half cosines."
            )
        return self


Family = Literal["pi0", "pi05", "smolvla", "own"]

_FAMILIES: dict[tuple[str, str, str, str], Family] = {
    ("siglip", "gemma", "concat", "suffix"): "pi0",
    ("siglip", "gemma", "adaptive_norm", "none"): "pi05",
    ("siglip", "llama", "concat", "prefix"): "smolvla",
}


class ModelConfig(Settings):
    """A VLA: a vision tower, a connector, a language decoder and a flow-matching action expert."""

    image_height: NonNegativeInt = Field(
        0, description="Rows of every image the model sees, in pixels; 0 without vision."
    )
    image_width: NonNegativeInt = Field(
        0, description="Columns of every image the model sees, in pixels; 0 without vision."
    )
    num_cameras: NonNegativeInt = Field(
        0, description="Camera slots, in the order of the transforms' cameras; 0 without vision."
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
    vision: TimmVisionConfig | SiglipVisionConfig | NoVisionConfig = Field(
        discriminator="kind", description="The vision tower; {kind: none} for none."
    )
    connector: ConnectorConfig = Field(
        ConnectorConfig(), description="From the tower's features to the decoder's tokens."
    )
    language: DecoderConfig = Field(description="The language decoder.")
    expert: ExpertConfig = Field(description="The action expert.")
    edits: tuple[Edit, ...] = Field(
        (),
        exclude_if=lambda edits: not edits,  # records of plain models stay as they always were
        description="What the network is changed by once it is built, in order: adapters (kind "
        "lora), blocks taken out (kind drop_layers).",
    )

    @property
    def family(self) -> Family:
        """The published family of this structure, which decides whose files it reads and writes."""
        parts = (
            self.vision.kind,
            self.language.family,
            self.expert.time,
            self.expert.state_token,
        )
        return _FAMILIES.get(parts, "own")

    @model_validator(mode="after")
    def _sees_or_does_not(self) -> Self:
        sizes = {n: getattr(self, n) for n in ("image_height", "image_width", "num_cameras")}
        kind = self.vision.kind
        if kind == "none":
            given = [name for name, size in sizes.items() if size]
            given += ["connector"] if self.connector != ConnectorConfig() else []
            expected, remedy = "none of them", "Leave them out, or name a tower in vision"
        else:
            given = [name for name, size in sizes.items() if not size]
            expected, remedy = "at least 1", "Set them, or vision to {kind: none}"
        if given:
            values = {name: sizes.get(name, "settings") for name in given}
            raise ValueError(
                f"{', '.join(given)}: found {values} with vision.kind {kind!r}; expected "
                f"{expected}. {remedy}."
            )
        return self

    @model_validator(mode="after")
    def _patches_tile(self) -> Self:
        if isinstance(self.vision, SiglipVisionConfig):
            cell = self.vision.patch_size * self.connector.pixel_shuffle
            wrong = [n for n in (self.image_height, self.image_width) if n % cell]
            if wrong:
                raise ValueError(
                    f"image_height, image_width: found {self.image_height} x {self.image_width}; "
                    f"expected multiples of {cell} (patch_size x pixel_shuffle). Change one of "
                    "them."
                )
        return self
