"""Blocks taken out of the decoder and the action expert."""

from typing import Any

from torch import nn

from policy_ft.config.edits import DropLayers
from policy_ft.errors import UserError, describe


def drop_layers(model: Any, edit: DropLayers, where: str) -> None:
    """Takes the blocks out of a VLAModel; those behind them move up.

    Raises:
        UserError: there is no such block, or none would be left.
    """
    decoder, expert = model.backbone.language, model.expert
    depth = len(decoder.layers)
    beyond = [index for index in edit.layers if index >= depth]
    if beyond or len(edit.layers) == depth:
        found = f"{beyond} beyond the last block" if beyond else f"all {depth} blocks"
        expected = f"indices from 0 to {depth - 1}, and at least one block that stays"
        raise UserError(describe(f"{where}.layers", found, expected, "Correct the indices."))
    kept = [index for index in range(depth) if index not in edit.layers]
    for part in (decoder, expert):
        part.layers = nn.ModuleList(part.layers[index] for index in kept)
