"""Flow matching: the velocity between noise and actions, as pi0 is trained.

Letters: b sample, k noise draw, h step of the chunk, a action column.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from data_tools.columns import WEIGHT
from policy_ft.models.batch import Batch
from policy_ft.models.flow_path import interpolate
from policy_ft.models.objective import Objective, Term
from policy_ft.models.prefix import Prefix
from policy_ft.models.vla import VLAModel


class Flow(Objective):
    """The squared error of the velocity noise - actions, over all valid elements.

    A batch with the column 'weight' has each sample's elements count that much: the loss is then
    sum(weight * error) / sum(weight). Source: Lipman et al. 2023; Black et al. 2024.
    """

    name = "flow"
    columns = frozenset({WEIGHT})
    works_on_shards = True

    def reaches(self, model: VLAModel) -> frozenset[str]:
        """Everything but what neither the prefix nor the velocity depends on."""
        unread = {f"backbone.{name}" for name in model.backbone.dormant}
        return frozenset(name for name, _ in model.named_parameters()) - unread

    def counts(self, batch: Batch) -> Mapping[str, Tensor]:
        """The valid elements over all draws, or the sum of their weights."""
        draws = batch.noise.shape[1]
        if WEIGHT not in batch.columns:
            return {self.name: batch.valid.sum(dtype=torch.float64) * draws}
        valid = batch.valid.flatten(1).sum(1, dtype=torch.float64)
        return {self.name: (valid * batch.columns[WEIGHT].double()).sum() * draws}

    def __call__(self, model: VLAModel, prefix: Prefix, batch: Batch) -> Mapping[str, Term]:
        """{"flow": the squared errors float32[b, k, h, a]}."""
        actions = batch.actions[:, None]
        noisy = interpolate(actions, batch.noise, batch.time)
        velocity = model.expert(prefix, batch.inputs.state, noisy, batch.time)
        error = (velocity - (batch.noise - actions)).square()
        mask = batch.valid
        if WEIGHT in batch.columns:
            mask = mask * batch.columns[WEIGHT][:, None, None, None]
        return {self.name: Term(error, mask.expand_as(error))}
