"""Edits of an architecture: what they change, that it is saved, and what adapters leave alone."""

import copy
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from policy_ft.checkpoints.edited import edited
from policy_ft.checkpoints.native import load_native, save_policy
from policy_ft.checkpoints.weights import weights_hash
from policy_ft.config.edits import DropLayers, Lora
from policy_ft.config.model import ModelConfig
from policy_ft.config.resize import ModelResize
from policy_ft.errors import UserError
from policy_ft.formats.conversion.convert import convert
from policy_ft.formats.load import load_policy
from policy_ft.models.build import build_model
from policy_ft.models.solvers import SampleRequest
from policy_ft.models.torchvision_guard import ensure_torchvision_imports
from policy_ft.tuning.groups import depths
from tests.policy_ft.conftest import small_model_config

ensure_torchvision_imports()
from peft.tuners.lora import Linear as PeftLinear  # noqa: E402  as in policy_ft/models/edits/adapters.py

LORA = Lora(kind="lora", target="language", rank=4)
BOTH = {"kind": "lora", "target": ["language", "expert"], "rank": 4}
Q_PROJ = "backbone.language.layers.0.self_attn.q_proj"


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def shaken(model: nn.Module) -> None:
    """Adapters as if they had learned: B is zero in new ones, which would hide mistakes."""
    torch.manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.2)


def act(policy, episodes) -> np.ndarray:
    noise = np.random.default_rng(3).standard_normal((1, *policy.chunk_shape)).astype(np.float32)
    return policy.act([episodes[0].observation(0, ["front", "wrist"])], SampleRequest(noise))[0]


def test_adapters_change_no_bit_until_they_learn(policy, episodes):
    before = act(policy, episodes)
    both = edited(policy, [Lora.model_validate(BOTH)])
    assert np.array_equal(act(both, episodes), before)
    shaken(both.model)
    assert not np.array_equal(act(both, episodes), before)


def test_an_adapter_adds_b_a_x_by_its_scale():
    """Outputs and gradients in float64 are those of W x + alpha / rank * B (A x)."""
    model = build_model(small_model_config(edits=[{**BOTH, "alpha": 6}])).double()
    shaken(model)
    layer = model.get_submodule(Q_PROJ)
    x = torch.randn(5, 32, dtype=torch.float64, requires_grad=True)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    wanted = x @ layer.base_layer.weight.T + 1.5 * x @ a.T @ b.T
    found = layer(x)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    inputs = (x, a, b)
    pairs = zip(
        torch.autograd.grad(found.square().sum(), inputs),
        torch.autograd.grad(wanted.square().sum(), inputs),
        strict=True,
    )
    for one, two in pairs:
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)


def test_records_of_plain_models_are_as_they_were_before_edits(small_model):
    assert "edits" not in small_model()
    assert "edits" not in json.loads(small_model_config().model_dump_json())
    with_edits = small_model_config(edits=[BOTH])
    assert ModelConfig.model_validate_json(with_edits.model_dump_json()) == with_edits


def test_adapters_are_leaves_as_deep_as_what_they_stand_beside():
    plain, model = (build_model(small_model_config(edits=e)) for e in ((), (BOTH,)))
    groups = model.groups()
    names = sorted(name for members in groups.values() for name in members)
    assert names == sorted(name for name, _ in model.named_parameters())
    assert groups["language.layers.0.adapter"][0] == f"{Q_PROJ}.lora_A.default.weight"
    assert all(".lora_" in n for leaf in groups if leaf.endswith(".adapter") for n in groups[leaf])
    deep, wanted = depths(groups), depths(plain.groups())
    assert deep == wanted | {
        leaf: wanted[leaf.removesuffix(".adapter")] for leaf in deep if leaf.endswith(".adapter")
    }
    undecayed = {name.replace(".base_layer.", ".") for name in model.no_weight_decay()}
    assert undecayed == plain.no_weight_decay()


