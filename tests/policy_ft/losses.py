"""The flow loss of a model, element by element, and the parameters that it does not reach."""

import torch
from torch import Tensor

from policy_ft.models.batch import Batch
from policy_ft.models.inputs import ModelInput
from policy_ft.models.prefix import Prefix
from policy_ft.models.vla import VLAModel
from policy_ft.objectives.flow import Flow


def flow_batch(
    inputs: ModelInput, actions: Tensor, noise: Tensor | None = None, time: Tensor | None = None
) -> Batch:
    """A batch whose every element carries loss; noise and time are drawn where not given."""
    noise = torch.randn_like(actions) if noise is None else noise
    draws = noise if noise.ndim == 4 else noise[:, None]
    times = torch.rand(draws.shape[:2]) if time is None else time
    return Batch(
        inputs=inputs,
        actions=actions,
        valid=torch.ones(len(actions), 1, *actions.shape[1:], dtype=torch.bool),
        noise=draws,
        time=times if times.ndim > 1 else times[:, None],
        sample_id=torch.arange(len(actions)),
        epoch=torch.zeros(len(actions), dtype=torch.int64),
    )


def flow_errors(
    model: VLAModel,
    inputs: ModelInput,
    actions: Tensor,
    noise: Tensor | None = None,
    time: Tensor | None = None,
    features: Prefix | Tensor | None = None,
) -> Tensor:
    """The squared errors of the velocity, of the noise's shape; noise[b, h, a] is one draw."""
    batch = flow_batch(inputs, actions, noise, time)
    errors = model(batch, [Flow()], features)["flow"].values
    return errors if noise is None or noise.ndim == 4 else errors[:, 0]


def dormant(model: VLAModel) -> set[str]:
    """Names of the parameters that the flow loss does not reach."""
    return {name for name, _ in model.named_parameters()} - Flow().reaches(model)
