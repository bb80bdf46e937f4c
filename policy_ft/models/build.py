"""Settings -> a model with random weights."""

import torch

from policy_ft.config.model import ModelConfig
from policy_ft.models.backbones.composed import ComposedBackbone
from policy_ft.models.backbones.decoder import Decoder
from policy_ft.models.backbones.vision import VisionTower
from policy_ft.models.expert import ActionExpert
from policy_ft.models.vla import VLAModel


def build_model(config: ModelConfig, *, seed: int = 0) -> VLAModel:
    """A VLAModel with random weights that depend on `seed` alone.

    Under torch.device("meta") it has shapes and no memory.

    Args:
        config: the architecture.
        seed: of the weights; the caller's random state is left as it was.

    Raises:
        ValueError: the vision tower cannot be built as configured.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        language = Decoder(config.language)
        vision = VisionTower(
            config.vision, (config.image_height, config.image_width), config.language.width
        )
        return VLAModel(
            backbone=ComposedBackbone(
                vision=vision, language=language, num_cameras=config.num_cameras
            ),
            expert=ActionExpert(config.expert, config.language, config),
            action_horizon=config.action_horizon,
            action_dim=config.action_dim,
        )
