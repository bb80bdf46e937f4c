"""The action expert: a narrow transformer over state and noisy actions that reads a Prefix.

Letters: b batch, k noise draw, h action step, a action column, m suffix token, n prefix token, w
expert width.
"""

from typing import NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional

from policy_ft.config.model import DecoderConfig, ExpertConfig, ModelConfig
from policy_ft.models.attention import attend, rotary_table, rotate, split_heads
from policy_ft.models.flow import time_embedding
from policy_ft.models.layers import AdaptiveRMSNorm, GatedMLP
from policy_ft.models.prefix import Prefix

Table = tuple[Tensor, Tensor]


class SuffixLayout(NamedTuple):
    """Where suffix tokens sit and what they see: what every block needs besides its input."""

    mask: Tensor
    """bool[b, 1, m, n + m]."""
    table: Table
    """Rotary table of the suffix positions."""


class ExpertAttention(nn.Module):
    """Suffix queries over the prefix's keys and values followed by the suffix's own."""

    def __init__(self, width: int, backbone: DecoderConfig) -> None:
        super().__init__()
        self.head_dim = backbone.head_dim
        kv_width = backbone.num_kv_heads * backbone.head_dim
        self.q_proj = nn.Linear(width, backbone.num_heads * backbone.head_dim, bias=False)
        self.k_proj = nn.Linear(width, kv_width, bias=False)
        self.v_proj = nn.Linear(width, kv_width, bias=False)
        self.o_proj = nn.Linear(backbone.num_heads * backbone.head_dim, width, bias=False)

    def forward(
        self, x: Tensor, prefix_key: Tensor, prefix_value: Tensor, layout: SuffixLayout
    ) -> Tensor:
        """float[b, m, w] -> float[b, m, w]."""
        query = rotate(split_heads(self.q_proj(x), self.head_dim), layout.table)
        key = rotate(split_heads(self.k_proj(x), self.head_dim), layout.table)
        value = split_heads(self.v_proj(x), self.head_dim)
        key = torch.cat((prefix_key.to(key.dtype), key), dim=2)
        value = torch.cat((prefix_value.to(value.dtype), value), dim=2)
        return self.o_proj(attend(query, key, value, layout.mask))


class ExpertBlock(nn.Module):
    """One block with time-conditioned norms and gated residuals (pi0.5)."""

    def __init__(self, config: ExpertConfig, backbone: DecoderConfig) -> None:
        super().__init__()
        self.input_layernorm = AdaptiveRMSNorm(config.width, config.width, backbone.norm_eps)
        self.self_attn = ExpertAttention(config.width, backbone)
        self.post_attention_layernorm = AdaptiveRMSNorm(
            config.width, config.width, backbone.norm_eps
        )
        activation = "gelu_tanh" if backbone.family == "gemma" else "silu"
        self.mlp = GatedMLP(config.width, config.mlp_width, activation)

    def forward(
        self,
        x: Tensor,
        condition: Tensor,
        prefix_key: Tensor,
        prefix_value: Tensor,
        layout: SuffixLayout,
    ) -> Tensor:
        """float[b, m, w] -> float[b, m, w]."""
        normalized, gate = self.input_layernorm(x, condition)
        x = x + gate * self.self_attn(normalized, prefix_key, prefix_value, layout)
        normalized, gate = self.post_attention_layernorm(x, condition)
        return x + gate * self.mlp(normalized)


class ActionExpert(nn.Module):
    """Velocity of noisy action chunks, given what the policy saw.

    The suffix is one state token and h action tokens a noise draw. All see the prefix; the state
    token sees itself; action tokens see their own draw's state and actions (the block rule of pi0,
    one block each for prefix, state and actions). Several draws lie side by side in one sequence
    and do not see each other, so the prefix is never copied.
    """

    def __init__(self, config: ExpertConfig, backbone: DecoderConfig, model: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.width = width
        self.head_dim, self.rope_theta = backbone.head_dim, backbone.rope_theta
        self.state_proj = nn.Linear(model.state_dim, width)
        self.action_in_proj = nn.Linear(model.action_dim, width)
        self.time_mlp_in = nn.Linear(width, width)
        self.time_mlp_out = nn.Linear(width, width)
        self.layers = nn.ModuleList(ExpertBlock(config, backbone) for _ in range(backbone.depth))
        self.norm = AdaptiveRMSNorm(width, width, backbone.norm_eps)
        self.action_out_proj = nn.Linear(width, model.action_dim)

    def forward(self, prefix: Prefix, state: Tensor, noisy_actions: Tensor, time: Tensor) -> Tensor:
        """Velocity noise - actions.

        Args:
            prefix: of the same b observations.
            state: float32[b, s].
            noisy_actions: float[b, k, h, a].
            time: float32[b, k], 1 = noise, 0 = actions.

        Returns:
            float[b, k, h, a] in float32.
        """
        draws, horizon = noisy_actions.shape[1:3]
        condition = self.time_mlp_in(time_embedding(time, self.width))
        condition = functional.silu(self.time_mlp_out(functional.silu(condition)))
        condition = repeat(condition, "b k w -> b (k m) w", m=1 + horizon)
        x = self._tokens(state, noisy_actions)
        layout = self._layout(prefix, draws, horizon)
        for layer, key, value in zip(self.layers, prefix.keys, prefix.values, strict=True):
            x = layer(x, condition, key, value, layout)
        x, _ = self.norm(x, condition)
        x = rearrange(x, "b (k m) w -> b k m w", k=draws)[:, :, 1:]
        with torch.autocast(x.device.type, enabled=False):
            return self.action_out_proj(x.float())

    def _tokens(self, state: Tensor, noisy_actions: Tensor) -> Tensor:
        """float[b, k * (1 + h), w]: [state, action, action, ...] of each draw in turn."""
        actions = self.action_in_proj(noisy_actions)
        states = repeat(self.state_proj(state), "b w -> b k 1 w", k=actions.shape[1])
        return rearrange(torch.cat((states, actions), dim=2), "b k m w -> b (k m) w")

    def _layout(self, prefix: Prefix, draws: int, horizon: int) -> SuffixLayout:
        """Positions and mask of the suffix.

        Worked example, two draws of two actions: the suffix is [s A A s A A] at positions
        [0 1 2 0 1 2] behind the prefix. The first s sees itself, each A of its draw sees that s and
        both A, and nobody sees anything of the other draw.
        """
        device, per_draw = prefix.mask.device, 1 + horizon
        step = torch.arange(draws * per_draw, device=device)
        draw, place = step // per_draw, step % per_draw
        is_action = place > 0
        own = (draw[:, None] == draw[None, :]) & (is_action[:, None] | ~is_action[None, :])
        batch, tokens = prefix.mask.shape[0], len(step)
        mask = torch.cat(
            (
                prefix.mask[:, None, None, :].expand(-1, 1, tokens, -1),
                own[None, None].expand(batch, 1, -1, -1),
            ),
            dim=-1,
        )
        positions = prefix.length[:, None] + place[None, :]
        return SuffixLayout(mask, rotary_table(positions, self.head_dim, self.rope_theta))
