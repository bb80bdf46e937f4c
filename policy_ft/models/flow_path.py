"""Flow matching between noise (time 1) and actions (time 0), as pi0 defines it.

x_t = t * noise + (1 - t) * actions, and the model learns the velocity noise - actions (Lipman et
al. 2023; Black et al.
2024, whose text lets time run the other way: this is the direction of the released code and
weights). Said once, here: time 1 is noise, time 0 is data.
"""

import torch
from torch import Tensor

BETA_A, BETA_SCALE, BETA_OFFSET = 1.5, 0.999, 0.001


def time_from_uniform(uniform: Tensor) -> Tensor:
    """Beta(1.5, 1) * 0.999 + 0.001 from U(0, 1) of the same shape: more weight on noisy times.

    Beta(a, 1) has the distribution function t^a, so its inverse is u^(1 / a). Source: openpi,
    models/pi0.py.
    """
    return uniform ** (1.0 / BETA_A) * BETA_SCALE + BETA_OFFSET


def interpolate(actions: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """x_t: float[b, k, h, a] between actions[b, 1, h, a] and noise[b, k, h, a].

    Args:
        actions: where time is 0.
        noise: where time is 1.
        time: float[b, k] of whole chunks, or [b, k, h] of each step.
    """
    t = time[..., None] if time.ndim == 3 else time[:, :, None, None]
    return t * noise + (1.0 - t) * actions


def time_embedding(
    time: Tensor, width: int, min_period: float = 4e-3, max_period: float = 4.0
) -> Tensor:
    """Sines and cosines of time at geometrically spaced periods: float32[..., width], sines first.

    Computed in float64, as openpi's PyTorch code does: the shortest period is 1/250 of the range.

    Args:
        time: float[...] in [0, 1].
        width: even.
        min_period: shortest period, in units of time.
        max_period: longest period.
    """
    fraction = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float64, device=time.device)
    period = min_period * (max_period / min_period) ** fraction
    angle = time[..., None].double() * (2.0 * torch.pi / period)
    return torch.cat((angle.sin(), angle.cos()), dim=-1).float()
