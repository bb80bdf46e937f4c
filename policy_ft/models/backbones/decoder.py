"""The language decoder: Llama, Qwen2, Qwen3 and Gemma blocks that return keys and values.

Ours rather than transformers' because every block must hand out its keys and values with their
gradients (transformers' activation checkpointing drops the cache in training), attend in both
directions over the prefix, and spend nothing on the last block's output, which no expert reads.
Parameters carry transformers' names, so published weights load one to one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from policy_ft.config.model import DecoderConfig
from policy_ft.models.attention import attend, rotary_table, rotate, split_heads
from policy_ft.models.layers import GatedMLP, RMSNorm, run_block
from policy_ft.models.prefix import Prefix

Table = tuple[Tensor, Tensor]


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

    def keys_values(self, x: Tensor, table: Table) -> tuple[Tensor, Tensor]:
        """Keys after the rotary embedding and values, each float[b, g, n, d]."""
        key = self.k_norm(split_heads(self.k_proj(x), self.head_dim))
        return rotate(key, table), split_heads(self.v_proj(x), self.head_dim)

    def forward(self, x: Tensor, key: Tensor, value: Tensor, mask: Tensor, table: Table) -> Tensor:
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
        self,
        x: Tensor,
        mask: Tensor,
        table: Table,
        past: tuple[Tensor, Tensor] | None = None,
        is_read: bool = True,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The next residual stream, and this block's keys and values.

        All uses of a block go through here: wrappers (compilation, sharding) hook only forward.

        Args:
            x: float[b, n, w].
            mask: bool[b, 1, n, p + n], True where a query may see a key.
            table: rotary table of the n positions.
            past: keys and values of p tokens before these, each float[b, g, p, d].
            is_read: whether anything reads the next stream; where not, only keys and values are
                computed and x is returned as it came.

        Returns:
            float[b, n, w], and float[b, g, n, d] keys and values of the n tokens.
        """
        normalized = self.input_layernorm(x)
        key, value = self.self_attn.keys_values(normalized, table)
        if not is_read:
            return x, key, value
        seen_key, seen_value = key, value
        if past is not None:
            seen_key = torch.cat((past[0].to(key.dtype), key), dim=2)
            seen_value = torch.cat((past[1].to(value.dtype), value), dim=2)
        x = x + self.self_attn(normalized, seen_key, seen_value, mask, table)
        return x + self.mlp(self.post_attention_layernorm(x)), key, value


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
        """The parts worth compiling and sharding, one by one."""
        return list(self.layers)

    def embed(self, tokens: Tensor) -> Tensor:
        """int64[b, l] -> float[b, l, w], scaled as the family scales."""
        return self.embed_tokens(tokens) * self.embedding_scale

    def rotary(self, positions: Tensor) -> Table:
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
        table, last = self.rotary(positions), len(self.layers) - 1
        keys, values = [], []
        for place, layer in enumerate(self.layers):
            x, key, value = self._run(layer, x, mask, table, None, place < last)
            keys.append(key)
            values.append(value)
        return tuple(keys), tuple(values)

    def hidden_states(self, x: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """The final stream float[b, n, w] a language head reads; arguments as `keys_values`."""
        table = self.rotary(positions)
        for layer in self.layers:
            x, _, _ = self._run(layer, x, mask, table)
        return self.norm(x)

    def continued(self, x: Tensor, prefix: Prefix) -> Tensor:
        """The final stream of tokens behind a prefix, each of which sees it and those before it.

        Padding belongs at the end, where no real token sees it.

        Args:
            x: float[b, l, w], embedded tokens.
            prefix: of b observations, made by this decoder.

        Returns:
            float[b, l, w], after the final norm.
        """
        batch, length = x.shape[:2]
        place = torch.arange(length, device=x.device)
        own = (place[None, :] <= place[:, None]).expand(batch, 1, -1, -1)
        mask = torch.cat((prefix.mask[:, None, None, :].expand(-1, 1, length, -1), own), dim=-1)
        table = self.rotary(prefix.length[:, None] + place[None, :])
        for layer, key, value in zip(self.layers, prefix.keys, prefix.values, strict=True):
            x, _, _ = self._run(layer, x, mask, table, (key, value))
        return self.norm(x)

    def _run(self, layer: nn.Module, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        return run_block(layer, *inputs, checkpointed=self.checkpoint_activations)


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
