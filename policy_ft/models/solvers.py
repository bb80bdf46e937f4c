"""From noise to actions: how the flow that a model has learned is integrated.

Time runs from 1 (noise) to 0 (actions), as in models/flow_path.py. Letters: b observation, h step
of the chunk, a action column.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from policy_ft.errors import UserError, describe

Velocity = Callable[[Tensor, Tensor], Tensor]
"""(x float[b, h, a], time float32[b]) -> dx / dtime, float[b, h, a]."""


class Solver(Protocol):
    """Brings noise at time 1 to actions at time 0 along a velocity."""

    def __call__(self, velocity: Velocity, noise: Tensor) -> Tensor:
        """float[b, h, a], the actions.

        Args:
            velocity: of the flow.
            noise: float32[b, h, a].
        """


@dataclass(frozen=True)
class Euler:
    """Steps of equal length along the velocity at their beginning, as pi0 samples.

    Raises:
        UserError: fewer steps than one.
    """

    num_steps: int

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            remedy = "Give the Euler steps from noise to actions; ten in pi0."
            raise UserError(describe("num_steps", str(self.num_steps), "at least 1", remedy))

    def __call__(self, velocity: Velocity, noise: Tensor) -> Tensor:
        """float[b, h, a], the actions; arguments as `Solver`."""
        x, count = noise, self.num_steps
        for step in range(count):
            time = torch.full(x.shape[:1], 1.0 - step / count, dtype=torch.float32, device=x.device)
            x = x - velocity(x, time).to(x.dtype) / count
        return x


@dataclass(frozen=True)
class SampleRequest:
    """How chunks are to be drawn from a policy.

    Attributes:
        noise: float32[b, h, a], standard normal, where the flow starts; torch's global generator
            draws it when it is not given.
        solver: of the flow; the model's own number of Euler steps when not given.
    """

    noise: npt.NDArray[np.float32] | Tensor | None = None
    solver: Solver | None = None
