"""pi0 in its own size and in others: what the benchmarks build."""

from policy_ft.config.model import (
    ConnectorConfig,
    DecoderConfig,
    ExpertConfig,
    ModelConfig,
    SiglipVisionConfig,
)

NUM_CAMERAS = 3


def pi0_config(
    *,
    vision: tuple[int, int, int, int] = (1152, 27, 16, 4304),
    language: tuple[int, int, int, int] = (2048, 18, 256, 16_384),
    expert: tuple[int, int] = (1024, 4096),
    vocabulary: int = 257_152,
    image_size: int = 224,
) -> ModelConfig:
    """pi0's architecture, with the sizes of openpi's pi0_base where none are given.

    Args:
        vision: width, depth, heads and MLP width of the tower.
        language: width, depth, size of a head and MLP width.
        expert: width and MLP width.
        vocabulary: number of tokens.
        image_size: rows and columns of an image.
    """
    return ModelConfig(
        image_height=image_size,
        image_width=image_size,
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
            vocab_size=vocabulary,
            width=language[0],
            depth=language[1],
            mlp_width=language[3],
            num_heads=8,
            num_kv_heads=1,
            head_dim=language[2],
        ),
        expert=ExpertConfig(
            width=expert[0], mlp_width=expert[1], time="concat", state_token="suffix"
        ),
    )
