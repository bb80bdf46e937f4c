"""The optimizer and its learning rate."""

import math

import torch
from torch import nn

from policy_ft.config.run import OptimizerConfig
from policy_ft.tuning.groups import GroupPlan


def build_optimizer(
    model: nn.Module, plan: GroupPlan, config: OptimizerConfig
) -> torch.optim.AdamW:
    """Fused AdamW (Loshchilov and Hutter 2019) over the parameters that learn, by group."""
    return torch.optim.AdamW(
        plan.parameter_groups(model), lr=config.lr, betas=config.betas, eps=config.eps, fused=True
    )


def learning_rate(train_step: int, config: OptimizerConfig) -> float:
    """The learning rate of one optimizer step (counted from 0), before any group's scale.

    Warm-up rises linearly, `lr * (train_step + 1) / (warmup_steps + 1)`. The cosine is counted from
    the end of the warm-up: it starts at `lr` at step `warmup_steps` and reaches `final_lr` at step
    `decay_steps`, a total that includes the warm-up (as openpi's optax schedule); from then on the
    rate stays at `final_lr`.

    Example: lr 1.0, final_lr 0.0, warmup_steps 3, decay_steps 7 give 0.25, 0.5, 0.75, 1.0, 0.854,
        0.5, 0.146, 0.0.
    """
    if train_step < config.warmup_steps:
        return config.lr * (train_step + 1) / (config.warmup_steps + 1)
    length = max(config.decay_steps - config.warmup_steps, 1)
    progress = min((train_step - config.warmup_steps) / length, 1.0)
    return config.final_lr + (config.lr - config.final_lr) * 0.5 * (
        1.0 + math.cos(math.pi * progress)
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Gives every parameter group its scale times `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
