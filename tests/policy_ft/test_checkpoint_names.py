"""Published names and sizes, at full size on the meta device: nothing is loaded or downloaded."""

from math import prod
from pathlib import Path

import pytest
import torch

from policy_ft.checkpoints.names import NAMES, dead_head_shape, published_names
from policy_ft.checkpoints.sizes import Stated, model_config
from policy_ft.errors import UserError
from policy_ft.models.build import build_model

KEYS = Path(__file__).parents[1] / "goldens" / "keys"
FAMILIES = ("pi0", "pi05", "smolvla")

# counted once where tied. Source: the class models of openpi and LeRobot built on the meta device.
PARAMETERS = {"pi0": 3_501_372_176, "pi05": 3_616_757_520, "smolvla": 450_046_176}
LIVE_PARAMETERS = {"pi0": 3_238_048_528, "pi05": 3_353_433_872, "smolvla": 402_737_376}


def published_shapes(family: str) -> dict[str, tuple[int, ...]]:
    """The family's whole state dict: name -> shape. A line is `name shape [layers first:end:step]`."""
    shapes = {}
    for line in (KEYS / f"{family}.txt").read_text(encoding="ascii").splitlines():
        name, sizes, *layers = line.split()
        shape = tuple(int(size) for size in sizes.split("x"))
        if not layers:
            shapes[name] = shape
        else:
            for layer in range(*(int(number) for number in layers[0].split(":"))):
                shapes[name.replace("*", str(layer))] = shape
    return shapes


def live_shapes(family: str) -> dict[str, tuple[int, ...]]:
    stored = published_shapes(family)
    names = published_names(stored, family)
    lives = {name: names.live_name(name) for name in stored}
    return {live: stored[name] for name, live in lives.items() if live is not None}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_live_model_has_exactly_the_published_tensors_but_for_dead_heads(family):
    shapes = live_shapes(family)
    with torch.device("meta"):
        model = build_model(model_config(family, shapes, {}, family))
    assert {name: tuple(each.shape) for name, each in model.state_dict().items()} == shapes
    assert sum(each.numel() for each in model.parameters()) == LIVE_PARAMETERS[family]
