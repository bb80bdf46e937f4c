"""pi0, pi0.5 and SmolVLA against a slow second implementation, in float64, gradients included.

The goldens hold losses and actions of the published code, but no gradients. Here all is written
out: one sequence of image, prompt, state and action tokens; one dense mask of cumulative sums of
block marks; softmax by its definition; nothing trimmed, shared or cached.

Letters: b batch, k camera or noise draw, n token, w width, h head or step, d head size, a column.
"""

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from policy_ft.config.model import (
    ConnectorConfig,
    DecoderConfig,
    ExpertConfig,
    ModelConfig,
    SiglipVisionConfig,
)
from policy_ft.models.build import build_model
from policy_ft.models.inputs import ModelInput
from policy_ft.models.solvers import Euler
from policy_ft.models.vla import VLAModel
from tests.policy_ft.losses import dormant, flow_errors

BATCH, CAMERAS, PROMPT, DRAWS, VOCABULARY, CHUNK = 3, 3, 9, 2, 61, (7, 6)

Stream = list[Tensor]  # prefix and suffix


class Tokens(NamedTuple):
    """What all layers read: bool[b, n, n], int64[b, n], float[b, w]."""

    visible: Tensor
    positions: Tensor
    condition: Tensor


class Eager:
    """The published computations of one family over named weights."""

    def __init__(self, weights: dict[str, Tensor], config: ModelConfig) -> None:
        self.weights, self.config = weights, config
        assert isinstance(config.vision, SiglipVisionConfig)
        self.vision, self.language, self.expert = config.vision, config.language, config.expert
        self.is_gemma = config.language.family == "gemma"

    def velocity(self, inputs: ModelInput, x: Tensor, time: Tensor) -> Tensor:
        """Of noisy actions x float[b, h, a] at time float[b]."""
        stream, real, marks, condition = self.embedded(inputs, x, time)
        block = marks.cumsum(0)
        visible = (block <= block[:, None]) & real[:, None, :] & real[:, :, None]
        tokens = Tokens(visible, real.cumsum(1) - 1, condition)
        for index in range(self.language.depth):
            is_joint = index % self.expert.self_attention_every == 0
            stream = (self.joint_layer if is_joint else self.cross_layer)(index, stream, tokens)
        actions, _ = self.normed("expert.norm", stream[1][:, -x.shape[1] :], condition)
        return self.linear("expert.action_out_proj", actions)

    def loss(self, inputs: ModelInput, actions: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """float[b, k, h, a], every draw from images to velocity on its own."""
        errors = []
        for draw, t in zip(noise.unbind(1), time.unbind(1), strict=True):
            x = t[:, None, None] * draw + (1 - t[:, None, None]) * actions
            errors.append((self.velocity(inputs, x, t) - (draw - actions)) ** 2)
        return torch.stack(errors, dim=1)

    def sample(self, inputs: ModelInput, noise: Tensor, num_steps: int) -> Tensor:
        """Euler steps, everything computed again in each."""
        x, time, step = noise, 1.0, -1.0 / num_steps
        while time >= -step / 2:
            x = x + step * self.velocity(inputs, x, torch.full(x.shape[:1], time, dtype=x.dtype))
            time += step
        return x

    def embedded(
        self, inputs: ModelInput, x: Tensor, time: Tensor
    ) -> tuple[Stream, Tensor, Tensor, Tensor]:
        """The streams, which tokens are real and which begin a block, and what adapts norms."""
        (batch, horizon), scale = x.shape[:2], self.language.width**0.5
        prompt = self.weights["backbone.language.embed_tokens.weight"][inputs.prompt_tokens] * scale
        images = [self.image_tokens(image) for image in inputs.images.unbind(1)]
        prefix = [image if self.is_gemma else image * scale for image in images] + [prompt]
        cells = images[0].shape[1]
        real = [inputs.image_mask.repeat_interleave(cells, dim=1), inputs.prompt_mask]
        marks = [0] * (cells * len(images) + prompt.shape[1])
        condition = self.time_embedding(time)
        suffix = self.linear("expert.action_in_proj", x)
        if self.expert.time == "concat":
            suffix = torch.cat([suffix, condition[:, None].expand_as(suffix)], dim=-1)
            suffix = functional.silu(self.linear("expert.action_time_mlp_in", suffix))
            suffix = self.linear("expert.action_time_mlp_out", suffix)
        else:
            condition = functional.silu(self.linear("expert.time_mlp_in", condition))
            condition = functional.silu(self.linear("expert.time_mlp_out", condition))
        if self.expert.state_token == "prefix":
            prefix.append(self.linear("backbone.state_proj", inputs.state)[:, None])
        elif self.expert.state_token == "suffix":
            state = self.linear("expert.state_proj", inputs.state)
            suffix = torch.cat([state[:, None], suffix], dim=1)
        if self.expert.state_token != "none":
            marks.append(1)
        marks += [1] * horizon if self.expert.causal else [1] + [0] * (horizon - 1)
        real.append(torch.ones(batch, len(marks) - sum(each.shape[1] for each in real)).bool())
        return [torch.cat(prefix, 1), suffix], torch.cat(real, 1), torch.tensor(marks), condition

    def time_embedding(self, time: Tensor) -> Tensor:
        low, high = self.expert.min_period, self.expert.max_period
        share = torch.linspace(0, 1, self.expert.width // 2, dtype=time.dtype)
        angle = 2 * math.pi * time[:, None] / (low * (high / low) ** share)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)

    def image_tokens(self, image: Tensor) -> Tensor:
        """float[b, n, w] of float[b, 3, y, x]; s x s neighbours side by side in one token."""
        size, name = self.vision.patch_size, "backbone.vision.embeddings."
        kernel = self.weights[name + "patch_embedding.weight"].flatten(1)
        patches = functional.unfold(image, size, stride=size).transpose(1, 2)
        x = patches @ kernel.T + self.weights[name + "patch_embedding.bias"]
        x = x + self.weights[name + "position_embedding.weight"]
        for index in range(self.vision.depth):
            x = self.vision_layer(f"backbone.vision.encoder.layers.{index}.", x)
        x = self.layer_norm("backbone.vision.post_layernorm", x)
        rows, columns = image.shape[2] // size, image.shape[3] // size
        grid, s = x.view(-1, rows, columns, x.shape[-1]), self.config.connector.pixel_shuffle
        cells = [
            grid[:, i : i + s, j : j + s].flatten(1)
            for i in range(0, rows, s)
            for j in range(0, columns, s)
        ]
        return self.linear("backbone.projector", torch.stack(cells, dim=1))

    def vision_layer(self, name: str, x: Tensor) -> Tensor:
        y, size = self.layer_norm(name + "layer_norm1", x), x.shape[-1] // self.vision.num_heads
        q, k, v = (self.heads(f"{name}self_attn.{each}_proj", y, size) for each in "qkv")
        everything = torch.ones(x.shape[0], x.shape[1], x.shape[1]).bool()
        x = x + self.linear(name + "self_attn.out_proj", attention(q, k, v, everything))
        y = self.linear(name + "mlp.fc1", self.layer_norm(name + "layer_norm2", x))
        return x + self.linear(name + "mlp.fc2", functional.gelu(y, approximate="tanh"))

    def joint_layer(self, index: int, stream: Stream, tokens: Tokens) -> Stream:
        """One attention over both streams, each with its own projections."""
        names = (f"backbone.language.layers.{index}.", f"expert.layers.{index}.")
        (prefix, gate_0), (suffix, gate_1) = (
            self.normed(name + "input_layernorm", x, tokens.condition)
            for name, x in zip(names, stream, strict=True)
        )
        q, k, v = (
            torch.cat(
                [
                    self.heads(f"{name}self_attn.{each}_proj", y, self.language.head_dim)
                    for name, y in zip(names, (prefix, suffix), strict=True)
                ],
                dim=1,
            )
            for each in "qkv"
        )
        q, k = self.rotated(q, tokens.positions), self.rotated(k, tokens.positions)
        both, n = attention(q, k, v, tokens.visible), prefix.shape[1]
        return [
            self.after_attention(names[0], stream[0], both[:, :n], gate_0, tokens.condition),
            self.after_attention(names[1], stream[1], both[:, n:], gate_1, tokens.condition),
        ]

    def cross_layer(self, index: int, stream: Stream, tokens: Tokens) -> Stream:
        """SmolVLA's odd layers: the prefix alone, then the actions over projections of it."""
        names = (f"backbone.language.layers.{index}.", f"expert.layers.{index}.")
        n, size, condition = stream[0].shape[1], self.language.head_dim, tokens.condition
        y, gate = self.normed(names[0] + "input_layernorm", stream[0], condition)
        q, k, v = (self.heads(f"{names[0]}self_attn.{each}_proj", y, size) for each in "qkv")
        q, k = (self.rotated(each, tokens.positions[:, :n]) for each in (q, k))
        attended = attention(q, k, v, tokens.visible[:, :n, :n])
        prefix = self.after_attention(names[0], stream[0], attended, gate, condition)
        y, gate = self.normed(names[1] + "input_layernorm", stream[1], condition)
        own = tokens.positions[:, n:]
        q = self.heads(names[1] + "self_attn.q_proj", y, size)
        q = self.rotated(q, own - own.min(dim=1, keepdim=True).values)
        k = self.heads(names[1] + "self_attn.k_proj", k.flatten(2), size)
        v = self.heads(names[1] + "self_attn.v_proj", v.flatten(2), size)
        attended = attention(q, k, v, tokens.visible[:, n:, :n])
        return [prefix, self.after_attention(names[1], stream[1], attended, gate, condition)]

    def after_attention(
        self, name: str, x: Tensor, attended: Tensor, gate: Tensor, condition: Tensor
    ) -> Tensor:
        """Output projection, MLP and both residuals of a layer."""
        x = x + gate * self.linear(name + "self_attn.o_proj", attended)
        y, gate = self.normed(name + "post_attention_layernorm", x, condition)
        hidden = self.linear(name + "mlp.gate_proj", y)
        gelu = functional.gelu(hidden, approximate="tanh")
        hidden = gelu if self.is_gemma else functional.silu(hidden)
        hidden = hidden * self.linear(name + "mlp.up_proj", y)
        return x + gate * self.linear(name + "mlp.down_proj", hidden)

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weights[name + ".weight"].T + self.weights.get(name + ".bias", 0.0)

    def heads(self, name: str, x: Tensor, size: int) -> Tensor:
        """float[b, n, h, d]."""
        y = self.linear(name, x)
        return y.view(*y.shape[:2], -1, size)

    def layer_norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.weights[name + ".weight"], self.weights[name + ".bias"]
        return functional.layer_norm(x, x.shape[-1:], weight, bias, self.vision.norm_eps)

    def normed(self, name: str, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """RMSNorm, and the gate of what is added to the stream."""
        x = x / (x.square().mean(-1, keepdim=True) + self.language.norm_eps).sqrt()
        if name + ".dense.weight" in self.weights:
            adapted = self.linear(name + ".dense", condition)[:, None]
            scale, shift, gate = adapted.chunk(3, dim=-1)
            return x * (1 + scale) + shift, gate
        weight = self.weights[name + ".weight"]
        return x * (1 + weight if self.is_gemma else weight), x.new_ones(1)

    def rotated(self, x: Tensor, positions: Tensor) -> Tensor:
        """float[b, n, h, d]; angles in float32, as published."""
        half = x.shape[-1] // 2
        frequency = self.language.rope_theta ** -(torch.arange(half) / half)
        angle = (positions[..., None] * frequency)[:, :, None]
        cos, sin = angle.cos(), angle.sin()
        first, second = x[..., :half], x[..., half:]
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def attention(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
    """float[b, q, h * d] of float[b, q, h, d] over two float[b, n, g, d]; visible bool[b, q, n]."""
    k, v = (each.repeat_interleave(q.shape[2] // k.shape[2], dim=2) for each in (k, v))
    scores = torch.einsum("bqhd,bnhd->bhqn", q, k) / q.shape[-1] ** 0.5
    scores = scores.masked_fill(~visible[:, None], torch.finfo(scores.dtype).min)
    shares = (scores - scores.max(dim=-1, keepdim=True).values).exp()
    shares = shares / shares.sum(dim=-1, keepdim=True)
    return torch.einsum("bhqn,bnhd->bqhd", shares, v).flatten(2)


def config_of(family: str) -> ModelConfig:
    """Sizes that no two axes share, images that are not square, grouped key-value heads."""
    is_smolvla = family == "smolvla"
    return ModelConfig(
        image_height=24,
        image_width=36,
        num_cameras=CAMERAS,
        max_prompt_tokens=PROMPT,
        state_dim=5,
        action_horizon=CHUNK[0],
        action_dim=CHUNK[1],
        vision=SiglipVisionConfig(
            kind="siglip", patch_size=6, width=20, depth=2, num_heads=5, mlp_width=28
        ),
        connector=ConnectorConfig(
            pixel_shuffle=2 if is_smolvla else 1,
            bias=not is_smolvla,
            slot_positions=False,
            scale_tokens=is_smolvla,
        ),
        language=DecoderConfig(
            family="llama" if is_smolvla else "gemma",
            vocab_size=VOCABULARY,
            width=32,
            depth=4,
            mlp_width=44,
            num_heads=6,
            num_kv_heads=2,
            head_dim=10,
            norm_eps=1e-5 if is_smolvla else 1e-6,
        ),
        expert=ExpertConfig(
            width=26,
            mlp_width=38,
            time="adaptive_norm" if family == "pi05" else "concat",
            state_token={"pi0": "suffix", "pi05": "none", "smolvla": "prefix"}[family],
            self_attention_every=2 if is_smolvla else 1,
            causal=is_smolvla,
        ),
    )


def random_model(config: ModelConfig) -> VLAModel:
    """In float64, and random in every norm, bias and adaptive norm too."""
    model = build_model(config).double()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.3 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
            parameter.add_(torch.randn_like(parameter) * scale)
    return model.eval()


def observations(config: ModelConfig) -> ModelInput:
    """Without the last two, the middle, and no camera; prompts of 9, 1 and 4 tokens."""
    shape = (BATCH, CAMERAS, 3, config.image_height, config.image_width)
    return ModelInput(
        images=torch.rand(shape, dtype=torch.float64) * 2 - 1,
        image_mask=torch.tensor([[1, 0, 0], [1, 0, 1], [1, 1, 1]]).bool(),
        prompt_tokens=torch.randint(0, VOCABULARY, (BATCH, PROMPT)),
        prompt_mask=torch.arange(PROMPT) < torch.tensor([PROMPT, 1, 4])[:, None],
        state=torch.randn(BATCH, config.state_dim, dtype=torch.float64),
    )


@pytest.mark.parametrize("family", ["pi0", "pi05", "smolvla"])
def test_losses_and_gradients_equal_the_eager_ones(family: str, float64_stays: None) -> None:
    config = config_of(family)
    assert config.family == family
    model, inputs = random_model(config), observations(config)
    noise = torch.randn(BATCH, DRAWS, *CHUNK, dtype=torch.float64)
    actions = torch.randn(BATCH, *CHUNK, dtype=torch.float64)
    time = torch.tensor([[0.97, 0.4], [0.03, 0.7], [0.5, 1.0]], dtype=torch.float64)
    loss = flow_errors(model, inputs, actions, noise, time)
    weights = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    expected = Eager(weights, config).loss(inputs, actions, noise, time)
    torch.autograd.backward([loss.mean(), expected.mean()])
    assert expected.max() > 10.0
    require_close(f"{family} loss", (loss - expected).abs().max())
    relative = [torch.zeros(())]
    for name, parameter in model.named_parameters():
        found, gradient = parameter.grad, weights[name].grad
        if name in dormant(model):
            assert found is None, name
            assert gradient is None or not gradient.any(), name
            continue
        assert found is not None, name
        assert gradient is not None, name
        # the bias of keys moves all scores of a query alike: its gradient is rounding alone
        assert (gradient.norm() > 0.01) != name.endswith("k_proj.bias"), name
        relative.append((found - gradient).norm() / gradient.norm().clamp(min=0.01))
    require_close(f"{family} gradient", torch.stack(relative).max())


@pytest.mark.parametrize("family", ["pi0", "pi05", "smolvla"])
def test_sampled_actions_equal_the_eager_ones(family: str, float64_stays: None) -> None:
    """Eight steps: eighths are exact in float32, in which our integrator holds time."""
    config = config_of(family)
    model, inputs = random_model(config), observations(config)
    noise = torch.randn(BATCH, *CHUNK, dtype=torch.float64)
    found = model.sample_actions(inputs, noise, solver=Euler(8))
    with torch.no_grad():
        expected = Eager(dict(model.named_parameters()), config).sample(inputs, noise, 8)
    assert expected.abs().max() > 2.0
    require_close(f"{family} actions", (found - expected).abs().max())


def require_close(what: str, difference: Tensor) -> None:
    print(f"eager, float64, {what}: {difference:.1e}")
    assert difference < 1e-10, what
