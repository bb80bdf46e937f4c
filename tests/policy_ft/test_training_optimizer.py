"""The optimizer and its learning rate."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from policy_ft.config.optimizer import OptimizerConfig
from policy_ft.tuning.rates import learning_rate

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


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.25, 0.5, 0.75, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]),
        ("constant", [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        # sqrt(4 / (step + 1)) from step 3 on
        ("inverse_sqrt", [0.25, 0.5, 0.75, 1.0, 0.894427, 0.816497, 0.755929, 0.707107, 0.666667]),
    ],
)
def test_other_schedules_have_these_values(schedule, expected):
    config = EXAMPLE.model_copy(update={"schedule": schedule})
    assert [learning_rate(step, config) for step in range(9)] == pytest.approx(expected, abs=1e-6)


def test_the_inverse_square_root_stays_above_final_lr():
    config = OptimizerConfig(
        lr=1.0, final_lr=0.2, warmup_steps=0, decay_steps=10, schedule="inverse_sqrt"
    )
    assert learning_rate(99, config) == 0.2


def test_a_small_update_moves_float32_weights():
    """2.5e-5 on a weight of 1: bfloat16 (spacing 0.0078) would lose it, so masters are float32."""
    weight = nn.Parameter(torch.ones(4))
    weight.grad = torch.ones(4)
    torch.optim.AdamW([weight], lr=2.5e-5, weight_decay=0.0, fused=True).step()
    assert torch.allclose(weight, torch.full((4,), 1 - 2.5e-5), atol=1e-7, rtol=0)
    assert not torch.equal(weight, torch.ones(4))
