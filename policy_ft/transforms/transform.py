"""The one path: observations and actions to numbers for the model, and its chunks back.

The same Transforms object serves training, rollouts and robots and is saved in every checkpoint, so
that a frame is treated alike wherever it comes from. `encode` is plain numpy for data workers;
`encode_batch` does the rest on the device.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from data_tools.actions import Scaling, to_absolute, to_delta
from data_tools.conventions import Conventions
from data_tools.episode import Observation
from data_tools.formats.mapping.mapping import map_columns, unmap_columns
from data_tools.storage.frames.images import resize_center_pad
from policy_ft.config.transforms import TransformsConfig
from policy_ft.errors import describe, raise_faults, size_setting
from policy_ft.models.inputs import ModelInput, trimmed_prompt_length
from policy_ft.transforms.checks import (
    action_faults,
    delta_pairs,
    image_faults,
    part_faults,
    state_faults,
)
from policy_ft.transforms.held import action_scaling, state_scaling, still_notes
from policy_ft.transforms.images import to_model_images
from policy_ft.transforms.prompts import (
    instruction_faults,
    longest_prompt,
    prompt_ids,
    tokenizer_faults,
    vocabulary_size,
)
from policy_ft.transforms.records import (
    ModelShape,
    SavedTransforms,
    Statistics,
    read_records,
    write_record,
)
from policy_ft.transforms.tokenization import TOKENIZER_FILE

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Transforms:
    """encode(observation, actions) and, for actions, its inverse decode. Picklable.

    Letters: k camera slot, y x rows and columns, l prompt token, s state column, h step of the
    chunk, a action column; S and A are the robot's own columns, s and a the model's, zero-padded.

    Attributes:
        config: which cameras, resizing, column maps, normalization and prompt.
        conventions: what the robot declares, with the cameras of the config and no others.
        shape: the model's sizes.
        statistics: of states and actions as the model sees them: mapped, deltas subtracted.
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
        raise_faults(
            [
                *part_faults(self.config, self.conventions, self.shape, self.statistics),
                *tokenizer_faults(self.tokenizer_json, self.config.prompt),
            ]
        )

    @property
    def vocabulary_size(self) -> int:
        """How many embeddings the tokenizer's text may ask for."""
        return vocabulary_size(self.tokenizer_json)

    @cached_property
    def action_dim_mask(self) -> npt.NDArray[np.bool_]:
        """bool[a], True where a column is the robot's own and moves: neither padding nor held."""
        mask = np.zeros(self.shape.action_dim, dtype=bool)
        mask[: len(self.conventions.action.names)] = ~self.action_scaling.is_held
        return mask

    @cached_property
    def still_notes(self) -> tuple[str, ...]:
        """What becomes of the columns that never move, a sentence for each part that has some."""
        return tuple(still_notes(self.config, self.conventions, self.statistics))

    @cached_property
    def state_scaling(self) -> Scaling:
        """How the state's columns are normalized; see `data_tools.actions.scaling`."""
        return state_scaling(self.config, self.conventions, self.statistics)

    @cached_property
    def action_scaling(self) -> Scaling:
        """How the action's columns are normalized, deltas after the subtraction."""
        return action_scaling(self.config, self.conventions, self.statistics)

    def encode(
        self,
        observation: Observation,
        actions: Array | None = None,
        action_mask: Array | None = None,
        *,
        where: str = "observation",
        step: int | None = None,
        absent: Collection[str] = (),
    ) -> dict[str, Array]:
        """The sample of one observation, and of the actions that followed it.

        Args:
            observation: holds every declared camera that is not absent, and no other.
            actions: float[h', A] with 1 <= h' <= h, robot units; the last one is repeated up to h.
            action_mask: bool[h'], False where a step must carry no loss; all True when not given.
            where: how messages call the observation, or with a step its episode, e.g.
                "demos.hdf5:data/demo_3".
            step: of the observation and the first action; None where they are of no episode.
            absent: declared cameras that this robot lacks: zeros, and masked.

        Returns:
            image_0 uint8[y, x, 3] and so on, named by the slot, for each slot that a camera fills
            (of the model's size, or as recorded where `encode_batch` resizes), image_mask bool[k]
            (True = a camera is there), prompt_tokens int64[l], prompt_mask bool[l] (True = real
            token), state float32[s]; with actions also actions float32[h, a], action_mask bool[h]
            (True = recorded, carries loss) and action_columns bool[a] (as action_dim_mask).

        Raises:
            UserError: a camera is missing, extra or misshaped, a width is wrong, a number is not
                finite, or the instruction is too long or holds special tokens; all faults at once.
        """
        episode, where = where, where if step is None else f"{where}, step {step}"
        faults = image_faults(observation.images, self.conventions, where, absent)
        faults += state_faults(observation.state, self.conventions, where)
        faults += instruction_faults(self.tokenizer_json, observation.instruction, where)
        if actions is not None:
            horizon, first = self.shape.action_horizon, step or 0
            faults += action_faults(actions, self.conventions, horizon, episode, first)
        raise_faults(faults)
        mapped = self._mapped_state(observation.state)
        state = self.state_scaling.normalize(mapped)
        tokens, prompt_mask = self._encode_prompt(observation.instruction, state, where)
        present = [slot for slot, name in self._slots.items() if name not in absent]
        sample = {
            **self._encode_images(observation.images, absent),
            "image_mask": np.isin(np.arange(self.shape.num_cameras), present),
            "prompt_tokens": tokens,
            "prompt_mask": prompt_mask,
            "state": _padded(state, self.shape.state_dim),
        }
        if actions is not None:
            sample["actions"] = self._encode_actions(actions, mapped)
            sample["action_mask"] = np.zeros(self.shape.action_horizon, dtype=bool)
            sample["action_mask"][: len(actions)] = True if action_mask is None else action_mask
            sample["action_columns"] = self.action_dim_mask
        return sample

    def with_instructions(self, inputs: ModelInput, instructions: Sequence[str]) -> ModelInput:
        """The same observations under other instructions, as if they had been encoded with them.

        Args:
            inputs: b encoded observations.
            instructions: b texts.

        Raises:
            UserError: an instruction is too long.
        """
        width = len(self.conventions.state.names)
        states = inputs.state[:, :width].cpu().double().numpy()
        prompts = [
            self._encode_prompt(text, state, f"instruction {text!r}")
            for text, state in zip(instructions, states, strict=True)
        ]
        tokens, mask = (torch.from_numpy(np.stack(part)) for part in zip(*prompts, strict=True))
        length, device = trimmed_prompt_length(mask), inputs.state.device
        return replace(
            inputs,
            prompt_tokens=tokens[:, :length].to(device),
            prompt_mask=mask[:, :length].to(device),
        )

    def encode_batch(self, samples: Mapping[str, Tensor], device: torch.device | str) -> ModelInput:
        """The model's input from stacked samples in host memory.

        Images become float32 in [-1, 1] on the device, where uint8 arrives at a quarter of the
        size; there they are resized, too, where the model's reference resizes floats. Slots that
        are empty in the whole batch are not sent, and prompts are cut to the longest real one of
        the batch (in steps of 8 tokens).

        Args:
            samples: the arrays of `encode`, stacked; other keys are left alone.
            device: of the model.
        """
        mask, shape, slots = samples["image_mask"], self.shape, list(self._slots)
        cameras = [samples[_image_key(slot)].to(device, non_blocking=True) for slot in slots]
        length = trimmed_prompt_length(samples["prompt_mask"])
        size = (shape.image_height, shape.image_width)
        return ModelInput(
            images=to_model_images(cameras, *size, self.config.resize)
            if cameras
            else torch.zeros((len(mask), 0, 3, *size), device=device),
            image_mask=mask[:, slots].to(device, non_blocking=True),
            prompt_tokens=samples["prompt_tokens"][:, :length].to(device, non_blocking=True),
            prompt_mask=samples["prompt_mask"][:, :length].to(device, non_blocking=True),
            state=samples["state"].to(device, non_blocking=True),
            camera_slots=None if len(slots) == shape.num_cameras else tuple(slots),
        )

    def decode(self, chunk: Array, observation: Observation) -> npt.NDArray[np.float32]:
        """float32[h, A], the robot actions of a normalized chunk float[h, a].

        The inverse of `encode`: decode(encode(o, x)["actions"], o) equals x to within 1e-6 of each
        column's scale (of `action_scaling`, for values within 16 scales of the centre) plus half
        a step of float32 at x. Both ways are computed in float64 and rounded once: to the model's
        float32 there, to the robot's here. A column that is held comes back as its constant, a
        delta among them as what the observation's state says plus its constant.
        """
        config, names = self.config, self.conventions.action.names
        own = np.asarray(chunk, dtype=np.float64)[:, : len(names)]
        relative = self.action_scaling.unnormalize(own)
        state = self._mapped_state(observation.state)
        absolute = to_absolute(relative, state, self._delta_pairs)
        return unmap_columns(absolute, config.action_maps, names).astype(np.float32)

    @cached_property
    def _delta_pairs(self) -> tuple[tuple[int, int], ...]:
        """(action column, state column) of every delta action."""
        return delta_pairs(self.config, self.conventions)

    @cached_property
    def _slots(self) -> dict[int, str]:
        """Slot -> camera, of the slots that a camera fills."""
        return {slot: name for slot, name in enumerate(self.config.cameras) if name is not None}

    def _mapped_state(self, state: Array) -> npt.NDArray[np.float64]:
        """float64[S] in the model's space, not yet normalized."""
        return map_columns(state, self.config.state_maps, self.conventions.state.names)

    def _encode_actions(self, actions: Array, mapped_state: Array) -> npt.NDArray[np.float32]:
        config = self.config
        # repeats the last action beyond the end
        steps = np.minimum(np.arange(self.shape.action_horizon), len(actions) - 1)
        chunk = map_columns(actions[steps], config.action_maps, self.conventions.action.names)
        delta = to_delta(chunk, mapped_state, self._delta_pairs)
        return _padded(self.action_scaling.normalize(delta), self.shape.action_dim)

    def _encode_images(
        self, images: Mapping[str, Array], absent: Collection[str]
    ) -> dict[str, Array]:
        height, width = self.shape.image_height, self.shape.image_width
        chosen = {
            _image_key(slot): self._black(name) if name in absent else images[name]
            for slot, name in self._slots.items()
        }
        if self.config.resize != "pil_bilinear_center_pad":
            return chosen
        return {key: resize_center_pad(image, height, width) for key, image in chosen.items()}

    def _black(self, camera: str) -> Array:
        """uint8[y, x, 3] in place of a camera that is not there; its slot is masked."""
        spec = self.conventions.camera(camera)
        return np.zeros((spec.height, spec.width, 3), dtype=np.uint8)

    def _encode_prompt(self, instruction: str, state: Array, where: str) -> tuple[Array, Array]:
        prompt, longest = self.config.prompt, self.shape.max_prompt_tokens
        ids = prompt_ids(self.tokenizer_json, instruction, prompt, state, self.shape.state_dim)
        raise_faults(self._length_faults(len(ids), instruction, where))
        tokens = np.zeros(longest, dtype=np.int64)
        tokens[: len(ids)] = ids
        return tokens, np.arange(longest) < len(ids)

    def prompt_faults(self, instruction: str, where: str) -> list[str]:
        """An instruction whose prompt is too long for some state, if not for every one."""
        return list(self._length_faults(self.prompt_length(instruction), instruction, where))

    def prompt_length(self, instruction: str) -> int:
        """Tokens of the longest prompt that an instruction can make, whatever the state."""
        width, state_dim = len(self.conventions.state.names), self.shape.state_dim
        prompt = self.config.prompt
        return longest_prompt(self.tokenizer_json, instruction, prompt, width, state_dim)

    def _length_faults(self, length: int, instruction: str, where: str) -> Iterator[str]:
        longest = self.shape.max_prompt_tokens
        if length > longest:
            # the references cut the end off, which hides the task, or the state, from the model
            found = f"{length} tokens in {instruction!r}, written as for {self.config.prompt}"
            remedy = f"Shorten the instruction, or raise {size_setting('max_prompt_tokens')}."
            yield describe(f"{where}, instruction", found, f"at most {longest}", remedy)

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


def stacked(samples: Sequence[Mapping[str, Array]]) -> dict[str, Tensor]:
    """Encoded samples as one batch in host memory: each array gains a leading dimension."""
    return {name: torch.from_numpy(np.stack([s[name] for s in samples])) for name in samples[0]}


def _padded(values: Array, width: int) -> npt.NDArray[np.float32]:
    """float32 with zero columns appended up to `width`."""
    padded = np.zeros((*values.shape[:-1], width), dtype=np.float32)
    padded[..., : values.shape[-1]] = values
    return padded


def _image_key(slot: int) -> str:
    """The name under which a sample holds the image of a slot."""
    return f"image_{slot}"
