"""The sizes of the published policies, for plans made where their files are not.

Sources: openpi (models/pi0_config.py, gemma.py, siglip.py; commit 15a9616), LeRobot 0.6.2
(policies/smolvla) and the configuration of SmolVLM2-500M-Video-Instruct. The numbers of parameters
that they give are those of the published files, heads that nothing computes with left out.
"""

from typing import Final

from policy_ft.config.model import (
    ConnectorConfig,
    DecoderConfig,
    ExpertConfig,
    ModelConfig,
    SiglipVisionConfig,
)

_SO400M: Final = SiglipVisionConfig(
    kind="siglip", patch_size=14, width=1152, depth=27, num_heads=16, mlp_width=4304
)
_GEMMA_2B: Final = DecoderConfig(
    family="gemma",
    vocab_size=257_152,
    width=2048,
    depth=18,
    mlp_width=16_384,
    num_heads=8,
    num_kv_heads=1,
    head_dim=256,
)


def _pi(expert: ExpertConfig, max_prompt_tokens: int) -> ModelConfig:
    return ModelConfig(
        image_height=224,
        image_width=224,
        num_cameras=3,
        max_prompt_tokens=max_prompt_tokens,
        state_dim=32,
        action_dim=32,
        action_horizon=50,
        vision=_SO400M,
        connector=ConnectorConfig(slot_positions=False),
        language=_GEMMA_2B,
        expert=expert,
    )


FULL_SIZES: Final[dict[str, ModelConfig]] = {
    "pi0": _pi(ExpertConfig(width=1024, mlp_width=4096, time="concat", state_token="suffix"), 48),
    "pi05": _pi(
        ExpertConfig(width=1024, mlp_width=4096, time="adaptive_norm", state_token="none"), 200
    ),
    "smolvla": ModelConfig(
        image_height=512,
        image_width=512,
        num_cameras=3,
        max_prompt_tokens=48,
        state_dim=32,
        action_dim=32,
        action_horizon=50,
        vision=SiglipVisionConfig(
            kind="siglip", patch_size=16, width=768, depth=12, num_heads=12, mlp_width=3072
        ),
        connector=ConnectorConfig(slot_positions=False, pixel_shuffle=4, bias=False),
        language=DecoderConfig(
            family="llama",
            vocab_size=49_280,
            width=960,
            depth=16,
            mlp_width=2560,
            num_heads=15,
            num_kv_heads=5,
            head_dim=64,
        ),
        expert=ExpertConfig(
            width=720,
            mlp_width=2048,
            time="concat",
            state_token="prefix",
            self_attention_every=2,
            causal=True,
        ),
    ),
}
"""Family -> its published architecture with three cameras."""
