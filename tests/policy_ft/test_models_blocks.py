"""Blocks are what is compiled, checkpointed and sharded: each is used through its own forward."""

import pytest
import torch

from policy_ft.models.build import build_model
from tests.policy_ft.losses import flow_errors
from tests.policy_ft.test_models_vla import draws, example, tiny_config


class Watched:
    """Notes which parts of a block run while its own forward does not."""

    def __init__(self, block: torch.nn.Module, outside: list[str]) -> None:
        self.block, self.outside, self.depth = block, outside, 0
        block.register_forward_pre_hook(self.enter)
        block.register_forward_hook(self.leave)
        for part in list(block.modules())[1:]:
            part.register_forward_pre_hook(self.note)

    def enter(self, *_: object) -> None:
        self.depth += 1

    def leave(self, *_: object) -> None:
        self.depth -= 1

    def note(self, part: torch.nn.Module, _: object) -> None:
        if self.depth == 0:
            self.outside.append(f"{type(self.block).__name__}: {type(part).__name__}")


@pytest.mark.parametrize("every", [1, 2])
def test_every_part_of_a_block_runs_inside_the_forward_of_its_block(every: int) -> None:
    """Whatever compiles or shards block by block hooks forward alone; 2 has cross-attention."""
    config = tiny_config()
    expert = config.expert.model_copy(update={"self_attention_every": every})
    model = build_model(config.model_copy(update={"expert": expert}))
    outside: list[str] = []
    for block in [*(b for t in model.backbone.towers for b in t.blocks), *model.expert.layers]:
        Watched(block, outside)
    actions, noise, time = draws(3, 2)
    flow_errors(model, example(), actions, noise, time).mean().backward()
    model.sample_actions(example())
    assert outside == []
