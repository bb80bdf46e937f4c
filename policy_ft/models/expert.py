"""The action expert: a narrow transformer over noisy actions (and the state) that reads a Prefix.

Letters: b batch, k noise draw, h action step, a action column, m suffix token of one draw, n prefix
token, g key-value head, d head size, w expert width.
"""

from typing import Any, NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional

from policy_ft.config.model import DecoderConfig, ExpertConfig, ModelConfig
from policy_ft.models.attention import attend, rotary_table, rotate, split_heads
from policy_ft.models.backbones.decoder import FAMILIES
from policy_ft.models.flow_path import time_embedding
from policy_ft.models.layers import AdaptiveRMSNorm, GatedMLP, RMSNorm, run_block
from policy_ft.models.prefix import Prefix

Table = tuple[Tensor, Tensor]


class ExpertContext(NamedTuple):
    """What every step of the flow reads and none changes: made once from a Prefix."""

    keys: tuple[Tensor, ...]
    """One float[b, g, n, d] a block: the prefix's keys, as this block attends to them."""
    values: tuple[Tensor, ...]
    """One float[b, g, n, d] a block."""
    prefix_mask: Tensor
    """bool[b, 1, 1, n], what cross-attention sees."""
    joint_mask: Tensor
    """bool[b, 1, k m, n + k m], what joint attention sees."""
    joint_table: Table
    """Rotary table of the suffix behind the prefix."""
    cross_table: Table
    """Rotary table of the suffix on its own."""


