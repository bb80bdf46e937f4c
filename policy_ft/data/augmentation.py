"""Augmentation: training samples varied on the device, as a function of (seed, epoch, window).

Letters: b sample, k camera, y x rows and columns, s state column.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from data_tools.storage.files.yaml_text import mapping_in
from policy_ft.config.augmentation import AugmentationConfig, ImageAugmentation
from policy_ft.data.noise import Purpose, generator
from policy_ft.errors import UserError, describe, nearest, raise_faults
from policy_ft.models.batch import Batch
from policy_ft.models.inputs import ModelInput
from policy_ft.transforms import Transforms

_GREY: Final = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a pixel's grey (ITU-R BT.601)."""
_DRAWS_A_CAMERA: Final = 6


@dataclass(frozen=True)
class _Draw:
    """Everything random about one sample; all of it is drawn whatever the settings are."""

    images: Tensor
    """float32[slots, 6], uniform in [-1, 1): place across and down, angle, brightness, contrast,
    saturation."""
    state_noise: Tensor
    """float32[s], standard normal."""
    state_dropout: float
    instruction_dropout: float
    paraphrase: float


class Augmentation:
    """Batch -> the batch with varied images, states and instructions.

    Args:
        settings: what is varied, and how much.
        transforms: of the policy that is trained.
        seed: of the run.
        instruction_of: sample id -> what its episode is asked to do.

    Raises:
        UserError: a camera that the policy has not, or paraphrases that cannot be read or are too
            long; all of it at once.
    """

    def __init__(
        self,
        settings: AugmentationConfig,
        transforms: Transforms,
        seed: int,
        instruction_of: Callable[[int], str],
    ) -> None:
        self._settings, self._transforms, self._seed = settings, transforms, seed
        self._instruction_of = instruction_of
        self._paraphrases = read_paraphrases(settings, transforms)
        _require_cameras(settings, transforms)

    def __call__(self, batch: Batch) -> Batch:
        """The varied batch; actions, masks and noise are as they were."""
        ids = batch.sample_id.tolist()
        draws = [self._draw(*each) for each in zip(batch.epoch.tolist(), ids, strict=True)]
        inputs = batch.inputs
        inputs = replace(
            inputs,
            images=self._images(inputs, draws),
            state=self._state(inputs.state, draws),
        )
        texts = [self._text(*each) for each in zip(ids, draws, strict=True)]
        if any(text is not None for text in texts):
            own = (self._instruction_of(sample) for sample in ids)
            said = [t if text is None else text for text, t in zip(texts, own, strict=True)]
            inputs = self._transforms.with_instructions(inputs, said)
        return replace(batch, inputs=inputs)

    def _draw(self, epoch: int, sample: int) -> _Draw:
        shape, draws = self._transforms.shape, generator(self._seed, Purpose.AUGMENT, epoch, sample)
        images = draws.random((shape.num_cameras, _DRAWS_A_CAMERA), dtype=np.float32)
        noise = draws.standard_normal(shape.state_dim, dtype=np.float32)
        dropped, unsaid, said = draws.random(3).tolist()
        return _Draw(
            torch.from_numpy(2.0 * images - 1.0), torch.from_numpy(noise), dropped, unsaid, said
        )

    def _images(self, inputs: ModelInput, draws: list[_Draw]) -> Tensor:
        slots = inputs.camera_slots or range(inputs.images.shape[1])
        varied = []
        for place, slot in enumerate(slots):
            name = self._transforms.config.cameras[slot]
            how = (
                self._settings if name is None else self._settings.cameras.get(name, self._settings)
            )
            images = inputs.images[:, place]
            own = torch.stack([draw.images[slot] for draw in draws]).to(images.device)
            changed = vary_images(images, how, own)
            is_there = inputs.image_mask[:, place, None, None, None]
            varied.append(torch.where(is_there, changed, images))
        return torch.stack(varied, dim=1) if varied else inputs.images

    def _state(self, state: Tensor, draws: list[_Draw]) -> Tensor:
        """Real columns with noise, or all at their mean."""
        width, settings = len(self._transforms.conventions.state.names), self._settings
        if not settings.state_noise and not settings.state_dropout:
            return state
        noise = torch.stack([draw.state_noise for draw in draws]).to(state)
        noise[:, width:] = 0.0
        kept = torch.tensor([d.state_dropout >= settings.state_dropout for d in draws])
        return (state + settings.state_noise * noise) * kept[:, None].to(state)

    def _text(self, sample: int, draw: _Draw) -> str | None:
        """What the sample is asked instead; None for its own instruction."""
        if draw.instruction_dropout < self._settings.instruction_dropout:
            return ""
        if not self._paraphrases:
            return None
        own = self._instruction_of(sample)
        alike = (own, *self._paraphrases.get(own, ()))
        return alike[int(draw.paraphrase * len(alike))]