def test_an_edited_policy_is_loaded_from_its_directory_alone(policy, episodes, tmp_path):
    both = edited(policy, [Lora.model_validate(BOTH), DropLayers(kind="drop_layers", layers=[0])])
    shaken(both.model)
    save_policy(both, tmp_path / "edited")
    again = load_policy(tmp_path / "edited")
    assert again.config == both.config
    assert weights_hash(again.model) == weights_hash(both.model)
    assert np.array_equal(act(again, episodes), act(both, episodes))


@pytest.mark.parametrize("wrap", [nn.utils.parametrizations.weight_norm, "adapter", "layer"])
def test_a_policy_changed_by_hand_is_not_saved(policy, tmp_path, wrap):
    """Nobody could load it: its settings build another model."""
    if wrap == "adapter":
        edited(policy, [LORA])  # and the policy that knows of it is dropped
    elif wrap == "layer":
        del policy.model.expert.layers[1]
    else:
        wrap(policy.model.backbone.projector)
    with pytest.raises(UserError, match=r"policy.model: found .*Change a model by edits"):
        save_policy(policy, tmp_path / "lost")
    assert not (tmp_path / "lost").exists()


@pytest.mark.parametrize("family", ["pi0", "pi05", "smolvla"])
def test_adapters_stand_where_the_target_says_and_nowhere_else(golden, family):
    """The towers of published policies have layers of the same names, such as q_proj."""
    before = golden(family).config
    for target in ("language", "vision", "expert", "vision.layers.0"):
        edit = Lora(kind="lora", target=target, rank=1)
        with torch.device("meta"):
            model = build_model(before.model_copy(update={"edits": (edit,)}))
        leaves = {leaf for leaf in model.groups() if leaf.endswith(".adapter")}
        assert leaves
        assert all(f"{leaf}.".startswith(f"{target}.") for leaf in leaves)


def test_an_adapted_block_is_one_graph():
    """What torch.compile cannot take in whole would be slow and split."""
    model = build_model(small_model_config(edits=[BOTH]))
    shaken(model)
    block = model.backbone.language.layers[0]
    x, table = torch.randn(2, 5, 32), model.backbone.language.rotary(torch.arange(5)[None])
    mask = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    whole = torch.compile(block, backend="eager", fullgraph=True)
    for one, two in zip(whole(x, mask, table), block(x, mask, table), strict=True):
        torch.testing.assert_close(one, two)


def test_the_first_edit_that_names_a_layer_keeps_it():
    edits = [{**BOTH, "target": "language.layers.0", "rank": 2}, {**BOTH, "target": "language"}]
    model = build_model(small_model_config(edits=edits))
    ranks = [model.get_submodule(f"backbone.language.layers.{i}.mlp.up_proj").r for i in (0, 1)]
    assert ranks == [{"default": 2}, {"default": 4}]
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_edits_with_wrong_values_are_no_settings():
    for wrong in ({"alpha": 0}, {"dropout": 1.0}, {"target": []}, {"rank": 0}, {"kind": "loha"}):
        with pytest.raises(ValidationError):
            small_model_config(edits=[{**BOTH, **wrong}])
    with pytest.raises(ValidationError, match="each index once"):
        small_model_config(edits=[{"kind": "drop_layers", "layers": [0, 0]}])


def test_without_peft_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"no package peft; .*pip install 'policy_ft\[adapters\]'"):
        build_model(small_model_config(edits=[BOTH]))


def test_dropped_blocks_leave_the_model_that_never_had_them():
    whole = build_model(small_model_config())
    config = small_model_config(edits=[{"kind": "drop_layers", "layers": [0]}])
    cut = build_model(config)
    language = small_model_config().language.model_copy(update={"depth": 1})
    small = build_model(small_model_config(language=language))
    assert tensors(cut).keys() == tensors(small).keys()
    assert cut.backbone.dormant == small.backbone.dormant
    for name, tensor in tensors(cut).items():
        assert torch.equal(tensor, tensors(whole)[name.replace("layers.0.", "layers.1.")])


