"""The vision tower: a timm model cut after one feature level, its cells as tokens."""

import threading
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Protocol, cast

import torch
from einops import rearrange
from torch import Tensor, nn

from policy_ft.config.model import TimmVisionConfig
from policy_ft.errors import UserError, describe
from policy_ft.models.layers import run_block
from policy_ft.models.torchvision_guard import ensure_torchvision_imports
from policy_ft.models.turns import Turn

ensure_torchvision_imports()
import timm  # noqa: E402  timm imports torchvision, which must have been mended by then


class _Call(threading.local):
    """What hooks read of the call that they are in; every thread has its own."""

    language: Tensor | None = None
    """float[b, w]."""


_CALL = _Call()


class FeatureInfo(Protocol):
    """The part of timm's description of feature levels that is used here; timm ships no types."""

    def module_name(self, level: int) -> str:
        """Dotted name of the module behind a level."""

    def channels(self) -> list[int]:
        """Channels of every level."""


class LanguageModulation(nn.Module):
    """Scale and shift of channels from a language vector (FiLM, Perez et al. 2017, eq. 1).

    Starts as the identity, so that a pretrained tower is not disturbed.
    """

    def __init__(self, language_width: int, channels: int, channel_axis: int) -> None:
        super().__init__()
        self.channel_axis = channel_axis
        self.dense = nn.Linear(language_width, 2 * channels)
        nn.init.zeros_(self.dense.weight)
        nn.init.zeros_(self.dense.bias)

    def forward(self, features: Tensor, language: Tensor) -> Tensor:
        """The features times (1 + scale) plus shift, one scale and one shift a channel.

        Args:
            features: float[b, ...] with the channels on `channel_axis`.
            language: float[b, w].
        """
        shape = [features.shape[0]] + [1] * (features.ndim - 1)
        shape[self.channel_axis] = -1
        scale, shift = self.dense(language).chunk(2, dim=-1)
        return features * (1.0 + scale.reshape(shape)) + shift.reshape(shape)


class TimmTower(nn.Module):
    """Image tokens of a timm model.

    Letters: b image, y x pixels, n token, c channel.

    Args:
        config: which model, which feature level, whether language modulates it.
        image_size: (rows, columns) in pixels.
        language_width: size of the language vector, used with `config.film`.

    Raises:
        UserError: timm does not know the model or refuses the arguments.
    """

    def __init__(
        self, config: TimmVisionConfig, image_size: tuple[int, int], language_width: int
    ) -> None:
        super().__init__()
        levels = tuple(range(config.feature_level + 1))
        self.body = _create_tower(config, levels)
        self.grid, self.width = _measure(self.body, image_size)
        self.num_tokens = self.grid[0] * self.grid[1]
        self.checkpoint_activations = False
        self.reads_language = config.film
        self.film = nn.ModuleList()
        # a tower that timm reads out by hooks keeps the features of a call where others find them
        keeps_features = isinstance(self.body, timm.models.FeatureHookNet)
        self._turn: AbstractContextManager[object] = Turn() if keeps_features else nullcontext()
        if config.film:
            self._modulate_levels(levels, image_size, language_width)

    @property
    def blocks(self) -> list[nn.Module]:
        """The parts worth compiling, one by one."""
        return [self.body]

    def forward(self, images: Tensor, language: Tensor | None = None) -> Tensor:
        """float[b, n, c], one token a grid cell, row by row.

        Args:
            images: float[b, 3, y, x] in [-1, 1].
            language: float[b, w], needed by a tower with FiLM.
        """
        return run_block(self._tokens, images, language, checkpointed=self.checkpoint_activations)

    def _tokens(self, images: Tensor, language: Tensor | None) -> Tensor:
        outer, _CALL.language = _CALL.language, language
        try:
            with self._turn:
                features = self.body(images.contiguous(memory_format=torch.channels_last))[-1]
        finally:
            _CALL.language = outer
        axes = "b y x c" if _is_channels_last(self.body) else "b c y x"
        return rearrange(features, f"{axes} -> b (y x) c")

    def _modulate_levels(
        self, levels: tuple[int, ...], image_size: tuple[int, int], language_width: int
    ) -> None:
        """Hooks a LanguageModulation behind every level, the one way into a tower of any kind."""
        info = cast("FeatureInfo", self.body.feature_info)
        stages = [_stage(self.body, info.module_name(level)) for level in levels]
        axes = _channel_axes(self.body, stages, image_size, info.channels())
        for stage, channels, axis in zip(stages, info.channels(), axes, strict=True):
            film = LanguageModulation(language_width, channels, axis)
            self.film.append(film)
            stage.register_forward_hook(partial(self._modulate, film))

    def _modulate(
        self, film: LanguageModulation, _module: nn.Module, _args: object, features: Tensor
    ) -> Tensor:
        if _CALL.language is None:
            raise ValueError(
                "vision tower: found no language vector; expected one because film is on. Pass "
                "`language`."
            )
        return film(features, _CALL.language)


