"""The optimizer of a run."""

import torch
from torch import nn

from policy_ft.config.optimizer import OptimizerConfig
from policy_ft.tuning.plan import TuningPlan


def build_optimizer(
    model: nn.Module, plan: TuningPlan, config: OptimizerConfig
) -> torch.optim.AdamW:
    """Fused AdamW (Loshchilov and Hutter 2019) over the parameters that ever learn, by group."""
    return torch.optim.AdamW(
        plan.parameter_groups(model), lr=config.lr, betas=config.betas, eps=config.eps, fused=True
    )
