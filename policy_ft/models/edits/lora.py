"""LoRA: low-rank adapters beside linear layers, made by peft."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from data_tools.errors import nearest
from policy_ft.config.edits import Lora
from policy_ft.errors import UserError, describe, raise_faults
from policy_ft.models.leaves import BASE, LORA_A, LORA_B, is_of_adapter, matches
from policy_ft.models.torchvision_guard import ensure_torchvision_imports

if TYPE_CHECKING:
    from types import ModuleType


def add_lora(model: Any, edit: Lora, where: str) -> None:
    """Gives every linear layer that the edit names an adapter.

    The model computes the same numbers as before: B is zero, A drawn from torch's generator.

    Args:
        model: a VLAModel.
        edit: which layers, and how large.
        where: how messages call the edit.

    Raises:
        UserError: peft is not installed, a pattern names no linear layer or none without an
            adapter, or an adapter would be no smaller than the layer it stands beside.
    """
    layers = _layers(model, edit, where)
    _require_low_rank(layers, edit, where)
    peft = _peft(where)
    settings = peft.LoraConfig(
        r=edit.rank,
        lora_alpha=edit.scale * edit.rank,
        lora_dropout=edit.dropout,
        target_modules=list(layers),
    )
    learned = {id(parameter): parameter.requires_grad for parameter in model.parameters()}
    peft.inject_adapter_in_model(settings, model)
    # it also decides what learns, and leaves settings that a second edit would trip over
    for parameter in model.parameters():
        parameter.requires_grad_(learned.get(id(parameter), True))
    del model.peft_config
    given = {name for name in layers if hasattr(model.get_submodule(name), "lora_A")}
    assert given == layers.keys(), f"peft left out {sorted(layers.keys() - given)}"
    model.adapter_targets = (*model.adapter_targets, *edit.target)


def merged_tensors(
    model: nn.Module, tensors: Mapping[str, Tensor]
) -> dict[str, Callable[[], Tensor]]:
    """Name in the model without adapters -> how its tensor is made of those of a model with them.

    What has an adapter becomes W + alpha / rank * B A, added in float64 and given the widest of
    their types; the rest is handed on.

    Args:
        model: with adapters; its values are not read.
        tensors: its parameters and saved buffers by name.
    """
    makers: dict[str, Callable[[], Tensor]] = {}
    for name in tensors:
        layer, base, last = name.rpartition(f".{BASE}")
        if base and last == "weight":
            adapted: Any = model.get_submodule(layer)
            scale = adapted.scaling["default"]
            makers[f"{layer}.weight"] = partial(_merged, tensors, layer, scale)
        elif not is_of_adapter(name):
            makers[name.replace(f".{BASE}", ".")] = partial(tensors.__getitem__, name)
    return makers


def _merged(tensors: Mapping[str, Tensor], layer: str, scale: float) -> Tensor:
    weight = tensors[f"{layer}.{BASE}weight"]
    a, b = tensors[f"{layer}.{LORA_A}"], tensors[f"{layer}.{LORA_B}"]
    dtype = torch.promote_types(weight.dtype, a.dtype)
    return (weight.double() + scale * (b.double() @ a.double())).to(dtype)


def _layers(model: Any, edit: Lora, where: str) -> dict[str, nn.Linear]:
    """Name -> linear layer that the edit gives an adapter."""
    leaf_of = {name: leaf for leaf, names in model.groups().items() for name in names}
    linear = {name: module for name, module in model.named_modules() if type(module) is nn.Linear}
    taken = [name for name in linear if f".{name}.".endswith(f".{BASE}")]
    chosen: dict[str, nn.Linear] = {}
    faults = []
    for pattern in edit.target:
        hits = [
            name
            for name in linear
            if matches(pattern, leaf_of[f"{name}.weight"], f"{name}.weight")
            and not is_of_adapter(name)
        ]
        under = [n for n in taken if matches(pattern, leaf_of[f"{n}.weight"], f"{n}.weight")]
        fresh = [name for name in hits if name not in taken]
        if not fresh:
            faults.append(_nothing_to_adapt(pattern, len(under), leaf_of, linear, where))
        chosen |= {name: linear[name] for name in fresh}
    raise_faults(faults)
    return chosen


def _nothing_to_adapt(
    pattern: str,
    num_taken: int,
    leaf_of: Mapping[str, str],
    linear: Mapping[str, nn.Linear],
    where: str,
) -> str:
    if num_taken:
        found = f"{pattern!r}, whose {num_taken} linear layers all have an adapter"
        expected = "a pattern for at least one layer without"
        remedy = (
            "Leave the edit out to train the adapters that are there, or merge them first: "
            "policy-ft convert CHECKPOINT DIRECTORY --to native --merge."
        )
        return describe(f"{where}.target", found, expected, remedy)
    leaves = sorted({leaf_of[f"{name}.weight"] for name in linear if not is_of_adapter(name)})
    above = {".".join(leaf.split(".")[:end]) for leaf in leaves for end in range(1, 3)}
    tops = sorted({leaf.split(".")[0] for leaf in leaves})
    hint = nearest(pattern, sorted({*leaves, *above}))
    found = f"{pattern!r}, which names no linear layer"
    expected = f"a name or pattern of a group with linear layers, below {tops}"
    return describe(f"{where}.target", found, expected, f"Correct the pattern. {hint}".strip())


def _require_low_rank(layers: Mapping[str, nn.Linear], edit: Lora, where: str) -> None:
    """UserError where training the layer itself would take fewer parameters than its adapter."""
    large = [
        name
        for name, layer in layers.items()
        if edit.rank * sum(layer.weight.shape) >= layer.weight.numel()
    ]
    if large:
        rows, columns = layers[large[0]].weight.shape
        most = (rows * columns - 1) // (rows + columns)
        found = f"{edit.rank}, with which adapters of {len(large)} layers are no smaller than the "
        found += f"layers, e.g. of {large[0]!r} [{rows}, {columns}]"
        remedy = "Lower rank, or leave small layers out of target: they can learn in full."
        raise UserError(describe(f"{where}.rank", found, f"at most {most} there", remedy))


def _peft(where: str) -> "ModuleType":
    ensure_torchvision_imports()
    try:
        import peft  # takes seconds, and is an extra
    except ModuleNotFoundError as error:
        if error.name != "peft":
            raise
        remedy = "Install it: pip install 'policy_ft[adapters]'."
        raise UserError(
            describe(where, "no package peft", "it, which adapters are made by", remedy)
        ) from None
    return peft
