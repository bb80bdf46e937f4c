"""The language decoder: Llama, Qwen2, Qwen3 and Gemma blocks that return keys and values.

Ours rather than transformers' because every block must hand out its keys and values with their
gradients (transformers' activation checkpointing drops the cache in training), attend in both
directions over the prefix, and spend nothing on the last block's output, which no expert reads.
Parameters carry transformers' names, so published weights load one to one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from policy_ft.config.model import DecoderConfig
from policy_ft.models.attention import attend, rotary_table, rotate, split_heads
from policy_ft.models.layers import GatedMLP, RMSNorm, run_block


@dataclass(frozen=True)
class DecoderFamily:
    """What sets one published family apart from the others."""

    activation: str
    norm_unit_offset: bool
    qkv_bias: bool
    qk_norm: bool
    scaled_embedding: bool


FAMILIES = {
    "llama": DecoderFamily("silu", False, False, False, False),
    "qwen2": DecoderFamily("silu", False, True, False, False),
    "qwen3": DecoderFamily("silu", False, False, True, False),
    "gemma": DecoderFamily("gelu_tanh", True, False, False, True),
}


class DecoderAttention(nn.Module):
    """Self-attention of one block; keys and values can be computed without the rest."""

    def __init__(self, config: DecoderConfig, family: DecoderFamily) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        width, bias = config.width, family.qkv_bias
        self.q_proj = nn.Linear(width, config.num_heads * config.head_dim, bias=bias)
        self.k_proj = nn.Linear(width, config.num_kv_heads * config.head_dim, bias=bias)
        self.v_proj = nn.Linear(width, config.num_kv_heads * config.head_dim, bias=bias)
        self.o_proj = nn.Linear(config.num_heads * config.head_dim, width, bias=False)
        self.q_norm = RMSNorm(config.head_dim, config.norm_eps) if family.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(config.head_dim, config.norm_eps) if family.qk_norm else nn.Identity()

    def keys_values(self, x: Tensor, table: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Keys after the rotary embedding and values, each float[b, g, n, d]."""
        key = self.k_norm(split_heads(self.k_proj(x), self.head_dim))
        return rotate(key, table), split_heads(self.v_proj(x), self.head_dim)

    def forward(
        self, x: Tensor, key: Tensor, value: Tensor, mask: Tensor, table: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Attention output float[b, n, w] over keys and values of `keys_values`."""
        query = self.q_norm(split_heads(self.q_proj(x), self.head_dim))
        return self.o_proj(attend(rotate(query, table), key, value, mask))


class DecoderBlock(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, config: DecoderConfig, family: DecoderFamily) -> None:
        super().__init__()
        offset = family.norm_unit_offset
        self.input_layernorm = RMSNorm(config.width, config.norm_eps, unit_offset=offset)
        self.self_attn = DecoderAttention(config, family)
        self.post_attention_layernorm = RMSNorm(config.width, config.norm_eps, unit_offset=offset)
        self.mlp = GatedMLP(config.width, config.mlp_width, family.activation)

    def forward(
        self, x: Tensor, mask: Tensor, table: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The next residual stream float[b, n, w], and this block's keys and values."""
        normalized = self.input_layernorm(x)
        key, value = self.self_attn.keys_values(normalized, table)
        x = x + self.self_attn(normalized, key, value, mask, table)
        return x + self.mlp(self.post_attention_layernorm(x)), key, value

    def keys_values(self, x: Tensor, table: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """This block's keys and values alone."""
        return self.self_attn.keys_values(self.input_layernorm(x), table)


class Decoder(nn.Module):
    """A stack of decoder blocks over embedded tokens.

    Letters: b batch, n token, w width, g key-value head, d head size.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        family = FAMILIES[config.family]
        self.config = config
        self.checkpoint_activations = False
        self.embedding_scale = config.width**0.5 if family.scaled_embedding else 1.0
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        nn.init.normal_(self.embed_tokens.weight, std=config.width**-0.5)
        self.layers = nn.ModuleList(DecoderBlock(config, family) for _ in range(config.depth))
        self.norm = RMSNorm(config.width, config.norm_eps, unit_offset=family.norm_unit_offset)

    @property
    def dormant(self) -> tuple[str, ...]:
        """Parameters that no key or value depends on: the last block's output, the final norm."""
        last = f"layers.{len(self.layers) - 1}."
        dead = ("self_attn.q_", "self_attn.o_", "mlp.", "post_attention_layernorm.")
        return tuple(
            name
            for name, _ in self.named_parameters()
            if name.startswith(("norm.", *(last + part for part in dead)))
        )

    @property
    def blocks(self) -> list[nn.Module]:
        """The parts worth compiling, one by one: `keys_values` runs no more of the last block."""
        return list(self.layers[:-1])

    def embed(self, tokens: Tensor) -> Tensor:
        """int64[b, l] -> float[b, l, w], scaled as the family scales."""
        return self.embed_tokens(tokens) * self.embedding_scale

    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The rotary table of int64[b, n] positions."""
        return rotary_table(positions, self.config.head_dim, self.config.rope_theta)

    def keys_values(
        self, x: Tensor, mask: Tensor, positions: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Every block's keys (after rotation) and values, each float[b, g, n, d].

        Args:
            x: float[b, n, w], embedded tokens.
            mask: bool[b, 1, n, n], True where a query (axis 2) may see a key (axis 3).
            positions: int64[b, n].
        """
        table = self.rotary(positions)
        keys, values = [], []
        for layer in self.layers[:-1]:
            x, key, value = run_block(
                layer, x, mask, table, checkpointed=self.checkpoint_activations
            )
            keys.append(key)
            values.append(value)
        last = cast(DecoderBlock, self.layers[-1])
        key, value = last.keys_values(x, table)
        return (*keys, key), (*values, value)

    def hidden_states(self, x: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """The final stream float[b, n, w] a language head reads; arguments as `keys_values`."""
        table = self.rotary(positions)
        for layer in self.layers:
            x, _, _ = layer(x, mask, table)
        return self.norm(x)


def decoder_config_from_transformers(config: Mapping[str, Any]) -> DecoderConfig:
    """DecoderConfig of a transformers config.json.

    Raises:
        ValueError: the model_type is not one of FAMILIES, or a setting has no counterpart here.
    """
    family = config.get("model_type")
    if family not in FAMILIES:
        raise ValueError(
            f"config.json, model_type: found {family!r}; expected one of {sorted(FAMILIES)}. "
            "Choose a language model of one of these families."
        )
    rope = config.get("rope_parameters") or {}
    if config.get("rope_scaling") or rope.get("rope_type", "default") != "default":
        raise ValueError(
            f"config.json, rope_scaling: found {config.get('rope_scaling') or rope!r}; expected "
            f"the default "
            "rotary embedding. Choose a checkpoint without rope scaling."
        )
    heads, width = config["num_attention_heads"], config["hidden_size"]
    return DecoderConfig(
        family=family,
        vocab_size=config["vocab_size"],
        width=width,
        depth=config["num_hidden_layers"],
        mlp_width=config["intermediate_size"],
        num_heads=heads,
        num_kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or width // heads,
        rope_theta=rope.get("rope_theta", config.get("rope_theta", 10_000.0)),
        norm_eps=config["rms_norm_eps"],
    )
