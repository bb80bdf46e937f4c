"""pi0 at full size, batches for it, and what training on one sample costs in FLOPs."""

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from policy_ft.config.model import (
    ConnectorConfig,
    DecoderConfig,
    ExpertConfig,
    ModelConfig,
    SiglipVisionConfig,
)
from policy_ft.models.build import build_model
from policy_ft.models.inputs import ModelInput
from policy_ft.training.step import MicroBatch

NUM_CAMERAS, PROMPT_TOKENS = 3, 24


def pi0_config(tiny: bool) -> ModelConfig:
    """pi0's sizes (openpi, pi0_base), or the same shape small."""
    size = 28 if tiny else 224
    vision = (32, 2, 2, 64) if tiny else (1152, 27, 16, 4304)
    language = (64, 3, 16, 128, 512) if tiny else (2048, 18, 256, 16_384, 257_152)
    return ModelConfig(
        image_height=size,
        image_width=size,
        num_cameras=NUM_CAMERAS,
        max_prompt_tokens=48,
        state_dim=32,
        action_dim=32,
        action_horizon=50,
        vision=SiglipVisionConfig(
            kind="siglip",
            patch_size=14,
            width=vision[0],
            depth=vision[1],
            num_heads=vision[2],
            mlp_width=vision[3],
        ),
        connector=ConnectorConfig(slot_positions=False),
        language=DecoderConfig(
            family="gemma",
            width=language[0],
            depth=language[1],
            num_heads=8,
            num_kv_heads=1,
            head_dim=language[2],
            mlp_width=language[3],
            vocab_size=language[4],
        ),
        expert=ExpertConfig(
            width=32 if tiny else 1024,
            mlp_width=64 if tiny else 4096,
            time="concat",
            state_token="suffix",
        ),
    )


def random_inputs(config: ModelConfig, batch: int, cameras: int, device: str) -> ModelInput:
    """Observations with the first `cameras` slots filled, as the transforms hand them on."""
    return ModelInput(
        images=torch.rand(batch, cameras, 3, config.image_height, config.image_width, device=device)
        * 2.0
        - 1.0,
        image_mask=torch.ones(batch, cameras, dtype=torch.bool, device=device),
        prompt_tokens=torch.randint(
            1, config.language.vocab_size, (batch, PROMPT_TOKENS), device=device
        ),
        prompt_mask=torch.ones(batch, PROMPT_TOKENS, dtype=torch.bool, device=device),
        state=torch.randn(batch, config.state_dim, device=device),
        camera_slots=tuple(range(cameras)),
    )


def random_batch(config: ModelConfig, batch: int, cameras: int, device: str) -> MicroBatch:
    """A micro-batch of one noise draw whose every element carries loss."""
    chunk = (config.action_horizon, config.action_dim)
    return MicroBatch(
        inputs=random_inputs(config, batch, cameras, device),
        actions=torch.randn(batch, *chunk, device=device),
        valid=torch.ones(batch, 1, *chunk, dtype=torch.bool, device=device),
        noise=torch.randn(batch, 1, *chunk, device=device),
        time=torch.rand(batch, 1, device=device),
        sample_id=torch.arange(batch),
    )


def tokens_a_sample(config: ModelConfig) -> int:
    """Tokens of the prefix and of one noise draw's suffix, with all cameras."""
    patches = (config.image_height // 14) * (config.image_width // 14)
    return NUM_CAMERAS * patches + PROMPT_TOKENS + 1 + config.action_horizon


def forward_flops(config: ModelConfig) -> dict[str, float]:
    """FLOPs of a forward pass on one sample with all cameras, of the backbone and of the expert.

    2 m n k for each matrix product and 4 q n d for each head's attention (q queries, n keys of
    size d), masked pairs included, element-wise work left out: torch's FlopCounterMode.
    """
    # torch counts the products of plain attention, and not its fused kernel for CPUs
    counter = FlopCounterMode(display=False)
    with FakeTensorMode(), sdpa_kernel(SDPBackend.MATH), counter, torch.no_grad():
        batch = random_batch(config, 1, NUM_CAMERAS, "cpu")
        build_model(config)(batch.inputs, batch.actions, batch.noise, batch.time)
    total = float(counter.get_total_flops())
    backbone = float(sum(counter.get_flop_counts()["VLAModel.backbone"].values()))
    return {"backbone": backbone, "expert": total - backbone}


def training_flops(config: ModelConfig, *, frozen_backbone: bool) -> float:
    """Model FLOPs of training on one sample: what learns three times, what is frozen once.

    Three: forward, and backward to inputs and to weights. What checkpointing computes again is not
    counted.
    """
    flops = forward_flops(config)
    return 3.0 * flops["expert"] + (1.0 if frozen_backbone else 3.0) * flops["backbone"]