def test_an_adapted_policy_takes_other_sizes_of_actions(policy, episodes, tmp_path):
    heads = edited(
        policy, [Lora(kind="lora", target=("heads.action_in", "heads.action_out"), rank=2)]
    )
    shaken(heads.model)
    save_policy(heads, tmp_path / "heads")
    larger = load_native(tmp_path / "heads", resize=ModelResize(action_dim=6))
    for name, size in (("action_in_proj.lora_A", (2, 6)), ("action_out_proj.lora_B", (6, 2))):
        assert larger.model.get_parameter(f"expert.{name}.default.weight").shape == size
    layers = [each.model.get_submodule("expert.action_in_proj") for each in (heads, larger)]
    x = torch.randn(3, 4)
    padded = torch.cat((x, torch.zeros(3, 2)), dim=1)
    torch.testing.assert_close(layers[1](padded), layers[0](x))


def test_copies_of_an_adapted_model_are_models_of_their_own():
    model = build_model(small_model_config(edits=[BOTH]))
    twin = copy.deepcopy(model)
    shaken(twin)
    assert not torch.equal(
        twin.get_parameter(f"{Q_PROJ}.lora_B.default.weight"),
        model.get_parameter(f"{Q_PROJ}.lora_B.default.weight"),
    )
    assert twin.held() == model.held()


@pytest.fixture
def adapted(policy, tmp_path) -> Path:
    """A saved policy whose adapters of two edits have learned."""
    edits = [
        {**BOTH, "target": "language", "alpha": 6},
        {**BOTH, "target": ["expert", "heads.time"]},
    ]
    both = edited(policy, [Lora.model_validate(edit) for edit in edits])
    shaken(both.model)
    save_policy(both, tmp_path / "adapted")
    return tmp_path / "adapted"


def test_a_merged_policy_acts_as_the_one_with_adapters(adapted, episodes, tmp_path):
    convert(adapted, "native", tmp_path / "merged", merge=True)
    plain, before = load_policy(tmp_path / "merged"), load_policy(adapted)
    assert plain.config == small_model_config()
    assert not [name for name, _ in plain.model.named_parameters() if "lora" in name]
    assert plain.provenance["merged"]["weights_sha256"] == before.provenance["weights_sha256"]
    np.testing.assert_allclose(act(plain, episodes), act(before, episodes), rtol=0, atol=1e-5)


def test_merging_is_exact_to_the_last_bit_of_float32(adapted, tmp_path):
    """W + alpha / rank * B A in float64, rounded once; peft's own, which rounds twice, is near."""
    convert(adapted, "native", tmp_path / "merged", merge=True)
    plain, layers = load_policy(tmp_path / "merged").model, load_policy(adapted).model
    num_merged = 0
    for name, layer in layers.named_modules():
        if isinstance(layer, PeftLinear):
            a, b = (half["default"].weight.double() for half in (layer.lora_A, layer.lora_B))
            wanted = layer.base_layer.weight.double() + layer.scaling["default"] * (b @ a)
            found = plain.get_parameter(f"{name}.weight")
            assert torch.equal(found, wanted.float())
            layer.merge(safe_merge=True)
            torch.testing.assert_close(found, layer.base_layer.weight, rtol=1e-6, atol=1e-6)
            num_merged += 1
    assert num_merged == 35


def test_an_adapted_policy_of_our_own_family_is_told_so_and_not_to_merge(policy, tmp_path):
    save_policy(edited(policy, [LORA]), tmp_path / "adapted")
    with pytest.raises(UserError, match="model family: found 'own'") as refused:
        convert(tmp_path / "adapted", "openpi", tmp_path / "out")
    assert "--merge" not in str(refused.value)


def test_merging_without_adapters_is_refused(policy, tmp_path):
    save_policy(policy, tmp_path / "plain")
    with pytest.raises(UserError, match=r"a policy without adapters; .* Leave --merge out"):
        convert(tmp_path / "plain", "native", tmp_path / "merged", merge=True)
