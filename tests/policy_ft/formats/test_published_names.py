"""Published names and sizes, at full size on the meta device: nothing is loaded or downloaded."""

from math import prod
from pathlib import Path

import pytest
import torch

from policy_ft.errors import UserError
from policy_ft.formats.sizes import Stated, model_config
from policy_ft.formats.tensor_names import NAMES, dead_head_shape, published_names
from policy_ft.models.build import build_model

KEYS = Path(__file__).parents[2] / "goldens" / "keys"
FAMILIES = ("pi0", "pi05", "smolvla")

# counted once where tied. Source: the class models of openpi and LeRobot built on the meta device.
PARAMETERS = {"pi0": 3_501_372_176, "pi05": 3_616_757_520, "smolvla": 450_046_176}
LIVE_PARAMETERS = {"pi0": 3_238_048_528, "pi05": 3_353_433_872, "smolvla": 402_737_376}


def published_shapes(family: str) -> dict[str, tuple[int, ...]]:
    """The family's whole state dict; a line is `name shape [first:end:step of the layers]`."""
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
def test_what_would_be_exported_is_exactly_what_is_published(family):
    published = published_shapes(family)
    live = live_shapes(family)
    config = model_config(family, live, {}, family)[0]
    root = "model." if family == "smolvla" else ""
    exported = {root + NAMES[family].stored_name(name): shape for name, shape in live.items()}
    exported[root + NAMES[family].dead] = dead_head_shape(config)
    if NAMES[family].tied:
        written, alias = NAMES[family].tied
        assert published.pop(alias) == published[written]
    assert exported == published
    assert sum(prod(shape) for shape in exported.values()) == PARAMETERS[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_names_go_both_ways(family):
    for name in live_shapes(family):
        assert NAMES[family].live_name(NAMES[family].stored_name(name)) == name


@pytest.mark.parametrize("family", FAMILIES)
def test_a_parameter_that_no_file_has_is_refused(family):
    with pytest.raises(ValueError, match="no published file has it"):
        NAMES[family].stored_name("backbone.image_positions")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_live_model_has_exactly_the_published_tensors_but_for_dead_heads(family):
    shapes = live_shapes(family)
    with torch.device("meta"):
        model = build_model(model_config(family, shapes, {}, family)[0])
    assert {name: tuple(each.shape) for name, each in model.state_dict().items()} == shapes
    assert sum(each.numel() for each in model.parameters()) == LIVE_PARAMETERS[family]


def test_the_published_sizes_need_no_config():
    pi0 = model_config("pi0", live_shapes("pi0"), {}, "pi0")[0]
    assert (pi0.vision.num_heads, pi0.image_height, pi0.language.num_heads) == (16, 224, 8)
    smolvla = model_config("smolvla", live_shapes("smolvla"), {}, "smolvla")[0]
    assert (smolvla.language.num_heads, smolvla.language.num_kv_heads) == (15, 5)
    assert (smolvla.image_height, smolvla.connector.pixel_shuffle) == (512, 4)
    assert (smolvla.expert.width, smolvla.expert.self_attention_every) == (720, 2)


def test_heads_that_shapes_do_not_tell_are_asked_for_by_their_key():
    shapes = live_shapes("smolvla")
    for name in [name for name in shapes if "embed_tokens" in name]:
        shapes[name] = (shapes[name][0], 961)
    with pytest.raises(UserError, match=r"Add the key 'vlm_config.text_config.num_attention_head"):
        model_config("smolvla", shapes, {}, "x")


def test_a_size_that_config_states_must_be_the_one_of_the_weights():
    stated = {"action_dim": Stated("max_action_dim", 24), "language.depth": Stated("v", 17)}
    with pytest.raises(UserError, match="max_action_dim: found 24; expected 32") as caught:
        model_config("pi0", live_shapes("pi0"), stated, "x")
    assert "v: found 17; expected 18, as in the weights" in str(caught.value)


def test_the_image_size_must_give_as_many_patches_as_there_are_positions():
    stated = {"image_height": Stated("image_resolution", 224)}
    stated["image_width"] = Stated("image_resolution", 448)
    with pytest.raises(UserError, match="224 x 448 pixels with patches of 14; expected 256"):
        model_config("pi0", live_shapes("pi0"), stated, "x")


def test_a_size_that_no_model_can_have_is_named_by_its_key():
    stated = {"expert.min_period": Stated("min_period", -1.0)}
    with pytest.raises(UserError, match=r"x, sizes, expert.min_period: "):
        model_config("pi0", live_shapes("pi0"), stated, "x")


def test_experts_of_another_depth_than_the_language_model_are_refused():
    shapes = {n: s for n, s in live_shapes("pi0").items() if "expert.layers.17" not in n}
    with pytest.raises(UserError, match="17 expert blocks; expected 18, one a language block"):
        model_config("pi0", shapes, {}, "x")
