"""Solvers against a flow that is known in closed form.

Actions ~ N(mean, covariance) over the flattened chunk and noise ~ N(0, I): at time t the noisy
chunk is normal, and the velocity that a perfect model learns is the conditional mean of
noise - actions given it, a linear map.
"""

import pytest
import torch
from torch import Tensor

from policy_ft.errors import UserError
from policy_ft.models.solvers import Euler

STEPS, SAMPLES = 6, 20_000
IDENTITY = torch.eye(STEPS, dtype=torch.float64)


class GaussianFlow:
    """The exact velocity of a chunk of one column whose steps are correlated over 4 of them."""

    def __init__(self) -> None:
        step = torch.arange(STEPS, dtype=torch.float64)
        gap = step[:, None] - step[None, :]
        self.covariance = torch.exp(-gap.square() / 32) * 0.5 + IDENTITY * 0.01
        self.mean = torch.linspace(-1, 1, STEPS, dtype=torch.float64)

    def __call__(self, x: Tensor, time: Tensor) -> Tensor:
        t = time[0].double()
        of_x = t**2 * IDENTITY + (1 - t) ** 2 * self.covariance
        gain = torch.linalg.solve(of_x, t * IDENTITY - (1 - t) * self.covariance).mT
        return ((x[..., 0] - (1 - t) * self.mean) @ gain.mT - self.mean)[..., None]


@pytest.fixture
def noise() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(SAMPLES, STEPS, 1, generator=generator, dtype=torch.float64)


def errors(flow: GaussianFlow, samples: Tensor) -> tuple[float, float]:
    found = samples[..., 0]
    return (
        (found.mean(0) - flow.mean).abs().max().item(),
        (found.T.cov() - flow.covariance).abs().max().item(),
    )


def test_euler_samples_the_distribution_that_the_flow_ends_in(noise):
    flow = GaussianFlow()
    of_10, of_100 = (errors(flow, Euler(steps)(flow, noise)) for steps in (10, 100))
    assert of_100[0] < 0.02
    assert of_100[1] < 0.04
    assert of_100[1] < 0.5 * of_10[1], "the error falls with the steps"


def test_euler_is_of_first_order(noise):
    """Against 4,000 steps from the same noise: twice the steps, half the difference."""
    flow, few = GaussianFlow(), noise[:50]
    exact = Euler(4000)(flow, few)
    found = [(Euler(steps)(flow, few) - exact).abs().mean().item() for steps in (50, 100)]
    assert found[0] / found[1] == pytest.approx(2.0, rel=0.1)


def test_no_step_is_refused():
    with pytest.raises(UserError, match="num_steps: found 0; expected at least 1"):
        Euler(0)
