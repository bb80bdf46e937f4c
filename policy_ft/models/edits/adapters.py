"""Adapters beside linear layers, made by peft: LoRA and its variants, and other methods."""

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from data_tools.errors import nearest
from policy_ft.config.edits import Lora, PeftAdapter
from policy_ft.errors import UserError, describe, raise_faults
from policy_ft.models.leaves import BASE, LORA_A, LORA_B, MAGNITUDE, is_of_adapter, matches
from policy_ft.models.torchvision_guard import ensure_torchvision_imports

if TYPE_CHECKING:
    from types import ModuleType

_MORE_VALUES = 32
"""Singular values beyond those that an adapter takes, with which the iteration is accurate."""


def add_lora(model: Any, edit: Lora, where: str) -> None:
    """Gives every linear layer that the edit names an adapter.

    The model computes the same numbers as before: B is zero, A drawn from torch's generator. With
    `init: pissa` it computes them to rounding, and the weights under the adapters change.

    Args:
        model: a VLAModel.
        edit: which layers, and how large.
        where: how messages call the edit.

    Raises:
        UserError: peft is not installed, a pattern names no linear layer or none without an
            adapter, or an adapter would be no smaller than the layer it stands beside.
    """
    layers = _layers(model, edit.target, where)
    _require_low_rank(layers, edit, where)
    settings = {
        "r": edit.rank,
        "lora_alpha": edit.rank if edit.alpha == "rank" else edit.alpha,
        "lora_dropout": edit.dropout,
        "use_rslora": edit.rslora,
        "use_dora": edit.dora,
    }
    _inject(model, layers, "lora", settings, where)
    model.adapter_targets = (*model.adapter_targets, *edit.target)
    if edit.init == "pissa":
        for name in layers:
            _take_out_principal(model.get_submodule(name), edit)


def add_peft(model: Any, edit: PeftAdapter, where: str) -> None:
    """Gives every linear layer that the edit names an adapter of its method.

    The model computes the same numbers as before, to rounding.

    Args:
        model: a VLAModel.
        edit: the method, its options, and which layers.
        where: how messages call the edit.

    Raises:
        UserError: as `add_lora`, or options that peft does not take.
    """
    layers = _layers(model, edit.target, where)
    of_expert = [name for name in layers if not name.startswith("backbone.")]
    if edit.method == "oft" and of_expert:
        found = f"oft beside {len(of_expert)} layers of the action expert, e.g. {of_expert[0]!r}"
        expected = "layers of the backbone, for peft takes the expert's inputs for images"
        remedy = "Target vision or language, and give the expert an adapter of another kind."
        raise UserError(describe(f"{where}.target", found, expected, remedy))
    _inject(model, layers, edit.method, edit.options, where)
    model.adapter_targets = (*model.adapter_targets, *edit.target)


def _inject(
    model: Any,
    layers: Mapping[str, nn.Linear],
    method: str,
    options: Mapping[str, Any],
    where: str,
) -> None:
    """Puts peft's adapters beside the layers, and leaves everything else as it was."""
    peft = _peft(where)
    kinds = import_module("peft.mapping").PEFT_TYPE_TO_CONFIG_MAPPING
    learned = {id(parameter): parameter.requires_grad for parameter in model.parameters()}
    try:
        settings = kinds[method.upper()](target_modules=list(layers), **options)
        peft.inject_adapter_in_model(settings, model)
    except (TypeError, ValueError) as error:
        if method == "lora":
            raise
        expected, remedy = f"options that fit {method} and these layers", "Correct the options."
        raise UserError(
            describe(f"{where}.options", f"{dict(options)} ({error})", expected, remedy)
        ) from None
    # it also decides what learns, and leaves settings that a second edit would trip over
    for parameter in model.parameters():
        parameter.requires_grad_(learned.get(id(parameter), True))
    del model.peft_config
    for name in layers:
        model.get_submodule(name).peft_settings = settings
    given = {name for name in layers if hasattr(model.get_submodule(name), "base_layer")}
    assert given == layers.keys(), f"peft left out {sorted(layers.keys() - given)}"


