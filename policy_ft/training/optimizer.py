"""The optimizer of a run."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from policy_ft.config.optimizer import OptimizerConfig
from policy_ft.training.state_tensors import Rows
from policy_ft.tuning.plan import TuningPlan


def build_optimizer(
    model: nn.Module, plan: TuningPlan, config: OptimizerConfig
) -> torch.optim.AdamW:
    """Fused AdamW (Loshchilov and Hutter 2019) over the parameters that ever learn, by group."""
    return torch.optim.AdamW(
        plan.parameter_groups(model), lr=config.lr, betas=config.betas, eps=config.eps, fused=True
    )


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """What the optimizer keeps, as '<parameter>/<exp_avg | exp_avg_sq | step>'."""
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
        for key, value in optimizer.state[parameter].items()
    }


def load_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, saved: Iterable[Rows]
) -> None:
    """Gives the optimizer what it kept.

    Args:
        optimizer: over parameters of the model.
        model: names them.
        saved: what `optimizer_tensors` gave, part by part, the first rows of each first.
    """
    parameters = dict(model.named_parameters())
    for rows in saved:
        name, key = rows.name.rsplit("/", 1)
        parameter = parameters[name]
        state = optimizer.state[parameter]
        if rows.start == 0:
            state[key] = _like(parameter, rows)
        rows.into(state[key])


def _like(parameter: nn.Parameter, rows: Rows) -> Tensor:
    """Room for what the optimizer keeps of a parameter, held by the processes that hold it."""
    dtype = rows.values.dtype
    if rows.shape == tuple(parameter.shape):
        return torch.empty_like(parameter, dtype=dtype, requires_grad=False)
    return torch.empty(rows.shape, dtype=dtype, device=parameter.device)
