"""A backbone composed of a timm vision tower, a projector and a language decoder."""

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from policy_ft.models.backbones.decoder import Decoder
from policy_ft.models.backbones.vision import VisionTower
from policy_ft.models.inputs import ModelInput
from policy_ft.models.prefix import Prefix


class ComposedBackbone(nn.Module):
    """Images and instruction -> Prefix; every token sees every real token.

    Letters: b batch, k camera, n prefix token, l prompt token, w width, c tower channel.

    Args:
        vision: the tower, shared by all cameras.
        language: the decoder.
        num_cameras: camera slots; each slot's tokens get learned positions of their own.
    """

    def __init__(self, *, vision: VisionTower, language: Decoder, num_cameras: int) -> None:
        super().__init__()
        width = language.config.width
        self.vision = vision
        self.projector = nn.Linear(vision.width, width)
        self.image_positions = nn.Parameter(
            torch.randn(num_cameras, vision.num_tokens, width) * 0.02
        )
        self.language = language

    @property
    def dormant(self) -> tuple[str, ...]:
        """Names of parameters that the prefix does not depend on."""
        return tuple(f"language.{name}" for name in self.language.dormant)

    def forward(self, inputs: ModelInput) -> Prefix:
        """Keys and values of every decoder block over [tokens of each camera, prompt tokens]."""
        prompt = self.language.embed(inputs.prompt_tokens)
        image_tokens = self._image_tokens(inputs, _masked_mean(prompt, inputs.prompt_mask))
        x = torch.cat((image_tokens, prompt.to(image_tokens.dtype)), dim=1)
        camera_mask = repeat(inputs.image_mask, "b k -> b (k n)", n=self.vision.num_tokens)
        mask = torch.cat((camera_mask, inputs.prompt_mask), dim=1)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        keys, values = self.language.keys_values(x, mask[:, None, None, :], positions)
        return Prefix(keys=keys, values=values, mask=mask, length=mask.sum(dim=1))

    def _image_tokens(self, inputs: ModelInput, language: Tensor) -> Tensor:
        """float[b, k * n, w] of all camera slots."""
        num_cameras = inputs.images.shape[1]
        features = self.vision(
            rearrange(inputs.images, "b k c y x -> (b k) c y x"),
            repeat(language, "b w -> (b k) w", k=num_cameras),
        )
        tokens = rearrange(self.projector(features), "(b k) n w -> b k n w", k=num_cameras)
        positioned = tokens + self.image_positions[:num_cameras]
        return rearrange(positioned, "b k n w -> b (k n) w")


def _masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of float[b, l, w] over the real tokens of bool[b, l]; zero where there is none."""
    weights = mask.to(x.dtype)[..., None]
    return (x * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)
