"""The optimizer and its learning rate."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from policy_ft.config.run import OptimizerConfig
from policy_ft.training.optimizer import learning_rate, set_learning_rate

EXAMPLE = OptimizerConfig(lr=1.0, final_lr=0.0, warmup_steps=3, decay_steps=7)


def test_warm_up_then_cosine_has_these_values():
    """4 steps of cosine after the warm-up: (1 + cos(pi n / 4)) / 2 = 1, 0.854, 0.5, 0.146, 0."""
    values = [learning_rate(step, EXAMPLE) for step in range(9)]
    assert values == pytest.approx(
        [0.25, 0.5, 0.75, 1.0, 0.853553, 0.5, 0.146447, 0.0, 0.0], abs=1e-6
    )


def test_there_is_no_step_in_the_rate_where_the_warm_up_ends():
    config = OptimizerConfig(lr=1e-3, final_lr=1e-4, warmup_steps=100, decay_steps=10_000)
    around = [learning_rate(step, config) for step in range(97, 104)]
    assert max(abs(b - a) for a, b in pairwise(around)) <= 1.01e-3 / 101


def test_without_warm_up_the_first_step_has_the_peak_rate():
    assert (
        learning_rate(0, OptimizerConfig(lr=2.0, final_lr=0.5, warmup_steps=0, decay_steps=10))
        == 2.0
    )


def test_the_rate_stays_at_final_lr():
    config = OptimizerConfig(lr=2.0, final_lr=0.5, warmup_steps=0, decay_steps=10)
    assert [learning_rate(step, config) for step in (10, 11, 1000)] == [0.5, 0.5, 0.5]


def test_every_group_keeps_its_scale():
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [
        {"params": [p], "lr_scale": scale} for p, scale in zip(parameters, (1.0, 0.1), strict=True)
    ]
    optimizer = torch.optim.AdamW(groups, lr=1.0)
    set_learning_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.05]


def test_a_small_update_moves_float32_weights():
    """2.5e-5 on a weight of 1: bfloat16 (spacing 0.0078) would lose it, so masters are float32."""
    weight = nn.Parameter(torch.ones(4))
    weight.grad = torch.ones(4)
    torch.optim.AdamW([weight], lr=2.5e-5, weight_decay=0.0, fused=True).step()
    assert torch.allclose(weight, torch.full((4,), 1 - 2.5e-5), atol=1e-7, rtol=0)
    assert not torch.equal(weight, torch.ones(4))
