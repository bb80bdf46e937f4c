"""transformers' PI0ForConditionalGeneration as one side of a comparison."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from peers.measure import Measured, release_memory, sampling, train_step
from policy_ft.config.model import ModelConfig, SiglipVisionConfig
from policy_ft.models.torchvision_guard import ensure_torchvision_imports

ensure_torchvision_imports()

from transformers import PI0Config, PI0ForConditionalGeneration  # noqa: E402
from transformers.utils.logging import disable_progress_bar  # noqa: E402


class TransformersPI0:
    """transformers' pi0 in this process, on the smallest batch its processor could make.

    Args:
        device: where the model is put.
    """

    name = "transformers"

    def __init__(self, device: str) -> None:
        disable_progress_bar()
        self.device = device
        self._model: Any = None

    def load(self, config: ModelConfig, weights: Path) -> None:
        """Builds the model; transformers renames openpi's tensors itself."""
        with TemporaryDirectory() as folder:
            Path(folder, "model.safetensors").symlink_to(weights.absolute())
            model, loaded = PI0ForConditionalGeneration.from_pretrained(
                folder, config=pi0_config(config), output_loading_info=True
            )
        wrong = {kind: names for kind, names in loaded.items() if names}
        if wrong:
            raise ValueError(f"{weights}: transformers reports {wrong}; expected nothing.")
        self._model = model.to(self.device)

    def free(self) -> None:
        """Drops the model."""
        self._model = None
        release_memory()

    def train(self, batch: Path) -> Measured:
        """Forward and backward."""
        model, arguments, stored = self._model, *self._arguments(batch)
        extra = {name: stored[name] for name in ("actions", "noise")}
        return train_step(model, lambda: model(**arguments, **extra, timestep=stored["time"]).loss)

    def sample(self, batch: Path) -> Measured:
        """Ten steps of sampling."""
        model, arguments, stored = self._model, *self._arguments(batch)
        return sampling(
            model,
            lambda: model.sample_actions(**arguments, noise=stored["noise"].clone(), num_steps=10),
        )

    def _arguments(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What training and sampling have in common, and the batch.

        Image tokens of present cameras stand before the prompt, which is cut to the longest.
        """
        stored = {name: tensor.to(self.device) for name, tensor in load_file(path).items()}
        present = stored["image_mask"].any(dim=0)
        longest = int(stored["prompt_mask"].sum(dim=1).max())
        config = self._model.config.vlm_config
        tokens = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
        seen = stored["image_mask"][:, present].repeat_interleave(tokens, dim=1)
        image_tokens = torch.full_like(seen, config.image_token_id, dtype=torch.int64)
        prompt, mask = (stored[name][:, :longest] for name in ("prompt_tokens", "prompt_mask"))
        arguments = {
            "state": stored["state"],
            "input_ids": torch.cat((image_tokens, prompt), dim=1),
            "attention_mask": torch.cat((seen, mask), dim=1).long(),
            "pixel_values": stored["images"][:, present],
            "pixel_attention_mask": stored["image_mask"][:, present],
        }
        return arguments, stored


def pi0_config(config: ModelConfig) -> PI0Config:
    """The same architecture in the settings of transformers."""
    vision, language, expert = config.vision, config.language, config.expert
    if not isinstance(vision, SiglipVisionConfig):
        raise ValueError(f"vision.kind: found {vision.kind!r}; expected 'siglip', as pi0 has.")
    gemma = {
        "model_type": "gemma",
        "num_hidden_layers": language.depth,
        "num_attention_heads": language.num_heads,
        "num_key_value_heads": language.num_kv_heads,
        "head_dim": language.head_dim,
        "vocab_size": language.vocab_size,
    }
    return PI0Config(
        vlm_config={
            "model_type": "paligemma",
            "text_config": gemma
            | {"hidden_size": language.width, "intermediate_size": language.mlp_width},
            "vision_config": {
                "model_type": "siglip_vision_model",
                "hidden_size": vision.width,
                "intermediate_size": vision.mlp_width,
                "num_hidden_layers": vision.depth,
                "num_attention_heads": vision.num_heads,
                "patch_size": vision.patch_size,
                "image_size": config.image_height,
                "vision_use_head": False,
            },
            "projection_dim": language.width,
            "image_token_id": language.vocab_size,
        },
        dit_config=gemma | {"hidden_size": expert.width, "intermediate_size": expert.mlp_width},
        chunk_size=config.action_horizon,
        max_state_dim=config.state_dim,
        max_action_dim=config.action_dim,
        loss_reduction="none",
    )
