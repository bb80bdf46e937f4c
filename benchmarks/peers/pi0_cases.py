"""The models and batches that the codes are compared on, with random weights under openpi's names.

Letters: b batch, h action step, a action column.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from pi0_sizes import NUM_CAMERAS, pi0_config
from safetensors.torch import save_file
from torch import Tensor

from policy_ft.config.model import ModelConfig
from policy_ft.formats.tensor_names import NAMES
from policy_ft.models.build import build_model

MAX_DRAWS = 8
PROMPT_LENGTHS = (14, 20)
"""Real tokens of the samples' prompts in turn, of 48: instructions as LIBERO has them."""


@dataclass(frozen=True)
class Case:
    """One size of model.

    Attributes:
        config: the architecture.
        batch_size: observations a step.
        one_at_a_time: whether two such models do not fit in memory together.
        targets: (work, cameras present) -> how many times faster than LeRobot it should be.
        draws_target: the most that eight noise draws an observation may cost, in training steps of
            one draw; 0 where that is not asked.
    """

    config: ModelConfig
    batch_size: int
    one_at_a_time: bool
    targets: dict[tuple[str, int], float]
    draws_target: float = 0.0


# The small models: openpi's "dummy" Gemma (64 wide, 4 deep) for both towers, and all its widths
# times four. SigLIP is half as wide and three deep, which gives it the share of the prefix's
# parameters that it has in pi0 (0.21).
CASES = {
    "small64": Case(
        pi0_config(
            vision=(32, 3, 2, 128), language=(64, 4, 16, 128), expert=(64, 128), vocabulary=512
        ),
        batch_size=2,
        one_at_a_time=False,
        targets={("train", 3): 4.0, ("train", 1): 15.0, ("sample", 3): 3.0, ("sample", 1): 7.0},
    ),
    "small256": Case(
        pi0_config(
            vision=(128, 3, 2, 512), language=(256, 4, 64, 512), expert=(256, 512), vocabulary=512
        ),
        batch_size=2,
        one_at_a_time=False,
        targets={("train", 3): 1.9, ("train", 1): 6.0, ("sample", 3): 1.8, ("sample", 1): 4.0},
    ),
    "real": Case(
        pi0_config(
            vision=(1152, 9, 16, 4304),
            language=(2048, 6, 256, 16384),
            expert=(1024, 4096),
            vocabulary=2048,
        ),
        batch_size=1,
        one_at_a_time=True,
        targets={("train", 3): 1.1, ("train", 1): 3.0, ("sample", 3): 1.6, ("sample", 1): 3.5},
        draws_target=1.2,
    ),
}


def write_weights(case: Case, path: Path) -> int:
    """Random weights as an openpi file; norm scales are not left at zero. Returns their number."""
    model = build_model(case.config)
    generator = torch.Generator().manual_seed(1)
    names = NAMES["pi0"]
    language, expert = case.config.language, case.config.expert
    tensors = {names.dead: torch.zeros(language.vocab_size, expert.width)}
    for name, parameter in model.named_parameters():
        tensors[names.stored_name(name)] = parameter.data
        if name.endswith("norm.weight") or "layer_norm" in name:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    save_file(tensors, path)
    return sum(parameter.numel() for parameter in model.parameters())


def write_batch(case: Case, cameras: int, path: Path) -> None:
    """A batch with the first `cameras` of three slots filled, as all codes read it."""
    generator = torch.Generator().manual_seed(2)

    def normal(*shape: int) -> Tensor:
        return torch.randn(case.batch_size, *shape, generator=generator)

    config, batch = case.config, case.batch_size
    lengths = torch.tensor([PROMPT_LENGTHS[i % len(PROMPT_LENGTHS)] for i in range(batch)])
    prompt_mask = torch.arange(config.max_prompt_tokens) < lengths[:, None]
    image_mask = (torch.arange(NUM_CAMERAS) < cameras).expand(batch, -1).contiguous()
    images = torch.rand(
        (batch, NUM_CAMERAS, 3, config.image_height, config.image_width), generator=generator
    )
    tokens = torch.randint(1, config.language.vocab_size, prompt_mask.shape, generator=generator)
    draws = normal(MAX_DRAWS, config.action_horizon, config.action_dim)
    times = 0.001 + 0.999 * torch.rand((batch, MAX_DRAWS), generator=generator)
    save_file(
        {
            "images": (images * 2 - 1).where(image_mask[..., None, None, None], -1.0),
            "image_mask": image_mask,
            "prompt_tokens": tokens * prompt_mask,
            "prompt_mask": prompt_mask,
            "state": normal(config.state_dim),
            "actions": normal(config.action_horizon, config.action_dim),
            "noise": draws[:, 0].clone(),
            "time": times[:, 0].clone(),
            "draws": draws,
            "draw_times": times,
        },
        path,
    )