def vary_images(images: Tensor, how: ImageAugmentation, draws: Tensor) -> Tensor:
    """float32[b, 3, y, x] in [-1, 1]: cut out, turned, and with other light and colours.

    Geometry is one bilinear resampling, edges continued; then brightness, contrast and saturation,
    the steps of openpi (models/model.py, preprocess_observation).

    Args:
        images: float32[b, 3, y, x] in [-1, 1].
        how: the amounts.
        draws: float32[b, 6], uniform in [-1, 1): place across and down, angle, brightness,
            contrast, saturation.
    """
    if how.crop < 1 or how.rotation_deg:
        maps = source_maps(how, draws, images.shape[2], images.shape[3])
        grid = affine_grid(maps, list(images.shape), align_corners=False)
        images = grid_sample(images, grid, padding_mode="border", align_corners=False)
    if not (how.brightness or how.contrast or how.saturation):
        return images
    amounts = torch.tensor([how.brightness, how.contrast, how.saturation], device=images.device)
    brightness, contrast, saturation = (1.0 + draws[:, 3:] * amounts).T[:, :, None, None, None]
    unit = ((images + 1.0) / 2.0 * brightness).clamp(0.0, 1.0)
    mean = _grey(unit).mean(dim=(2, 3), keepdim=True)
    unit = (mean + (unit - mean) * contrast).clamp(0.0, 1.0)
    grey = _grey(unit)
    unit = (grey + (unit - grey) * saturation).clamp(0.0, 1.0)
    return unit * 2.0 - 1.0


def source_maps(how: ImageAugmentation, draws: Tensor, height: int, width: int) -> Tensor:
    """float32[b, 2, 3]: where in the image each place of the result comes from.

    Both in coordinates from -1 to 1 over the outer edges, across and down: source = A place + c.

    Args:
        how: the amounts.
        draws: float32[b, 6], as `vary_images`.
        height: rows.
        width: columns.
    """
    angle = torch.deg2rad(how.rotation_deg * draws[:, 2])
    cos, sin = how.crop * angle.cos(), how.crop * angle.sin()
    across, down = (1.0 - how.crop) * draws[:, 0], (1.0 - how.crop) * draws[:, 1]
    ratio = height / width
    rows = [[cos, -sin * ratio, across], [sin / ratio, cos, down]]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def _grey(images: Tensor) -> Tensor:
    weights = images.new_tensor(_GREY)[:, None, None]
    return (images * weights).sum(dim=1, keepdim=True)


def read_paraphrases(
    settings: AugmentationConfig, transforms: Transforms
) -> Mapping[str, tuple[str, ...]]:
    """Instruction -> others that mean the same; nothing where no file is named.

    Raises:
        UserError: the file cannot be read, holds something else, or a text is too long.
    """
    if settings.paraphrases is None:
        return {}
    where = f"data.augmentation.paraphrases, {settings.paraphrases}"
    try:
        content = Path(settings.paraphrases).read_bytes()
    except OSError as error:
        expected = "a YAML file that can be read"
        raise UserError(describe(where, str(error), expected, "Correct the path.")) from None
    found = mapping_in(where, content, ["instructions, each with a list of others"])
    is_sound = all(
        isinstance(text, str) and isinstance(alike, list) and all(isinstance(a, str) for a in alike)
        for text, alike in found.items()
    )
    if not is_sound:
        expected = "instructions, each with a list of others"
        remedy = "Write lines like: pick up the cube: [lift the cube, grab the cube]."
        raise UserError(describe(where, "something else", expected, remedy))
    said = [text for alike in found.values() for text in alike]
    raise_faults(fault for text in said for fault in transforms.prompt_faults(text, where))
    return {text: tuple(alike) for text, alike in found.items()}


def _require_cameras(settings: AugmentationConfig, transforms: Transforms) -> None:
    names = list(transforms.config.camera_names)
    raise_faults(
        describe(
            f"data.augmentation.cameras.{name}",
            "no such camera of the policy",
            f"one of {names}",
            f"Correct the name. {nearest(name, names)}".strip(),
        )
        for name in settings.cameras
        if name not in names
    )
