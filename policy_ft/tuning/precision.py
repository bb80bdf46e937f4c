"""The types of the weights in a run: float32 where they learn, as they were where they do not."""

from collections.abc import Collection

import torch
from torch import Tensor

from policy_ft.models.vla import VLAModel


def widen_weights(
    model: VLAModel, learning: Collection[str], computed_in: torch.dtype | None
) -> tuple[str, ...]:
    """Makes float32 what learns, since bfloat16 would lose most small updates, and what must be.

    What is frozen keeps its type where products are computed in that type, or where it is quantized
    (a type that is no floating one, or a tensor class of its own). Buffers become float32.

    Returns:
        Names of the frozen parameters that had to become float32.

    Args:
        model: changed in place.
        learning: names of the parameters that ever learn.
        computed_in: the type that matrix products are cast to; None where they are not.
    """
    widened, never_small = [], model.float32_names()
    for name, parameter in model.named_parameters():
        is_kept = name not in learning and (
            (parameter.dtype == computed_in and name not in never_small) or is_quantized(parameter)
        )
        if is_kept or parameter.dtype == torch.float32:
            continue
        parameter.data = parameter.data.float()
        if name not in learning:
            widened.append(name)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.data = buffer.data.float()
    return tuple(widened)


def is_quantized(parameter: Tensor) -> bool:
    """Whether its values are no floats of torch's own."""
    return not parameter.is_floating_point() or type(parameter.data) is not Tensor
