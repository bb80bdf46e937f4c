"""Batch: what a model and its objectives read for one forward pass.

Letters: b sample, k noise draw, h step of the chunk, a action column.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from policy_ft.models.inputs import ModelInput


@dataclass(frozen=True)
class Batch:
    """Encoded observations with the actions that followed them, on the model's device.

    Attributes:
        inputs: the encoded observations.
        actions: float32[b, h, a], normalized.
        valid: bool[b, 1, h, a], True where an element carries loss: a real step, and a real column
            that moves, both in the data it comes from and to the policy.
        noise: float32[b, k, h, a]. time: float32[b, k], or [b, k, h] where the steps of a chunk
            have times of their own; 1 = noise, 0 = data.
        sample_id: int64[b], in host memory.
        epoch: int64[b], in host memory: which pass over the data each sample is of; with the
            sample id it names what is drawn for it.
        columns: name -> float32[b] of what else the data says of each sample, e.g. 'weight'.
    """

    inputs: ModelInput
    actions: Tensor
    valid: Tensor
    noise: Tensor
    time: Tensor
    sample_id: Tensor
    epoch: Tensor
    columns: Mapping[str, Tensor] = field(default_factory=dict)
