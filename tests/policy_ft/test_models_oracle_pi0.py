"""pi0 against transformers' PI0ForConditionalGeneration: losses, actions and every gradient.

Shared random weights, sizes that no two axes share, missing cameras and prompts of unequal length.
"""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

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
from policy_ft.models.torchvision_guard import ensure_torchvision_imports
from policy_ft.models.vla import VLAModel

ensure_torchvision_imports()
from transformers import (  # noqa: E402  it imports torchvision, which must have been mended by then
    PI0Config,
    PI0ForConditionalGeneration,
)

from tests.policy_ft.losses import dormant, flow_errors  # noqa: E402

BATCH, CAMERAS, PROMPT = 4, 3, 11
IMAGE_TOKEN = VOCABULARY = 97

CONFIG = ModelConfig(
    image_height=42,
    image_width=42,
    num_cameras=CAMERAS,
    max_prompt_tokens=PROMPT,
    state_dim=5,
    action_dim=6,
    action_horizon=7,
    vision=SiglipVisionConfig(
        kind="siglip", patch_size=14, width=24, depth=2, num_heads=3, mlp_width=36
    ),
    connector=ConnectorConfig(slot_positions=False),
    language=DecoderConfig(
        family="gemma",
        vocab_size=VOCABULARY,
        width=40,
        depth=3,
        mlp_width=56,
        num_heads=6,
        num_kv_heads=2,
        head_dim=10,
    ),
    expert=ExpertConfig(width=28, mlp_width=44, time="concat"),
)

# ours -> theirs; the first start that fits decides
STARTS = {
    "backbone.vision.": "model.vlm.vision_tower.",
    "backbone.projector.": "model.vlm.multi_modal_projector.linear.",
    "backbone.language.": "model.vlm.language_model.",
    "expert.state_proj.": "embed_action_time.state_proj.",
    "expert.action_in_proj.": "embed_action_time.action_in_proj.",
    "expert.action_time_mlp_": "embed_action_time.action_time_mlp_",
    "expert.action_out_proj.": "action_out_proj.",
    "expert.": "model.dit.",
}
DEAD_HERE = {"model.dit.embed_tokens.weight"}


def their_name(ours: str) -> str:
    start = next(start for start in STARTS if ours.startswith(start))
    return STARTS[start] + ours.removeprefix(start)


def reference_model() -> PI0ForConditionalGeneration:
    language, expert, vision = CONFIG.language, CONFIG.expert, CONFIG.vision
    assert isinstance(vision, SiglipVisionConfig)
    heads = {
        "num_attention_heads": language.num_heads,
        "num_key_value_heads": language.num_kv_heads,
        "head_dim": language.head_dim,
        "num_hidden_layers": language.depth,
        "vocab_size": language.vocab_size,
    }
    config = PI0Config(
        vlm_config={
            "model_type": "paligemma",
            "text_config": {
                "model_type": "gemma",
                "hidden_size": language.width,
                "intermediate_size": language.mlp_width,
                **heads,
            },
            "vision_config": {
                "model_type": "siglip_vision_model",
                "hidden_size": vision.width,
                "intermediate_size": vision.mlp_width,
                "num_hidden_layers": vision.depth,
                "num_attention_heads": vision.num_heads,
                "patch_size": vision.patch_size,
                "image_size": CONFIG.image_height,
                "vision_use_head": False,
            },
            "projection_dim": language.width,
            "image_token_id": IMAGE_TOKEN,
        },
        dit_config={
            "model_type": "gemma",
            "hidden_size": expert.width,
            "intermediate_size": expert.mlp_width,
            **heads,
        },
        chunk_size=CONFIG.action_horizon,
        max_state_dim=CONFIG.state_dim,
        max_action_dim=CONFIG.action_dim,
        loss_reduction="none",
    )
    return PI0ForConditionalGeneration(config)


def randomize(module: nn.Module) -> None:
    """Random norms and biases too: at their initial zero or one they would hide mistakes."""
    with torch.no_grad():
        for parameter in module.parameters():
            scale = 0.3 if parameter.ndim < 2 else 0.7 * parameter[0].numel() ** -0.5
            parameter.add_(torch.randn_like(parameter) * scale)


@dataclass(frozen=True)
class Pair:
    """The two models with the same weights, and what both are given."""

    ours: VLAModel
    theirs: PI0ForConditionalGeneration
    inputs: ModelInput
    actions: Tensor
    noise: Tensor
    time: Tensor

    def their_inputs(self) -> dict[str, Tensor]:
        """Their layout: placeholders of the cameras that are there, the prompt, then padding."""
        inputs, tokens = self.inputs, self.ours.backbone.tokens_per_camera
        rows = [
            torch.cat([torch.full((int(cameras) * tokens,), IMAGE_TOKEN), prompt[real]])
            for cameras, prompt, real in zip(
                inputs.image_mask.sum(1), inputs.prompt_tokens, inputs.prompt_mask, strict=True
            )
        ]
        real = [torch.ones_like(row) for row in rows]
        return {
            "input_ids": nn.utils.rnn.pad_sequence(rows, batch_first=True),
            "attention_mask": nn.utils.rnn.pad_sequence(real, batch_first=True),
            "pixel_values": inputs.images,
            "pixel_attention_mask": inputs.image_mask,
            "state": inputs.state,
        }

    def losses(self) -> tuple[Tensor, Tensor]:
        """Ours and theirs, unreduced."""
        ours = flow_errors(self.ours, self.inputs, self.actions, self.noise, self.time)
        theirs = self.theirs(
            **self.their_inputs(), actions=self.actions, noise=self.noise, timestep=self.time
        )
        return ours, theirs.loss


