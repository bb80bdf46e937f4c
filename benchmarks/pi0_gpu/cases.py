"""pi0 at full size, batches for it, and what training on one sample costs in FLOPs."""

import torch
from pi0_sizes import NUM_CAMERAS, pi0_config
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from policy_ft.config.model import ModelConfig
from policy_ft.models.batch import Batch
from policy_ft.models.build import build_model
from policy_ft.models.inputs import ModelInput
from policy_ft.objectives.flow import Flow

PROMPT_TOKENS = 24


def pi0_of_size(tiny: bool) -> ModelConfig:
    """pi0's sizes (openpi, pi0_base), or the same shape small."""
    if not tiny:
        return pi0_config()
    return pi0_config(
        vision=(32, 2, 2, 64),
        language=(64, 3, 16, 128),
        expert=(32, 64),
        vocabulary=512,
        image_size=28,
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


def random_batch(config: ModelConfig, batch: int, cameras: int, device: str) -> Batch:
    """A micro-batch of one noise draw whose every element carries loss."""
    chunk = (config.action_horizon, config.action_dim)
    return Batch(
        inputs=random_inputs(config, batch, cameras, device),
        actions=torch.randn(batch, *chunk, device=device),
        valid=torch.ones(batch, 1, *chunk, dtype=torch.bool, device=device),
        noise=torch.randn(batch, 1, *chunk, device=device),
        time=torch.rand(batch, 1, device=device),
        sample_id=torch.arange(batch),
        epoch=torch.zeros(batch, dtype=torch.int64),
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
        build_model(config)(batch, [Flow()])
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
