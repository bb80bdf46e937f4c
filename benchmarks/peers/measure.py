"""One timed step of a pi0 model: what it cost and what it computed. torch alone, for both sides."""

import ctypes
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Measured:
    """One step.

    Attributes:
        seconds: CPU time of the process, or the device's time on a GPU.
        values: flat squared errors of training, or flat actions of sampling.
        gradient_norm: over all parameters after a training step; 0 after sampling.
    """

    seconds: float
    values: list[float]
    gradient_norm: float


def train_step(model: nn.Module, errors: Callable[[], Tensor]) -> Measured:
    """Forward and backward of mean(errors()), from gradients that are not there."""
    model.train()
    model.zero_grad(set_to_none=True)

    def step() -> Tensor:
        unreduced = errors()
        unreduced.mean().backward()  # type: ignore[no-untyped-call]
        return unreduced.detach()

    values, seconds = _timed(step, next(model.parameters()).device)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    model.zero_grad(set_to_none=True)
    return Measured(seconds, values.flatten().tolist(), float(norm))


def sampling(model: nn.Module, sample: Callable[[], Tensor]) -> Measured:
    """One sampling of an action chunk."""
    model.eval()
    values, seconds = _timed(sample, next(model.parameters()).device)
    return Measured(seconds, values.flatten().tolist(), 0.0)


def release_memory() -> None:
    """Gives the memory of dropped models back to the system, for the next process to use.

    Freed tensors of up to 32 MiB, some GiB of them, otherwise stay with glibc.
    """
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def _timed(step: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, float]:
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(device)
        start.record()
        values = step()
        end.record()
        torch.cuda.synchronize(device)
        return values, start.elapsed_time(end) / 1000
    before = time.process_time()
    values = step()
    return values, time.process_time() - before
