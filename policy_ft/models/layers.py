"""Norms and MLPs shared by decoders and experts, and how blocks are run."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


def run_block(block: Callable[..., Any], *inputs: Any, checkpointed: bool) -> Any:
    """block(*inputs); checkpointed, its activations are computed again in the backward pass."""
    if checkpointed and torch.is_grad_enabled():
        return checkpoint(block, *inputs, use_reentrant=False)
    return block(*inputs)


class RMSNorm(nn.Module):
    """x / rms(x) * scale, in float32 (Zhang and Sennrich 2019).

    Args:
        width: size of the last axis.
        eps: added to the mean square.
        unit_offset: whether the stored weight is scale - 1 (Gemma) or scale (Llama, Qwen).
    """

    def __init__(self, width: int, eps: float, *, unit_offset: bool = False) -> None:
        super().__init__()
        self.eps = eps
        self.unit_offset = unit_offset
        self.weight = nn.Parameter(torch.zeros(width) if unit_offset else torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """float[..., d] -> the same shape and dtype."""
        scale = self.weight.float() + 1.0 if self.unit_offset else self.weight.float()
        return functional.rms_norm(x.float(), x.shape[-1:], scale, self.eps).to(x.dtype)


class AdaptiveRMSNorm(nn.Module):
    """RMSNorm with scale, shift and residual gate from a condition (adaRMS of pi0.5).

    y = x / rms(x) * (1 + scale) + shift; the gate multiplies what the block adds to the residual
    stream. The linear map starts at zero for scale and shift and at one for the gate, so a new
    expert begins as a plain pre-norm transformer.
    """

    def __init__(self, width: int, condition_width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.dense = nn.Linear(condition_width, 3 * width)
        nn.init.zeros_(self.dense.weight)
        with torch.no_grad():
            self.dense.bias.copy_(torch.cat((torch.zeros(2 * width), torch.ones(width))))

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Normalized x and the gate.

        Args:
            x: float[b, k, m, d].
            condition: float[b, k, 1, c], one a noise draw, or [b, k, m, c], one a token.

        Returns:
            Two float of x's rank; the gate has one row where the condition has one.
        """
        scale, shift, gate = self.dense(condition).chunk(3, dim=-1)
        normalized = functional.rms_norm(x.float(), x.shape[-1:], None, self.eps)
        return (normalized * (1.0 + scale.float()) + shift.float()).to(x.dtype), gate


class GatedMLP(nn.Module):
    """down(act(gate(x)) * up(x)), the MLP of Llama, Qwen and Gemma.

    Args:
        width: size of the residual stream.
        hidden: size between.
        activation: 'silu' (Llama, Qwen) or 'gelu_tanh' (Gemma).
    """

    def __init__(self, width: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.activation = activation
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """float[..., d] -> the same shape."""
        gate = self.gate_proj(x)
        gate = (
            functional.silu(gate)
            if self.activation == "silu"
            else functional.gelu(gate, approximate="tanh")
        )
        return self.down_proj(gate * self.up_proj(x))
