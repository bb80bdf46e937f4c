"""This project's pi0 as one side of a comparison."""

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from peers.measure import Measured, release_memory, sampling, train_step
from policy_ft.config.model import ModelConfig
from policy_ft.formats.tensor_names import NAMES
from policy_ft.models.build import build_model
from policy_ft.models.inputs import ModelInput, trimmed_prompt_length
from policy_ft.models.solvers import Euler
from policy_ft.models.vla import VLAModel


class Ours:
    """policy_ft's pi0 in this process.

    Args:
        device: where the model is put.
    """

    name = "policy_ft"

    def __init__(self, device: str) -> None:
        self.device = device
        self._model: VLAModel | None = None

    def load(self, config: ModelConfig, weights: Path) -> None:
        """Builds the model."""
        with torch.device("meta"):
            model = build_model(config)
        stored = load_file(weights)
        table = NAMES["pi0"]
        live = {table.live_name(name): tensor for name, tensor in stored.items()}
        model.to_empty(device=self.device).load_state_dict(
            {name: tensor for name, tensor in live.items() if name is not None}
        )
        self._model = model

    def free(self) -> None:
        """Drops the model."""
        self._model = None
        release_memory()

    def train(self, batch: Path, draws: int = 1) -> Measured:
        """Forward and backward, with `draws` noise draws an observation."""
        model, stored = self._loaded(), self._batch(batch)
        inputs, actions = model_input(stored), stored["actions"]
        noise, time = stored["draws"][:, :draws], stored["draw_times"][:, :draws]
        return train_step(model, lambda: model(inputs, actions, noise, time)["flow"])

    def sample(self, batch: Path) -> Measured:
        """Ten steps of sampling."""
        model, stored = self._loaded(), self._batch(batch)
        inputs = model_input(stored)
        return sampling(model, lambda: model.sample_actions(inputs, stored["noise"], Euler(10)))

    def _batch(self, path: Path) -> dict[str, Tensor]:
        return {name: tensor.to(self.device) for name, tensor in load_file(path).items()}

    def _loaded(self) -> VLAModel:
        if self._model is None:
            raise ValueError("model: found none; expected load() before a step.")
        return self._model


def model_input(batch: dict[str, Tensor]) -> ModelInput:
    """The batch as the transforms hand it on: without absent cameras and most padding."""
    present = batch["image_mask"].any(dim=0)
    length = trimmed_prompt_length(batch["prompt_mask"])
    full = ModelInput(
        images=batch["images"],
        image_mask=batch["image_mask"],
        prompt_tokens=batch["prompt_tokens"][:, :length],
        prompt_mask=batch["prompt_mask"][:, :length],
        state=batch["state"],
    )
    slots = tuple(int(slot) for slot in present.nonzero().flatten())
    return replace(
        full,
        images=full.images[:, present],
        image_mask=full.image_mask[:, present],
        camera_slots=slots,
    )