def make_pair(dtype: torch.dtype) -> Pair:
    torch.manual_seed(0)
    theirs = reference_model().eval()
    randomize(theirs)
    weights = theirs.state_dict()
    ours = build_model(CONFIG).eval()
    ours.load_state_dict({name: weights[their_name(name)] for name in ours.state_dict()})
    chunk = (BATCH, CONFIG.action_horizon, CONFIG.action_dim)
    return Pair(
        ours.to(dtype),
        theirs.to(dtype),
        observations(dtype),
        actions=torch.randn(chunk, dtype=dtype),
        noise=torch.randn(chunk, dtype=dtype),
        time=torch.tensor([0.93, 0.02, 0.5, 0.31], dtype=dtype),
    )


def observations(dtype: torch.dtype) -> ModelInput:
    """Without the last, the middle, no, and the two first cameras; prompts of 1 to 11 tokens."""
    prompt_mask = torch.arange(PROMPT) < torch.tensor([3, PROMPT, 1, 8])[:, None]
    size = (CONFIG.image_height, CONFIG.image_width)
    return ModelInput(
        images=torch.rand(BATCH, CAMERAS, 3, *size, dtype=dtype) * 2 - 1,
        image_mask=torch.tensor([[1, 1, 0], [1, 0, 1], [1, 1, 1], [0, 0, 1]]).bool(),
        prompt_tokens=torch.randint(1, VOCABULARY, (BATCH, PROMPT)).where(prompt_mask, 0),
        prompt_mask=prompt_mask,
        state=torch.randn(BATCH, CONFIG.state_dim, dtype=dtype),
    )


@pytest.fixture
def pair() -> Pair:
    return make_pair(torch.float32)


@pytest.fixture
def exact_pair(float64_stays: None) -> Pair:
    """In float64. Their time embedding rounds angles of up to 1,571 radians to float32, which is
    nearly all of the difference in float32; openpi computes them in float64, so here they do.
    """
    pair = make_pair(torch.float64)
    expert = CONFIG.expert
    fraction = torch.linspace(0, 1, expert.width // 2, dtype=torch.float64)
    period = expert.min_period * (expert.max_period / expert.min_period) ** fraction
    pair.theirs.embed_action_time.sinusoid_embeds.sinusoid_freq = 2 * torch.pi / period
    return pair


def test_every_parameter_has_one_counterpart(pair: Pair) -> None:
    theirs = {name for name, _ in pair.theirs.named_parameters()}
    found = [their_name(name) for name, _ in pair.ours.named_parameters()]
    assert len(set(found)) == len(found)
    assert theirs - set(found) == DEAD_HERE


def differences(pair: Pair) -> dict[str, Tensor]:
    """The largest of losses and of actions; in the norm of each gradient, relative to theirs.

    The bias of keys moves all scores of a query alike, so its gradient is rounding alone and is
    compared as if its norm were the smallest of the others.
    """
    found, expected = pair.losses()
    assert found.shape == expected.shape == (BATCH, CONFIG.action_horizon, CONFIG.action_dim)
    assert expected.max() > 10.0
    steps = 8 if pair.noise.dtype == torch.float64 else 10  # eighths are exact in float32 too
    actions = pair.ours.sample_actions(pair.inputs, pair.noise, Euler(steps))
    their_actions = pair.theirs.sample_actions(
        **pair.their_inputs(), noise=pair.noise, num_steps=steps
    )
    assert their_actions.abs().max() > 3.0
    torch.autograd.backward([found.mean(), expected.mean()])
    return {
        "loss": (found - expected).detach().abs().max(),
        "actions": (actions - their_actions).abs().max(),
        "gradient": gradient_difference(pair),
    }


def gradient_difference(pair: Pair) -> Tensor:
    theirs = dict(pair.theirs.named_parameters())
    relative = []
    for name, parameter in pair.ours.named_parameters():
        expected = theirs[their_name(name)].grad
        if name in dormant(pair.ours):
            assert parameter.grad is None, name
            assert expected is None or not expected.any(), name
            continue
        assert parameter.grad is not None, name
        assert expected is not None, name
        assert (expected.norm() > 0.01) != name.endswith("k_proj.bias"), name
        relative.append((parameter.grad - expected).norm() / expected.norm().clamp(min=0.01))
    return torch.stack(relative).max()


def test_losses_actions_and_gradients_are_theirs(pair: Pair) -> None:
    for name, difference in differences(pair).items():
        print(f"transformers, float32, {name}: {difference:.1e}")
        assert difference < 1e-4, name


def test_in_float64_nothing_but_the_rounding_of_rotary_angles_is_left(exact_pair: Pair) -> None:
    """Both keep these angles in float32, computed in different orders."""
    for name, difference in differences(exact_pair).items():
        print(f"transformers, float64, {name}: {difference:.1e}")
        assert difference < 5e-7, name
