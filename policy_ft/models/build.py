"""Settings -> a model with random weights, and edits of one that has its weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from policy_ft.config.edits import Edit
from policy_ft.config.model import ModelConfig, NoVisionConfig, SiglipVisionConfig
from policy_ft.models.backbones.backbone import Backbone
from policy_ft.models.backbones.decoder import Decoder
from policy_ft.models.backbones.siglip import SiglipTower
from policy_ft.models.backbones.timm_tower import TimmTower
from policy_ft.models.edits.apply import Changes, apply_edits
from policy_ft.models.expert import ActionExpert
from policy_ft.models.turns import Turn
from policy_ft.models.vla import VLAModel

_BUILDING = Turn()
"""Random weights come from torch's one generator, which two threads would draw from in turn."""

_OF_EDITS = 0x65646974
"""Changes a seed, so that what edits add is drawn from other numbers than the network was."""


def build_model(config: ModelConfig, *, seed: int = 0) -> VLAModel:
    """A VLAModel with random weights that depend on `seed` alone.

    Under torch.device("meta") it has shapes and no memory.

    Args:
        config: the architecture.
        seed: of the weights; the caller's random state is left as it was.

    Raises:
        UserError: the vision tower cannot be built as configured, or an edit does not fit.
    """
    with _drawing(seed):
        language = Decoder(config.language)
        vision = build_tower(config)
        in_prefix = config.expert.state_token == "prefix"
        model = VLAModel(
            backbone=Backbone(
                vision=vision,
                connector=config.connector,
                language=language,
                num_cameras=config.num_cameras,
                state_dim=config.state_dim if in_prefix else None,
            ),
            expert=ActionExpert(config.expert, config.language, config),
            action_horizon=config.action_horizon,
            action_dim=config.action_dim,
        )
        apply_edits(model, config.edits, "model.edits")
        return model


def edit_model(model: VLAModel, edits: Sequence[Edit], *, where: str, seed: int) -> Changes:
    """Changes a model that has its weights as `build_model` would have; what is new is random.

    Args:
        model: changed in place; what stays keeps its values.
        edits: in order.
        where: how messages call the list, e.g. 'policy.edits'.
        seed: of what is new.

    Raises:
        UserError: an edit that does not fit the model as those before it have left it.
    """
    with _drawing(seed ^ _OF_EDITS):
        return apply_edits(model, edits, where)


@contextmanager
def _drawing(seed: int) -> Iterator[None]:
    """Inside, torch draws from this seed; the caller's random state is left as it was."""
    with _BUILDING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def build_tower(config: ModelConfig) -> TimmTower | SiglipTower | None:
    """The vision tower alone, None in a model without; UserError as `build_model`."""
    image_size = (config.image_height, config.image_width)
    if isinstance(config.vision, NoVisionConfig):
        return None
    if isinstance(config.vision, SiglipVisionConfig):
        return SiglipTower(config.vision, image_size)
    return TimmTower(config.vision, image_size, config.language.width)
