"""Layers whose output is no function of sample and weights alone, by the names of their modules."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd


def batch_norms(model: nn.Module) -> tuple[str, ...]:
    """Layers that normalize by statistics of the batch in training mode."""
    return tuple(name for name, module in model.named_modules() if isinstance(module, _BatchNorm))


def active_dropouts(model: nn.Module) -> tuple[str, ...]:
    """Layers that leave something out at random in training mode.

    Besides torch's own, timm's DropPath (`drop_prob`) and PatchDropout (`prob`).
    """
    return tuple(name for name, module in model.named_modules() if _drop_probability(module) > 0.0)


def _drop_probability(module: nn.Module) -> float:
    if isinstance(module, _DropoutNd):
        return module.p
    return float(getattr(module, "drop_prob", None) or getattr(module, "prob", None) or 0.0)
