"""Every kind of adapter: no effect at first, alone in learning, saved whole, merged exactly."""

import re

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from policy_ft.checkpoints.edited import edited
from policy_ft.checkpoints.native import save_policy
from policy_ft.checkpoints.weights import weights_hash
from policy_ft.config.edits import Edit
from policy_ft.errors import UserError
from policy_ft.formats.conversion.convert import convert
from policy_ft.formats.load import load_policy
from policy_ft.models.leaves import BASE, is_of_adapter
from policy_ft.models.solvers import SampleRequest

TARGET = {"target": ["language", "expert"]}
KINDS = {
    "lora": {"kind": "lora", "rank": 4, **TARGET},
    "rslora": {"kind": "lora", "rank": 4, "rslora": True, **TARGET},
    "dora": {"kind": "lora", "rank": 4, "dora": True, **TARGET},
    "pissa": {"kind": "lora", "rank": 4, "init": "pissa", **TARGET},
    "oft": {
        "kind": "peft",
        "method": "oft",
        "options": {"oft_block_size": 8},
        "target": "language",
    },
    "hra": {"kind": "peft", "method": "hra", "options": {"r": 4}, **TARGET},
    "ia3": {"kind": "peft", "method": "ia3", "options": {"feedforward_modules": []}, **TARGET},
    "loha": {"kind": "peft", "method": "loha", "options": {"r": 4}, **TARGET},
    "lokr": {"kind": "peft", "method": "lokr", "options": {"r": 4}, **TARGET},
    "hira": {"kind": "peft", "method": "hira", "options": {"r": 4}, **TARGET},
}
EXACT = {"lora", "rslora", "dora", "ia3", "hira", "loha", "lokr", "oft"}
"""Kinds whose first step is bit-equal; the others change the last bits of sums."""


def edit_of(kind: str):
    return TypeAdapter(Edit).validate_python(KINDS[kind])


def act(policy, episodes) -> np.ndarray:
    noise = np.random.default_rng(3).standard_normal((1, *policy.chunk_shape)).astype(np.float32)
    return policy.act([episodes[0].observation(0, ["front", "wrist"])], SampleRequest(noise))[0]


def learned(policy, steps: int = 3) -> None:
    """Adapters that have taken a few steps of a loss on the actions."""
    adapters = [p for n, p in policy.model.named_parameters() if is_of_adapter(n)]
    for parameter in policy.model.parameters():
        parameter.requires_grad_(any(parameter is one for one in adapters))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in adapters:
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_adapter_changes_nothing_and_a_moved_one_something(policy, episodes, kind):
    before = act(policy, episodes)
    changed = edited(policy, [edit_of(kind)])
    found = act(changed, episodes)
    if kind in EXACT:
        assert np.array_equal(found, before)
    np.testing.assert_allclose(found, before, atol=1e-5)
    learned(changed)
    assert np.abs(act(changed, episodes) - before).max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapted_policy_is_loaded_whole_and_merges_to_the_same_actions(
    policy, episodes, tmp_path, kind
):
    changed = edited(policy, [edit_of(kind)])
    learned(changed)
    save_policy(changed, tmp_path / "adapted")
    again = load_policy(tmp_path / "adapted")
    assert weights_hash(again.model) == weights_hash(changed.model)
    wanted = act(changed, episodes)
    assert np.array_equal(act(again, episodes), wanted)
    convert(tmp_path / "adapted", "native", tmp_path / "merged", merge=True)
    merged = load_policy(tmp_path / "merged")
    assert not merged.config.edits
    assert not any(is_of_adapter(name) for name, _ in merged.model.named_parameters())
    np.testing.assert_allclose(act(merged, episodes), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_only_adapters_can_learn_where_they_stand(policy, kind):
    """And they are leaves of their own, beside the layer that they belong to."""
    changed = edited(policy, [edit_of(kind)])
    held = changed.model.held()
    groups = changed.model.groups()
    assert any(leaf == "language.layers.0.adapter" for leaf in groups)
    for leaf, names in groups.items():
        for name in names:
            assert leaf.endswith(".adapter") == is_of_adapter(name)
            if f".{BASE}" in name:
                assert held[name] is False


def test_dora_is_its_formula_in_float64():
    """Rows of W + s B A at learned lengths; peft does not differentiate the length of the sum."""
    from policy_ft.models.build import build_model
    from tests.policy_ft.conftest import small_model_config

    model = build_model(small_model_config(edits=[KINDS["dora"]])).double()
    layer = model.get_submodule("backbone.language.layers.0.self_attn.q_proj")
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if "base" not in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    whole = layer.base_layer.weight + b @ a
    length = layer.lora_magnitude_vector["default"].weight
    x = torch.randn(5, 32, dtype=torch.float64)
    wanted = x @ (length[:, None] * whole / whole.norm(dim=1, keepdim=True)).T
    torch.testing.assert_close(layer(x), wanted, rtol=1e-10, atol=1e-10)


def test_pissa_holds_the_largest_singular_values_and_the_sum_is_the_weight(policy):
    name = "backbone.language.layers.0.self_attn.q_proj"
    weight = policy.model.get_submodule(name).weight.detach().clone().double()
    changed = edited(policy, [edit_of("pissa")])
    layer = changed.model.get_submodule(name)
    part = layer.lora_B["default"].weight.double() @ layer.lora_A["default"].weight.double()
    u, s, v = torch.linalg.svd(weight)
    principal = (u[:, :4] * s[:4]) @ v[:4]
    torch.testing.assert_close(part, principal, rtol=0, atol=1e-3)
    torch.testing.assert_close(layer.base_layer.weight.double() + part, weight, rtol=0, atol=1e-6)


def test_a_stable_rank_divides_alpha_by_its_root():
    plain = TypeAdapter(Edit).validate_python({**KINDS["lora"], "alpha": 8})
    stable = TypeAdapter(Edit).validate_python({**KINDS["rslora"], "alpha": 8})
    assert (plain.scale, stable.scale) == (2.0, 4.0)


def test_settings_that_contradict_are_refused(policy):
    with pytest.raises(ValidationError, match="found 'pissa' with dora; expected one of the two"):
        TypeAdapter(Edit).validate_python({**KINDS["dora"], "init": "pissa"})
    wrong = TypeAdapter(Edit).validate_python(
        {"kind": "peft", "method": "loha", "options": {"blocks": 3}, **TARGET}
    )
    fault = re.escape("edits[0].options: found {'blocks': 3} (")
    with pytest.raises(UserError, match=fault + ".*Correct the options"):
        edited(policy, [wrong])


def test_oft_is_refused_where_peft_would_take_actions_for_images(policy):
    wrong = TypeAdapter(Edit).validate_python({**KINDS["oft"], "target": ["language", "expert"]})
    with pytest.raises(UserError, match=r"edits\[0\].target: found oft beside .* action expert"):
        edited(policy, [wrong])
