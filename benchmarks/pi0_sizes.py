"""pi0 in its own size and in others: what the benchmarks build."""

from policy_ft.config.model import ModelConfig
from policy_ft.formats.full_sizes import FULL_SIZES

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
    own = FULL_SIZES["pi0"]
    names = ("width", "depth", "num_heads", "mlp_width")
    tower = own.vision.model_copy(update=dict(zip(names, vision, strict=True)))
    names = ("width", "depth", "head_dim", "mlp_width")
    decoder = own.language.model_copy(
        update={**dict(zip(names, language, strict=True)), "vocab_size": vocabulary}
    )
    return own.model_copy(
        update={
            "image_height": image_size,
            "image_width": image_size,
            "num_cameras": NUM_CAMERAS,
            "vision": tower,
            "language": decoder,
            "expert": own.expert.model_copy(update={"width": expert[0], "mlp_width": expert[1]}),
        }
    )
