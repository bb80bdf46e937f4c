"""Runs of edited policies: what learns, what stays, and going on with the same bits."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from data_tools.formats.reader import open_dataset
from policy_ft import assemble
from policy_ft.assemble.trainers import build_plan
from policy_ft.checkpoints.edited import edited
from policy_ft.checkpoints.native import save_policy
from policy_ft.checkpoints.weights import weights_hash
from policy_ft.errors import UserError
from policy_ft.formats.load import load_policy
from policy_ft.tuning.precision import widen_weights
from tests.policy_ft.conftest import small_model_config
from tests.policy_ft.test_edits import BOTH, LORA, Q_PROJ, act, tensors


@pytest.fixture
def checkpoint(policy, tmp_path) -> Path:
    save_policy(policy, tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def tuned(run_config, checkpoint):
    """Settings of a run that gives the saved policy adapters."""

    def make(*edits: dict, path: Path | None = None, **changes: object):
        start = {"kind": "pretrained", "path": str(path or checkpoint), "edits": list(edits)}
        config = run_config(**changes).model_dump(mode="json")
        return type(run_config()).model_validate({**config, "policy": start})

    return make


def test_a_run_moves_adapters_and_what_no_edit_names(tuned, checkpoint):
    result = assemble.train(tuned({**BOTH, "target": "language"}))
    start, end = tensors(load_policy(checkpoint).model), load_policy(result.last_checkpoint)
    moved = set()
    for name, tensor in tensors(end.model).items():
        before = start.get(name.replace(".base_layer.", "."))
        if before is None or not torch.equal(tensor, before):
            moved.add(name)
    held = {n for n in start if n.startswith("backbone.language.")}
    assert not {name for name in moved if name.replace(".base_layer.", ".") in held}
    others = {n for n in start if not n.startswith(("backbone.language.", "backbone.vision."))}
    assert moved >= others
    b = end.model.get_parameter(f"{Q_PROJ}.lora_B.default.weight")
    assert b.detach().abs().max() > 0


def test_the_report_tells_what_an_edit_added(tuned, capsys):
    lines: list[str] = []
    config = tuned(BOTH)
    assert assemble.check(config, tell=lines.append) == []
    assert "0 missing" in lines[0]
    assert "66 added by edits" in lines[0]
    assemble.train(config)
    table = " ".join(capsys.readouterr().out.split())
    assert "language, adapters" in table
    assert "(adapted)" in table


def plan_of(config):
    policy = assemble.build_policy(config, open_dataset(list(config.data.path)))
    plan = build_plan(config, policy.model)
    return {a.parameter: a for a in plan.of_phases[0].assignments}


def test_rules_decide_for_all_but_what_lies_under_an_adapter(tuned):
    rules = [{"pattern": "language", "lr_scale": 0.1}]
    decided = plan_of(tuned(BOTH, tuning={"groups": rules}))
    assert decided[f"{Q_PROJ}.base_layer.weight"].state == "frozen"
    assert decided[f"{Q_PROJ}.lora_A.default.weight"].lr_scale == 0.1
    assert decided["backbone.language.embed_tokens.weight"].state == "trained"
    assert decided["expert.layers.0.mlp.up_proj.base_layer.weight"].state == "frozen"


def test_two_rules_leave_nothing_but_adapters_to_learn(tuned):
    rules = [{"pattern": "*.adapter"}, {"pattern": "*", "frozen": True}]
    decided = plan_of(tuned(BOTH, tuning={"groups": rules}))
    learning = {name for name, a in decided.items() if a.state == "trained"}
    assert learning
    assert all(".lora_" in name for name in learning)
    dormant = {name for name, a in decided.items() if a.state == "dormant"}
    assert dormant == {n for n in dormant if n.startswith("backbone.language.layers.1.")}


@pytest.mark.parametrize(
    "edit",
    [
        {**BOTH, "dropout": 0.0},
        {**BOTH, "dropout": 0.2},
        {**BOTH, "dora": True},
        {**BOTH, "init": "pissa"},
        {"kind": "peft", "method": "hra", "target": "language", "options": {"r": 4}},
    ],
    ids=["lora", "dropout", "dora", "pissa", "hra"],
)
def test_an_adapted_run_resumes_with_the_same_bits(tuned, tmp_path, edit):
    whole = assemble.train(tuned(edit, output_dir=str(tmp_path / "whole")))
    half = tuned(edit, training={"steps": 3})
    assemble.train(half)
    result = assemble.train(tuned(edit, policy={}), resume=True)
    hashes = [weights_hash(load_policy(each.last_checkpoint).model) for each in (whole, result)]
    assert hashes[0] == hashes[1]


def test_resuming_with_other_edits_is_refused(tuned):
    assemble.train(tuned(BOTH, training={"steps": 3}))
    with pytest.raises(UserError, match=r"policy.edits: .*Set it back"):
        assemble.train(tuned({**BOTH, "rank": 3}), resume=True)


def test_the_seed_decides_what_an_edit_adds(tuned):
    drawn = [
        assemble.build_policy(config, open_dataset(list(config.data.path))).model.get_parameter(
            f"{Q_PROJ}.lora_A.default.weight"
        )
        for config in (tuned(BOTH), tuned(BOTH), tuned(BOTH, seed=4))
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_adapted_policies_take_more_adapters_elsewhere(tuned):
    first = assemble.train(tuned({**BOTH, "target": "language"}, training={"steps": 3}))
    again = tuned({**BOTH, "target": "expert", "rank": 3}, path=first.last_checkpoint, seed=5)
    policy = assemble.build_policy(again, open_dataset(list(again.data.path)))
    assert [edit.target for edit in policy.config.edits] == [("language",), ("expert",)]
    fault = r"'language', whose 14 linear layers all have an adapter; .*convert .*--merge"
    with pytest.raises(UserError, match=fault):
        assemble.build_policy(
            tuned(BOTH, path=first.last_checkpoint), open_dataset(list(again.data.path))
        )


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ([{**BOTH, "target": "lamguage"}], r"edits\[0\].target: found 'lamguage', .*'language'"),
        ([{**BOTH, "target": ["language.norm"]}], "which names no linear layer"),
        ([BOTH, BOTH], r"edits\[1\].target: found 'language', whose 14 linear layers all have"),
        ([{**BOTH, "target": "*", "rank": 8}], r"rank: found 8, .*at most \d there. Lower rank"),
        ([{"kind": "drop_layers", "layers": [0, 1]}], r"layers: found all 2 blocks; expected"),
        ([{"kind": "drop_layers", "layers": [2]}], r"found \[2\] beyond the last block"),
    ],
)  # fmt: skip
def test_an_edit_that_does_not_fit_is_refused_with_what_would(tuned, edits, words):
    assert any(re.search(words, fault) for fault in assemble.check(tuned(*edits)))


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ([{"pattern": "language", "frozen": True}], r"Put {pattern: '\*.adapter'} before the rule"),
        ([{"pattern": "*.base_layer.weight"}], "lie under an adapter and never learn"),
    ],
)
def test_a_rule_that_an_adapter_makes_vain_is_refused(tuned, rules, words):
    (fault,) = assemble.check(tuned(BOTH, tuning={"groups": rules}))
    assert re.search(words, fault)


def test_freezing_what_the_adapters_stand_beside_works_as_the_message_says(tuned):
    rules = [{"pattern": "*.adapter"}, {"pattern": "language", "frozen": True}]
    assert assemble.check(tuned(BOTH, tuning={"groups": rules})) == []


def test_a_cache_of_features_that_adapters_change_is_refused(tuned):
    vision = [{"pattern": name, "frozen": True} for name in ("vision", "projector")]
    config = tuned(BOTH, tuning={"groups": vision}, training={"feature_cache_gb": 0.1})
    assert assemble.check(config) == []  # the image tokens are kept, and the prefix is not
    everything = [{"pattern": "*.adapter"}, {"pattern": "*", "frozen": True}]
    config = tuned(
        {**BOTH, "target": ["projector", "language"], "rank": 3},
        tuning={"groups": everything},
        training={"feature_cache_gb": 0.1},
    )
    (fault,) = assemble.check(config)
    assert "backbone.projector.lora_A.default.weight" in fault


def test_adapters_of_a_new_policy_with_random_weights_are_refused(run_config):
    model = {**small_model_config().model_dump(mode="json"), "edits": [BOTH]}
    config = run_config(policy={"model": model})
    faults = "\n".join(assemble.check(config))
    assert "pattern '(adapted)'" in faults
    assert "remove the edit" in faults


def test_what_learns_becomes_float32_and_what_is_frozen_keeps_its_type(policy):
    model = edited(policy, [LORA]).model.bfloat16()
    learning = {name for name in dict(model.named_parameters()) if ".lora_" in name}
    widened = widen_weights(model, learning, torch.bfloat16)
    types = {name: parameter.dtype for name, parameter in model.named_parameters()}
    assert {types[name] for name in learning} == {torch.float32}
    assert types[f"{Q_PROJ}.base_layer.weight"] == torch.bfloat16
    assert set(widened) == model.float32_names() - learning
    assert set(widen_weights(model, learning, None)) == types.keys() - learning - set(widened)


def test_integers_keep_their_type_in_a_run(policy):
    model = policy.model
    layer = model.backbone.language.layers[0].mlp.up_proj
    layer.weight = nn.Parameter(layer.weight.detach().to(torch.int8), requires_grad=False)
    widen_weights(model, (), None)
    assert layer.weight.dtype == torch.int8


def test_a_run_with_frozen_bfloat16_weights_resumes_with_the_same_bits(
    tuned, checkpoint, episodes, tmp_path
):
    """Given in Python; precision bf16 computes in the type of the frozen weights."""
    rules = [{"pattern": "language", "frozen": True}]

    def run(name: str, steps: int, *, resume: bool = False):
        config = tuned(
            output_dir=str(tmp_path / name),
            training={"precision": "bf16", "steps": steps},
            tuning={"groups": rules},
        )
        if resume:
            return assemble.train(config, resume=True)
        given = load_policy(checkpoint, dtype="bfloat16")
        return assemble.train(config, given, open_dataset(list(config.data.path)))

    whole = run("whole", 6)
    run("half", 3)
    resumed = run("half", 6, resume=True)
    models = [load_policy(r.last_checkpoint, dtype="stored").model for r in (whole, resumed)]
    assert models[0].get_parameter(f"{Q_PROJ}.weight").dtype == torch.bfloat16
    assert models[0].get_parameter("expert.layers.0.mlp.up_proj.weight").dtype == torch.float32
    assert weights_hash(models[0]) == weights_hash(models[1])
    assert np.isfinite(act(load_policy(whole.last_checkpoint, dtype="stored"), episodes)).all()


def test_frozen_weights_that_a_run_cannot_compute_with_become_float32_and_it_says_so(
    tuned, checkpoint, capsys
):
    config = tuned(tuning={"groups": [{"pattern": "language", "frozen": True}]})
    given = load_policy(checkpoint, dtype="bfloat16")
    result = assemble.train(config, given, open_dataset(list(config.data.path)))
    said = " ".join(capsys.readouterr().out.split())
    assert "frozen tensors became float32, e.g. 'backbone.language." in said
    saved = load_policy(result.last_checkpoint, dtype="stored").model
    assert {parameter.dtype for parameter in saved.parameters()} == {torch.float32}


def test_checkpointed_activations_of_adapters_give_the_same_gradients(tuned, tmp_path):
    """A run with them ends in the same bits: they are computed again alike."""
    ends = [
        assemble.train(
            tuned(
                BOTH,
                output_dir=str(tmp_path / str(on)),
                training={"steps": 2, "activation_checkpointing": on},
            )
        ).last_checkpoint
        for on in (False, True)
    ]
    one, two = (tensors(load_policy(end).model) for end in ends)
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-5, atol=1e-6)
