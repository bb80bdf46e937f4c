"""The one path: observations and actions to numbers for the model, and its chunks back.

The same Transforms object serves training, rollouts and robots and is saved in every checkpoint, so
that a frame is treated alike wherever it comes from. `encode` is plain numpy for data workers;
`encode_batch` does the rest on the device.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor

from data_tools.actions import normalize, to_absolute, to_delta, unnormalize
from data_tools.conventions import Conventions
from data_tools.episode import Observation
from policy_ft.config.transforms import TransformsConfig
from policy_ft.errors import UserError, describe, nearest, raise_faults
from policy_ft.models.inputs import ModelInput, trimmed_prompt_length
from policy_ft.tokenization import tokenize
from policy_ft.transforms.checks import (
    action_faults,
    delta_faults,
    image_faults,
    part_faults,
    state_faults,
)
from policy_ft.transforms.images import resize_center_pad
from policy_ft.transforms.records import (
    TOKENIZER_FILE,
    ModelShape,
    SavedTransforms,
    Statistics,
    read_records,
    write_record,
)

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Transforms:
    """encode(observation, actions) and, for actions, its inverse decode. Picklable.

    Letters: k camera slot, y x rows and columns, l prompt token, s state column, h step of the
    chunk, a action column; S and A are the robot's own columns, s and a the model's, zero-padded.

    Attributes:
        config: which cameras, resizing, normalization and prompt.
        conventions: what the robot declares, with the cameras of the config and no others.
        shape: the model's sizes.
        statistics: of states, and of actions as the model sees them.
        tokenizer_json: the tokenizer, as `tokenizers` serializes it.

    Raises:
        UserError: these parts do not fit one another; all faults at once.
    """

    config: TransformsConfig
    conventions: Conventions
    shape: ModelShape
    statistics: Statistics
    tokenizer_json: str

    def __post_init__(self) -> None:
        raise_faults(part_faults(self.config, self.conventions, self.shape, self.statistics))
        _tokenizer(self.tokenizer_json)

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens the tokenizer may produce."""
        return _tokenizer(self.tokenizer_json).get_vocab_size()

    @cached_property
    def action_dim_mask(self) -> npt.NDArray[np.bool_]:
        """bool[a], True where a column is the robot's own and not padding."""
        return np.arange(self.shape.action_dim) < len(self.conventions.action.names)

    def encode(
        self,
        observation: Observation,
        actions: Array | None = None,
        action_mask: Array | None = None,
        *,
        where: str = "observation",
    ) -> dict[str, Array]:
        """The sample of one observation, and of the actions that followed it.

        Args:
            observation: holds every declared camera and no other.
            actions: float[h', A] with 1 <= h' <= h, robot units; the last one is repeated up to h.
            action_mask: bool[h'], False where a step must carry no loss; all True when not given.
            where: how messages call the observation, e.g. "demos.hdf5:data/demo_3, step 17".

        Returns:
            images uint8[k, y, x, 3] (black in empty slots), image_mask bool[k] (True = a camera is
            there), prompt_tokens int64[l], prompt_mask bool[l] (True = real token), state
            float32[s]; with actions also actions float32[h, a] and action_mask bool[h] (True =
            recorded, carries loss).

        Raises:
            UserError: a camera is missing, extra or misshaped, a width is wrong, a number is not
                finite, or the instruction is too long; all faults at once.
        """
        faults = image_faults(observation.images, self.conventions, where)
        faults += state_faults(observation.state, self.conventions, where)
        if actions is not None:
            faults += action_faults(actions, self.conventions, self.shape.action_horizon, where)
        raise_faults(faults)
        images, image_mask = self._encode_images(observation.images)
        tokens, prompt_mask = self._encode_prompt(observation.instruction, where)
        state = normalize(observation.state, self.statistics.state, self.config.state_normalization)
        sample = {
            "images": images,
            "image_mask": image_mask,
            "prompt_tokens": tokens,
            "prompt_mask": prompt_mask,
            "state": _padded(state, self.shape.state_dim),
        }
        if actions is not None:
            sample["actions"] = self._encode_actions(actions, observation.state)
            sample["action_mask"] = np.zeros(self.shape.action_horizon, dtype=bool)
            sample["action_mask"][: len(actions)] = True if action_mask is None else action_mask
        return sample

    def encode_batch(self, samples: Mapping[str, Tensor], device: torch.device | str) -> ModelInput:
        """The model's input from stacked samples in host memory.

        Images become float32 in [-1, 1] on the device, where uint8 arrives at a quarter of the
        size, and prompts are cut to the longest real one of the batch (in steps of 8 tokens).

        Args:
            samples: the arrays of `encode`, stacked; other keys are left alone.
            device: of the model.
        """
        length = trimmed_prompt_length(samples["prompt_mask"])
        images = samples["images"].to(device, non_blocking=True).permute(0, 1, 4, 2, 3)
        return ModelInput(
            images=images.to(torch.float32, memory_format=torch.contiguous_format)
            .div_(127.5)
            .sub_(1.0),
            image_mask=samples["image_mask"].to(device, non_blocking=True),
            prompt_tokens=samples["prompt_tokens"][:, :length].to(device, non_blocking=True),
            prompt_mask=samples["prompt_mask"][:, :length].to(device, non_blocking=True),
            state=samples["state"].to(device, non_blocking=True),
        )

    def decode(self, chunk: Array, observation: Observation) -> npt.NDArray[np.float32]:
        """float32[h, A], the robot actions of a normalized chunk float[h, a].

        The inverse of `encode`: decode(encode(o, x)["actions"], o) equals x to within 1e-6 of each
        column's scale (of `center_and_scale`, for values within 16 scales of the centre) plus half
        a step of float32 at x. Both ways are computed in float64 and rounded once: to the model's
        float32 there, to the robot's here.
        """
        own = np.asarray(chunk, dtype=np.float64)[:, : len(self.conventions.action.names)]
        actions = unnormalize(own, self.statistics.actions, self.config.action_normalization)
        return to_absolute(actions, observation.state, self._delta_pairs).astype(np.float32)

    @cached_property
    def _delta_pairs(self) -> tuple[tuple[int, int], ...]:
        """(action column, state column) of every delta action."""
        return delta_pairs(self.config, self.conventions)

    def _encode_actions(self, actions: Array, state: Array) -> npt.NDArray[np.float32]:
        # repeats the last action beyond the end
        steps = np.minimum(np.arange(self.shape.action_horizon), len(actions) - 1)
        chunk = actions[steps]
        delta = to_delta(chunk, state, self._delta_pairs)
        normal = normalize(delta, self.statistics.actions, self.config.action_normalization)
        return _padded(normal, self.shape.action_dim)

    def _encode_images(self, images: Mapping[str, Array]) -> tuple[Array, Array]:
        shape = self.shape
        slots = np.zeros(
            (shape.num_cameras, shape.image_height, shape.image_width, 3), dtype=np.uint8
        )
        for slot, name in enumerate(self.config.cameras):
            slots[slot] = self._resized(images[name])
        return slots, np.arange(shape.num_cameras) < len(self.config.cameras)

    def _resized(self, image: Array) -> Array:
        if self.config.resize == "none":
            return image
        return resize_center_pad(image, self.shape.image_height, self.shape.image_width)

    def _encode_prompt(self, instruction: str, where: str) -> tuple[Array, Array]:
        ids = _token_ids(self.tokenizer_json, prompt_text(instruction, self.config.prompt))
        longest = self.shape.max_prompt_tokens
        if len(ids) > longest:
            raise UserError(
                describe(
                    f"{where}, instruction",
                    f"{len(ids)} tokens in {instruction!r}",
                    f"at most {longest}",
                    "Shorten the instruction, or raise max_prompt_tokens of a new model.",
                )
            )
        tokens = np.zeros(longest, dtype=np.int64)
        tokens[: len(ids)] = ids
        return tokens, np.arange(longest) < len(ids)

    def save(self, directory: Path) -> None:
        """Write transforms.json, normalization_stats.json, conventions.json and tokenizer.json."""
        saved = SavedTransforms(config=self.config, shape=self.shape)
        write_record(directory / "transforms.json", saved)
        write_record(directory / "normalization_stats.json", self.statistics)
        write_record(directory / "conventions.json", self.conventions)
        (directory / TOKENIZER_FILE).write_text(self.tokenizer_json, encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> Self:
        """What `save` wrote; UserError names every file that is missing, damaged or misfit."""
        records = read_records(directory)
        saved = records["transforms.json"]
        return cls(
            config=saved.config,
            conventions=records["conventions.json"],
            shape=saved.shape,
            statistics=records["normalization_stats.json"],
            tokenizer_json=records[TOKENIZER_FILE],
        )


def prompt_text(instruction: str, prompt: Literal["plain", "cased"]) -> str:
    """The text that is tokenized: white space made single and, for "plain", lower case.

    "  Pick up  the RED cube " becomes "pick up the red cube".
    """
    text = " ".join(instruction.split())
    return text.lower() if prompt == "plain" else text


def stacked(samples: Sequence[Mapping[str, Array]]) -> dict[str, Tensor]:
    """Encoded samples as one batch in host memory: each array gains a leading dimension."""
    return {name: torch.from_numpy(np.stack([s[name] for s in samples])) for name in samples[0]}


def restricted(conventions: Conventions, cameras: Sequence[str], where: str) -> Conventions:
    """The same declaration with these cameras only, in this order.

    Args:
        conventions: of a dataset or an environment.
        cameras: names.
        where: how messages call the declaration, e.g. "data.path demos/pick.hdf5".

    Raises:
        UserError: a camera is not declared.
    """
    known = conventions.camera_names
    faults = []
    for name in cameras:
        if name not in known:
            hint = nearest(name, known)
            remedy = "Correct transforms.cameras, or record this camera"
            remedy += f"; {hint}" if hint else "."
            expected = f"a camera {name!r} too"
            faults.append(describe(where, f"the cameras {list(known)}", expected, remedy))
    raise_faults(faults)
    chosen = tuple(conventions.camera(name) for name in cameras)
    return conventions.model_copy(update={"cameras": chosen})


def delta_pairs(config: TransformsConfig, conventions: Conventions) -> tuple[tuple[int, int], ...]:
    """(action column, state column) of every delta action; UserError where there is none."""
    raise_faults(delta_faults(config, conventions))
    actions, states = conventions.action.names, conventions.state.names
    return tuple((actions.index(name), states.index(name)) for name in config.delta_actions)


def _padded(values: Array, width: int) -> npt.NDArray[np.float32]:
    """float32 with zero columns appended up to `width`."""
    padded = np.zeros((*values.shape[:-1], width), dtype=np.float32)
    padded[..., : values.shape[-1]] = values
    return padded


@lru_cache(maxsize=8)
def _tokenizer(tokenizer_json: str) -> Tokenizer:
    try:
        return Tokenizer.from_str(tokenizer_json)
    except Exception as error:  # the library raises bare Exception
        found = f"text that is no tokenizer ({error})"
        raise UserError(
            describe(
                "tokenizer.json", found, "a tokenizer of the tokenizers library", "Copy it again."
            )
        ) from None


@lru_cache(maxsize=4096)
def _token_ids(tokenizer_json: str, text: str) -> tuple[int, ...]:
    return tuple(tokenize(_tokenizer(tokenizer_json), text))