def _create_tower(config: TimmVisionConfig, levels: tuple[int, ...]) -> nn.Module:
    try:
        return timm.create_model(
            config.tower,
            pretrained=False,
            features_only=True,
            out_indices=levels,
            **config.tower_args,
        )
    except (
        RuntimeError,
        TypeError,
        ValueError,
        AssertionError,
        IndexError,
        AttributeError,
    ) as error:
        raise UserError(
            f"model.vision: found tower {config.tower!r} with arguments {config.tower_args} and "
            f"feature_level "
            f"{config.feature_level}, which timm refuses ({type(error).__name__}: {error}); "
            f"expected a timm model "
            "with feature levels. `timm.list_models()` lists the names."
        ) from error


def sized(config: TimmVisionConfig, image_size: tuple[int, int]) -> TimmVisionConfig:
    """The same tower for images of another size: transformers of timm are told it by `img_size`."""
    known = timm.get_pretrained_cfg(config.tower)
    is_told = known is not None and known.fixed_input_size
    if not is_told and "img_size" not in config.tower_args:
        return config
    return config.model_copy(
        update={"tower_args": {**config.tower_args, "img_size": list(image_size)}}
    )


def _is_channels_last(body: nn.Module) -> bool:
    """Whether the features are [b, y, x, c], as Swin's are, and not [b, c, y, x]."""
    return str(getattr(body, "output_fmt", "NCHW")).endswith("NHWC")


@torch.no_grad()
def _measure(body: nn.Module, image_size: tuple[int, int]) -> tuple[tuple[int, int], int]:
    """((rows, columns), channels) of the last level for one image, on the device of the tower.

    Raises:
        UserError: the tower takes no images of this size.
    """
    parameter = next(body.parameters())
    was_training = body.training
    body.eval()
    try:
        features = body(torch.zeros(1, 3, *image_size, device=parameter.device))[-1]
    except (AssertionError, RuntimeError) as error:
        found = (
            f"a tower that takes no images of {image_size[0]} x {image_size[1]} pixels ({error})"
        )
        remedy = "Give it in policy.model.vision.tower_args (kind new), e.g. img_size: "
        remedy += f"[{image_size[0]}, {image_size[1]}], or choose another size."
        expected = "one that is built for the model's image size"
        raise UserError(describe("model.vision", found, expected, remedy)) from error
    body.train(was_training)
    if _is_channels_last(body):
        features = features.permute(0, 3, 1, 2)
    return (features.shape[2], features.shape[3]), features.shape[1]


def _stage(body: nn.Module, name: str) -> nn.Module:
    """The module behind a feature level.

    timm wraps a model (model.blocks.3) or cuts it up (stages.0 as stages_0).

    Raises:
        UserError: the level is no module that a hook could be put behind.
    """
    modules = dict(body.named_modules())
    names = [n for n in (name, name.replace(".", "_"), f"model.{name}") if n in modules]
    if not names:
        remedy = "Choose another tower, or set policy.model.vision.film (kind new) to false."
        found = f"a tower whose feature level {name!r} is no module of its own"
        raise UserError(describe("model.vision", found, "one, for FiLM to modulate it", remedy))
    return modules[names[0]]


def _channel_axes(
    body: nn.Module, stages: list[nn.Module], image_size: tuple[int, int], channels: list[int]
) -> list[int]:
    """1 for a stage that puts channels first (an image), -1 for one that puts them last."""
    shapes: dict[nn.Module, torch.Size] = {}

    def note_shape(stage: nn.Module, _arguments: object, output: Tensor) -> None:
        shapes[stage] = output.shape

    handles = [stage.register_forward_hook(note_shape) for stage in stages]
    _measure(body, image_size)
    for handle in handles:
        handle.remove()
    return [
        1 if len(shapes[stage]) == 4 and shapes[stage][1] == count else -1
        for stage, count in zip(stages, channels, strict=True)
    ]