@torch.no_grad()
def _take_out_principal(layer: Any, edit: Lora) -> None:
    """A and B become the root of the largest singular values, the weight what is left.

    Source: Meng et al. 2024 (2404.02948), equations 2 to 4. By randomized iteration on a few more
    values than are kept (Halko et al. 2011): the sum is the weight whatever the accuracy.
    """
    weight = layer.base_layer.weight
    if weight.is_meta:
        return
    rank, most = edit.rank, min(weight.shape)
    u, s, v = torch.svd_lowrank(weight.float(), q=min(rank + _MORE_VALUES, most), niter=8)
    u, v, root = u[:, :rank], v[:, :rank], (s[:rank] / edit.scale).sqrt()
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    a.copy_(root[:, None] * v.T)
    b.copy_(u * root)
    weight.copy_(weight.float() - edit.scale * (b.float() @ a.float()))


def merged_tensors(
    model: nn.Module, tensors: Mapping[str, Tensor]
) -> dict[str, Callable[[], Tensor]]:
    """Name in the model without adapters -> how its tensor is made of those of a model with them.

    What has an adapter becomes W + scale * B A (of DoRA its rows at their learned lengths), or what
    peft merges of another method; added in float64 and given the widest of their types. The rest
    is handed on.

    Args:
        model: with adapters; its values are not read.
        tensors: its parameters and saved buffers by name.
    """
    makers: dict[str, Callable[[], Tensor]] = {}
    for name in tensors:
        layer, base, last = name.rpartition(f".{BASE}")
        adapted: Any = model.get_submodule(layer) if base else None
        if base and hasattr(adapted, "lora_A"):
            if last == "weight":
                scale = adapted.scaling["default"]
                makers[f"{layer}.weight"] = partial(_merged, tensors, layer, scale)
            else:
                makers[f"{layer}.{last}"] = partial(tensors.__getitem__, name)
        elif base:
            makers[f"{layer}.{last}"] = partial(_merged_by_peft, tensors, layer, adapted, last)
        elif not is_of_adapter(name):
            makers[name] = partial(tensors.__getitem__, name)
    return makers


def _merged(tensors: Mapping[str, Tensor], layer: str, scale: float) -> Tensor:
    weight = tensors[f"{layer}.{BASE}weight"]
    a, b = tensors[f"{layer}.{LORA_A}"], tensors[f"{layer}.{LORA_B}"]
    dtype = torch.promote_types(weight.dtype, a.dtype)
    whole = weight.double() + scale * (b.double() @ a.double())
    if (magnitude := f"{layer}.{MAGNITUDE}") in tensors:
        length = tensors[magnitude].double() / whole.norm(dim=1)
        whole = length[:, None] * whole
    return whole.to(dtype)


@torch.no_grad()
def _merged_by_peft(
    tensors: Mapping[str, Tensor], layer: str, adapted: nn.Module, last: str
) -> Tensor:
    """The weight or the bias of a layer as peft merges it, of tensors made float64."""
    own = {name: tensors[f"{layer}.{name}"] for name in adapted.state_dict()}
    wide = {n: t.double() if t.is_floating_point() else t for n, t in own.items()}
    whole = _again(adapted)
    whole.load_state_dict(wide, assign=True)
    whole.merge()
    base = own[f"{BASE}{last}"]
    types = [t.dtype for t in own.values() if t.is_floating_point()]
    dtype = functools.reduce(torch.promote_types, types, base.dtype)
    merged: Tensor = getattr(whole.base_layer, last)
    return merged.to(dtype)


def _again(adapted: Any) -> Any:
    """The same kind of layer with values of its own; what it computes besides its state is real."""
    plain = adapted.base_layer
    frame = nn.ModuleDict(
        {"layer": nn.Linear(plain.in_features, plain.out_features, plain.bias is not None)}
    )
    settings = copy.copy(adapted.peft_settings)
    settings.target_modules = {"layer"}
    if getattr(adapted, "is_feedforward", False):  # of ia3: which side is scaled
        settings.feedforward_modules = {"layer"}
    _peft("merging").inject_adapter_in_model(settings, frame)
    return frame["layer"]


def _layers(model: Any, target: Sequence[str], where: str) -> dict[str, nn.Linear]:
    """Name -> linear layer that an edit with these patterns gives an adapter."""
    leaf_of = {name: leaf for leaf, names in model.groups().items() for name in names}
    linear = {name: module for name, module in model.named_modules() if type(module) is nn.Linear}
    taken = [name for name in linear if f".{name}.".endswith(f".{BASE}")]
    chosen: dict[str, nn.Linear] = {}
    faults = []
    for pattern in target:
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