class JointAttention(nn.Module):
    """Suffix queries over the prefix's keys and values followed by the suffix's own."""

    def __init__(self, width: int, backbone: DecoderConfig) -> None:
        super().__init__()
        self.head_dim = backbone.head_dim
        kv_width = backbone.num_kv_heads * backbone.head_dim
        self.q_proj = nn.Linear(width, backbone.num_heads * backbone.head_dim, bias=False)
        self.k_proj = nn.Linear(width, kv_width, bias=False)
        self.v_proj = nn.Linear(width, kv_width, bias=False)
        self.o_proj = nn.Linear(backbone.num_heads * backbone.head_dim, width, bias=False)

    def prefix_keys_values(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The backbone's own, unchanged."""
        return key, value

    def forward(
        self, x: Tensor, prefix_key: Tensor, prefix_value: Tensor, context: ExpertContext
    ) -> Tensor:
        """float[b, k m, w] -> the same shape."""
        query = rotate(split_heads(self.q_proj(x), self.head_dim), context.joint_table)
        key = rotate(split_heads(self.k_proj(x), self.head_dim), context.joint_table)
        value = split_heads(self.v_proj(x), self.head_dim)
        key = torch.cat((prefix_key.to(key.dtype), key), dim=2)
        value = torch.cat((prefix_value.to(value.dtype), value), dim=2)
        return self.o_proj(attend(query, key, value, context.joint_mask))


class CrossAttention(nn.Module):
    """Suffix queries over projections of the prefix's keys and values; suffix tokens do not mix.

    The keys have been rotated by the backbone and are not rotated again; the queries count their
    positions from 0. Source: SmolVLA (Shukor et al. 2025), LeRobot's smolvlm_with_expert.py.
    """

    def __init__(self, width: int, backbone: DecoderConfig) -> None:
        super().__init__()
        self.head_dim = backbone.head_dim
        kv_width = backbone.num_kv_heads * backbone.head_dim
        self.q_proj = nn.Linear(width, backbone.num_heads * backbone.head_dim, bias=False)
        self.k_proj = nn.Linear(kv_width, kv_width, bias=False)
        self.v_proj = nn.Linear(kv_width, kv_width, bias=False)
        self.o_proj = nn.Linear(backbone.num_heads * backbone.head_dim, width, bias=False)

    def prefix_keys_values(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Projections of the backbone's, of the same shapes float[b, g, n, d]."""
        return (
            split_heads(self.k_proj(rearrange(key, "b g n d -> b n (g d)")), self.head_dim),
            split_heads(self.v_proj(rearrange(value, "b g n d -> b n (g d)")), self.head_dim),
        )

    def forward(
        self, x: Tensor, prefix_key: Tensor, prefix_value: Tensor, context: ExpertContext
    ) -> Tensor:
        """float[b, k m, w] -> the same shape."""
        query = rotate(split_heads(self.q_proj(x), self.head_dim), context.cross_table)
        key, value = prefix_key.to(query.dtype), prefix_value.to(query.dtype)
        return self.o_proj(attend(query, key, value, context.prefix_mask))


class ExpertBlock(nn.Module):
    """One pre-norm block; adaptive norms gate what it adds to the stream (pi0.5)."""

    def __init__(self, config: ExpertConfig, backbone: DecoderConfig, index: int) -> None:
        super().__init__()
        is_joint = index % config.self_attention_every == 0
        attention = JointAttention if is_joint else CrossAttention
        self.input_layernorm = _norm(config, backbone)
        self.self_attn = attention(config.width, backbone)
        self.post_attention_layernorm = _norm(config, backbone)
        activation = FAMILIES[backbone.family].activation
        self.mlp = GatedMLP(config.width, config.mlp_width, activation)

    def forward(
        self,
        key: Tensor,
        value: Tensor,
        x: Tensor | None = None,
        condition: Tensor | None = None,
        context: ExpertContext | None = None,
    ) -> Any:
        """The next stream; or, without a stream, what this block reads of the prefix.

        All uses of a block go through here: wrappers (compilation, sharding) hook only forward.

        Args:
            key: float[b, g, n, d], the prefix's; of the context where there is a stream.
            value: of the same shape.
            x: float[b, k, m, w], the stream.
            condition: of adaptive norms.
            context: that the stream is in.

        Returns:
            float[b, k, m, w]; without a stream two float[b, g, n, d] for the context.
        """
        if x is None or context is None:
            return self.self_attn.prefix_keys_values(key, value)
        normalized, gate = _normalized(self.input_layernorm, x, condition)
        flat = rearrange(normalized, "b k m w -> b (k m) w")
        attended = self.self_attn(flat, key, value, context)
        x = _added(x, attended.view(x.shape), gate)
        normalized, gate = _normalized(self.post_attention_layernorm, x, condition)
        return _added(x, self.mlp(normalized), gate)


class ActionExpert(nn.Module):
    """Velocity of noisy action chunks, given what the policy saw.

    The suffix of a noise draw is h action tokens, behind a state token where the model has one
    here. All see the prefix; the state token sees itself; action tokens see their own draw's state
    and actions, or with `causal` those up to themselves. Several draws lie side by side in one
    sequence and do not see each other, so the prefix is never copied.
    """

    def __init__(self, config: ExpertConfig, backbone: DecoderConfig, model: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.head_dim, self.rope_theta = backbone.head_dim, backbone.rope_theta
        self.checkpoint_activations = False
        if config.state_token == "suffix":
            self.state_proj = nn.Linear(model.state_dim, width)
        self.action_in_proj = nn.Linear(model.action_dim, width)
        if config.time == "concat":
            self.action_time_mlp_in = nn.Linear(2 * width, width)
            self.action_time_mlp_out = nn.Linear(width, width)
        else:
            self.time_mlp_in = nn.Linear(width, width)
            self.time_mlp_out = nn.Linear(width, width)
        self.layers = nn.ModuleList(
            ExpertBlock(config, backbone, index) for index in range(backbone.depth)
        )
        self.norm = _norm(config, backbone)
        self.action_out_proj = nn.Linear(width, model.action_dim)

    def forward(self, prefix: Prefix, state: Tensor, noisy_actions: Tensor, time: Tensor) -> Tensor:
        """Velocity noise - actions, float32[b, k, h, a]; arguments as `context` and `velocity`."""
        draws, horizon = noisy_actions.shape[1:3]
        return self.velocity(self.context(prefix, draws, horizon), state, noisy_actions, time)

    def context(self, prefix: Prefix, draws: int, horizon: int) -> ExpertContext:
        """What does not depend on actions or time, for any number of `velocity` calls.

        Worked example, a state token and two draws of two actions: the suffix is [s A A s A A] at
        positions [0 1 2 0 1 2] behind the prefix. The first s sees itself, each A of its draw sees
        that s and both A, and nobody sees anything of the other draw.

        Args:
            prefix: of b observations.
            draws: k.
            horizon: h.
        """
        read = [
            layer(key, value)
            for layer, key, value in zip(self.layers, prefix.keys, prefix.values, strict=True)
        ]
        device, per_draw = prefix.mask.device, self._num_leading + horizon
        step = torch.arange(draws * per_draw, device=device)
        draw, place = step // per_draw, step % per_draw
        # a token sees the blocks up to its own: the state before the actions, and with `causal`
        # every action a block
        block = place if self.config.causal else place.clamp(max=self._num_leading)
        own = (draw[:, None] == draw[None, :]) & (block[None, :] <= block[:, None])
        batch, tokens = prefix.mask.shape[0], len(step)
        prefix_mask = prefix.mask[:, None, None, :]
        return ExpertContext(
            keys=tuple(key for key, _ in read),
            values=tuple(value for _, value in read),
            prefix_mask=prefix_mask,
            joint_mask=torch.cat(
                (
                    prefix_mask.expand(-1, 1, tokens, -1),
                    own[None, None].expand(batch, 1, -1, -1),
                ),
                dim=-1,
            ),
            joint_table=self._rotary(prefix.length[:, None] + place[None, :]),
            cross_table=self._rotary(place[None, :]),
        )

    def velocity(
        self, context: ExpertContext, state: Tensor, noisy_actions: Tensor, time: Tensor
    ) -> Tensor:
        """Velocity noise - actions.

        Args:
            context: of the same b observations, k draws and h steps.
            state: float32[b, s].
            noisy_actions: float[b, k, h, a].
            time: float32[b, k] of whole chunks, or [b, k, h] of each step; 1 = noise, 0 = actions.

        Returns:
            float32[b, k, h, a].
        """
        # actions and times stay in float32: they have no redundancy to average rounding away
        with torch.autocast(state.device.type, enabled=False):
            x, condition = self._tokens(state, noisy_actions, time)
        x = x.to(context.keys[0].dtype)
        # wrappers follow every tensor that goes into a block: it gets its own keys alone
        shared = context._replace(keys=(), values=())
        for layer, key, value in zip(self.layers, context.keys, context.values, strict=True):
            x = run_block(
                layer, key, value, x, condition, shared, checkpointed=self.checkpoint_activations
            )
        x, _ = _normalized(self.norm, x, condition)
        with torch.autocast(x.device.type, enabled=False):
            return self.action_out_proj(x[:, :, self._num_leading :].float())

    @property
    def _num_leading(self) -> int:
        """Suffix tokens before the first action."""
        return 1 if self.config.state_token == "suffix" else 0

    def _rotary(self, positions: Tensor) -> Table:
        return rotary_table(positions, self.head_dim, self.rope_theta)

    def _tokens(
        self, state: Tensor, noisy_actions: Tensor, time: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """The suffix float[b, k, m, w], and the condition of adaptive norms.

        That is float[b, k, 1, w], or float[b, k, m, w] where each step has a time of its own; a
        state token then has that of the last step, the latest to become an action.
        """
        embedding = time_embedding(
            time if time.ndim == 3 else time[:, :, None],
            self.config.width,
            self.config.min_period,
            self.config.max_period,
        )
        actions, condition = self.action_in_proj(noisy_actions.float()), None
        if self.config.time == "concat":
            both = torch.cat((actions, embedding.expand_as(actions)), dim=-1)
            actions = self.action_time_mlp_out(functional.silu(self.action_time_mlp_in(both)))
        else:
            condition = functional.silu(self.time_mlp_in(embedding))
            condition = functional.silu(self.time_mlp_out(condition))
        if self.config.state_token == "suffix":
            states = repeat(self.state_proj(state), "b w -> b k 1 w", k=actions.shape[1])
            actions = torch.cat((states, actions), dim=2)
            if condition is not None and time.ndim == 3:
                condition = torch.cat((condition[:, :, -1:], condition), dim=2)
        return actions, condition


def _norm(config: ExpertConfig, backbone: DecoderConfig) -> AdaptiveRMSNorm | RMSNorm:
    if config.time == "adaptive_norm":
        return AdaptiveRMSNorm(config.width, config.width, backbone.norm_eps)
    unit_offset = FAMILIES[backbone.family].norm_unit_offset
    return RMSNorm(config.width, backbone.norm_eps, unit_offset=unit_offset)


def _normalized(
    norm: AdaptiveRMSNorm | RMSNorm, x: Tensor, condition: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The normalized stream, and the gate of what is added to it; None adds it as it is."""
    if isinstance(norm, AdaptiveRMSNorm):
        return norm(x, condition)
    return norm(x), None


def _added(x: Tensor, update: Tensor, gate: Tensor | None) -> Tensor:
    return x + (update if gate is None else gate * update)
