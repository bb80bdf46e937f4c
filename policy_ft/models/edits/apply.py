"""Edits applied to a network, and what they did to the names of its tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policy_ft.config.edits import DropLayers, Edit, Lora, PeftAdapter
from policy_ft.models.edits.adapters import add_lora, add_peft
from policy_ft.models.edits.drop_layers import drop_layers


@dataclass(frozen=True)
class Changes:
    """What became of a model's parameters and saved buffers.

    Attributes:
        names: before -> after, of every tensor that is still there.
        added: after, of the new ones.
        removed: before, of those that are gone.
    """

    names: Mapping[str, str]
    added: tuple[str, ...]
    removed: tuple[str, ...]


def apply_edits(model: Any, edits: Sequence[Edit], where: str) -> Changes:
    """Changes a VLAModel as the edits say, one after the other.

    Args:
        model: changed in place; what stays keeps its values.
        edits: in order.
        where: how messages call the list, e.g. 'policy.edits'.

    Raises:
        UserError: an edit that does not fit the model as those before it have left it.
    """
    before = model.state_dict(keep_vars=True)
    for place, edit in enumerate(edits):
        match edit:
            case Lora():
                add_lora(model, edit, f"{where}[{place}]")
            case PeftAdapter():
                add_peft(model, edit, f"{where}[{place}]")
            case DropLayers():
                drop_layers(model, edit, f"{where}[{place}]")
    after = model.state_dict(keep_vars=True)
    name_of = {id(tensor): name for name, tensor in after.items()}
    names = {name: name_of[id(t)] for name, t in before.items() if id(t) in name_of}
    kept = set(names.values())
    return Changes(
        names=names,
        added=tuple(name for name in after if name not in kept),
        removed=tuple(name for name in before if name not in names),
    )
