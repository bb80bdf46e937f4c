"""The tensors that sizes of a published model are read from, and all that is missing with them."""

from collections.abc import Mapping
from typing import Final

import torch

from policy_ft.errors import describe, nearest, raise_faults
from policy_ft.formats.sizes import (
    ACTION_IN,
    EXPERT_BLOCKS,
    FC1,
    LANGUAGE_BLOCKS,
    PATCHES,
    POSITIONS,
    PROJECTOR,
    Shapes,
    model_config,
)
from policy_ft.formats.tensor_names import EMBEDDING, PublishedFamily, PublishedNames
from policy_ft.models.build import build_model

_DECODER: Final[Mapping[str, tuple[int, ...]]] = {
    "self_attn.q_proj": (576, 576),
    "self_attn.k_proj": (192, 576),
    "mlp.gate_proj": (128, 576),
}
_SIZE_TENSORS: Final[Mapping[str, tuple[int, ...]]] = {
    PATCHES: (32, 3, 14, 14),
    POSITIONS: (4, 32),
    FC1: (64, 32),
    PROJECTOR: (64, 32),
    EMBEDDING: (64, 576),
    ACTION_IN: (64, 32),
    **{
        f"{blocks}0.{part}.weight": shape
        for blocks in (LANGUAGE_BLOCKS, EXPERT_BLOCKS)
        for part, shape in _DECODER.items()
    },
}
"""Tensor -> a shape that it might have, in a small model of any family."""


def require_size_tensors(names: PublishedNames, shapes: Shapes, where: str) -> None:
    """UserError when tensors are missing that sizes are read from; names all that are missing.

    Args:
        names: of the tensors in the files.
        shapes: live name -> shape.
        where: how messages call the checkpoint.
    """
    faults = [
        describe(
            f"{where}, {names.stored_name(name)}",
            f"{list(shapes[name])}",
            f"{len(shape)} sizes above zero",
            "Download the checkpoint again; this is no weight of such a model.",
        )
        for name, shape in _SIZE_TENSORS.items()
        if name in shapes and (len(shapes[name]) != len(shape) or 0 in shapes[name])
    ]
    if not _SIZE_TENSORS.keys() <= shapes.keys():
        expected = _tensors(names.family, shapes, where)
        strangers = [name for name in names.stored if names.live_name(name) not in expected]
        candidates = [name for name in strangers if name not in names.dropped]
        for name in expected:
            if name not in shapes:
                stored = names.stored_name(name)
                hint = nearest(stored, candidates)
                remedy = "Use a complete checkpoint" + (f"; {hint}" if hint else ".")
                wanted = f"all tensors of {names.family}"
                faults.append(describe(f"{where}, {stored}", "no such tensor", wanted, remedy))
    raise_faults(faults)


def _tensors(family: PublishedFamily, shapes: Shapes, where: str) -> list[str]:
    """The names of the tensors of a whole model with as many blocks as these names tell."""
    config, _ = model_config(family, {**shapes, **_SIZE_TENSORS}, {}, where)
    with torch.device("meta"):
        return list(build_model(config).state_dict())
