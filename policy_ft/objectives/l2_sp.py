"""L2-SP: weights are drawn back to where the run began, against forgetting."""

from collections.abc import Mapping

import torch

from policy_ft.models.batch import Batch
from policy_ft.models.objective import Objective, Term
from policy_ft.models.prefix import Prefix
from policy_ft.models.vla import VLAModel
from policy_ft.training.hooks import Hook, RunView


class L2Sp(Hook, Objective):
    """The sum of squared differences between the weights that learn and those of the start.

    Source: Li et al. 2018, equation 3 (its alpha / 2 is the weight), for all parameters alike.

    Args:
        weight: of the sum in the loss.
    """

    name = "l2_sp"

    def __init__(self, weight: float) -> None:
        self._weight = weight

    def begin(self, run: RunView) -> None:
        """Notes the weights that the run began with."""
        start = dict(run.starting_policy().model.named_parameters())
        self._start = {name: start[name].float() for name in run.plan.trained}

    def __call__(self, model: VLAModel, prefix: Prefix, batch: Batch) -> Mapping[str, Term]:
        """{"l2_sp": a scalar}."""
        squares = [
            (parameter.float() - self._start[name]).square().sum()
            for name, parameter in model.named_parameters()
            if name in self._start and parameter.requires_grad
        ]
        return self.penalty(torch.stack(squares).sum(), self._weight)
