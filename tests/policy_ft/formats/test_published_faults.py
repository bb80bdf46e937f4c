"""What is wrong with a published checkpoint is said of the very file, tensor and value."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import policy_ft
from policy_ft.config.resize import ModelResize
from policy_ft.errors import UserError
from policy_ft.formats.conversion.convert import convert
from policy_ft.formats.embodiments import load_embodiment
from policy_ft.formats.lerobot.read_lerobot import read_lerobot
from policy_ft.formats.load import read_published
from policy_ft.formats.locating import locate
from policy_ft.formats.openpi.read_openpi import read_openpi

WEIGHTS = "model.safetensors"
STATE_FILE = "policy_preprocessor_step_6_normalizer_processor.safetensors"


def change_statistics(path, name, tensor):
    for file in path.glob("*normalizer_processor.safetensors"):
        save_file(load_file(file) | {name: tensor}, file)


def faults_of(path, **given):
    with pytest.raises(UserError) as caught:
        policy_ft.load_policy(path, **given)
    return str(caught.value)


def test_statistics_of_other_columns_than_config_says_are_refused(lerobot_directory, tmp_path):
    path = lerobot_directory(tmp_path / "x", "pi0")
    for name in ("mean", "std", "q01", "q99", "min", "max"):
        change_statistics(path, f"action.{name}", torch.ones(3))
    text = f"{STATE_FILE}, action: found 3 columns; expected 7, as config.json says"
    assert text in faults_of(path)
    for to in ("openpi", "native", "lerobot"):
        with pytest.raises(UserError, match="Take all files from the same checkpoint"):
            convert(path, to, tmp_path / to)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("mean", float("nan"), "action: mean, column 4: found nan; expected a finite number"),
        ("std", -1.0, "action: std, column 4: found -1.0; expected no less than 0"),
        ("q01", 9.0, "action: q01, column 4: found 9.0; expected no more than"),
    ],
)
def test_an_impossible_statistic_of_lerobot_is_named_where_it_is_used_and_noted_where_not(
    lerobot_directory, arm, tokenizer_file, tmp_path, name, value, words
):
    path = lerobot_directory(tmp_path / "x", "pi0")
    row = load_file(path / STATE_FILE)[f"action.{name}"]
    row[4] = value
    change_statistics(path, f"action.{name}", row)
    found = faults_of(path)
    assert f"{path}/{STATE_FILE}, {words}" in found
    assert len(found) < 300
    notes = read_lerobot(path).all_notes
    assert any("statistics are damaged" in note and words in note for note in notes)


def test_impossible_statistics_of_openpi_follow_the_same_rule(
    openpi_directory, arm, tokenizer_file, tmp_path
):
    path = openpi_directory(tmp_path / "x", "pi0")
    file = path / "assets/trossen/norm_stats.json"
    document = json.loads(file.read_text())
    document["norm_stats"]["actions"]["std"][2] = -1.0
    file.write_text(json.dumps(document))
    words = f"{file}, actions: std, column 2: found -1.0"
    given = {"embodiment": arm, "tokenizer": tokenizer_file}
    assert words in faults_of(path, **given)
    fitted = read_openpi(path, load_embodiment(arm), tokenizer_file.read_text())
    assert any(words in note for note in fitted.all_notes)
    asked = []

    def fit(settings, shape, tokenizer_json):
        asked.append(settings)
        raise KeyError  # far enough: new statistics are to be computed

    with pytest.raises(KeyError):
        policy_ft.load_policy(path, fit=fit, **given)
    assert asked


def test_weights_with_an_adapter_beside_them_are_ambiguous(
    lerobot_directory, openpi_directory, tmp_path
):
    for path in (
        lerobot_directory(tmp_path / "l", "pi0"),
        openpi_directory(tmp_path / "o", "pi0"),
    ):
        save_file({"a": torch.zeros(1)}, path / "adapter_model.safetensors")
        assert "or move the one that is not meant elsewhere" in faults_of(path)


def test_all_missing_tensors_are_named_as_in_the_file(
    openpi_directory, golden_weights, arm, tokenizer_file, tmp_path
):
    start = "paligemma_with_expert.gemma_expert.model.layers"
    gone = (
        "action_in_proj.weight",
        "state_proj.weight",
        "action_out_proj.bias",
        f"{start}.2.mlp.up_proj.weight",
        f"{start}.0.self_attn.q_proj.weight",
    )
    tensors = golden_weights("pi0")
    for name in gone:
        tensors.pop(name)
    tensors["action_in_projection.weight"] = torch.zeros(1)
    path = openpi_directory(tmp_path / "x", "pi0", tensors)
    with pytest.raises(UserError) as caught:
        policy_ft.load_policy(path, embodiment=arm, tokenizer=tokenizer_file)
    places = {fault.partition(": found no such tensor")[0] for fault in caught.value.faults}
    assert places == {f"{path}, {name}" for name in gone}
    hints = [fault for fault in caught.value.faults if "did you mean" in fault]
    assert {"action_in_projection.weight"} == {h.rpartition("mean '")[2][:-2] for h in hints}
    assert any(hint.startswith(f"{path}, action_in_proj.weight") for hint in hints)


@pytest.mark.parametrize("family", ["pi05", "smolvla"])
def test_all_missing_tensors_of_every_family_are_named(
    lerobot_directory, golden_weights, tmp_path, family
):
    tensors = golden_weights(family)
    gone = [name for name in tensors if "action_in_proj" in name or "layers.1.mlp.up" in name]
    kept = {name: each for name, each in tensors.items() if name not in gone}
    path = lerobot_directory(tmp_path / "x", family, tensors=kept)
    with pytest.raises(UserError) as caught:
        policy_ft.load_policy(path)
    assert len(caught.value.faults) == len(gone)


def test_a_config_without_its_type_is_lerobots_by_the_files_beside_it(lerobot_directory, tmp_path):
    path = lerobot_directory(tmp_path / "x", "pi0")
    document = json.loads((path / "config.json").read_text())
    del document["type"]
    (path / "config.json").write_text(json.dumps(document))
    assert "config.json, type: found nothing, the key is missing" in faults_of(path)
    (path / "config.json").unlink()
    assert "config.json: found no such file" in faults_of(path)


@pytest.mark.parametrize("has_processors", [True, False])
def test_a_config_that_is_a_list_is_told_as_one(lerobot_directory, tmp_path, has_processors):
    path = lerobot_directory(tmp_path / "x", "pi0", processors=has_processors)
    (path / "config.json").write_text("[1]")
    assert "config.json: found a list; expected a JSON object. Copy the file" in faults_of(path)


def test_more_steps_than_a_chunk_has_are_cut_and_noted(
    lerobot_directory, lerobot_settings, tmp_path
):
    config = lerobot_settings("pi0", n_action_steps=80)
    path = lerobot_directory(tmp_path / "x", "pi0", config=config)
    policy = policy_ft.load_policy(path)
    assert policy.provenance["replan_steps"] == 50
    assert any("n_action_steps 80: 50, for a chunk" in n for n in policy.load_report.notes)
    shorter = policy_ft.load_policy(path, resize=ModelResize(action_horizon=10))
    assert shorter.provenance["replan_steps"] == 10


def test_a_size_that_is_asked_for_is_not_noted_as_assumed(
    openpi_directory, arm, tokenizer_file, tmp_path
):
    path = openpi_directory(tmp_path / "x", "pi0")
    given = {"embodiment": arm, "tokenizer": tokenizer_file}
    assert any(
        "action_horizon" in n for n in policy_ft.load_policy(path, **given).load_report.notes
    )
    resized = policy_ft.load_policy(path, resize=ModelResize(action_horizon=10), **given)
    assert resized.load_report.notes == ()
    assert resized.provenance["notes"] == []


def test_a_state_of_another_width_than_openpi_could_make_is_noted_or_refused(
    openpi_directory, golden_weights, tmp_path
):
    tensors = golden_weights("pi0")
    tensors["state_proj.weight"] = tensors["state_proj.weight"][:, :31].clone()
    (note,) = read_openpi(openpi_directory(tmp_path / "x", "pi0", tensors)).notes
    assert "state_proj of 31 columns beside actions of 32" in note
    path = openpi_directory(tmp_path / "y", "pi0", tensors, {"action_dim": 32})
    with pytest.raises(
        UserError, match=r"action_dim \(which state_proj has.*found 32; expected 31"
    ):
        read_openpi(path)


def test_unused_tensors_without_a_recorded_hash_are_not_compared(lerobot_directory, tmp_path):
    convert(lerobot_directory(tmp_path / "a", "pi0"), "native", tmp_path / "b")
    file = tmp_path / "b/provenance.json"
    provenance = json.loads(file.read_text())
    del provenance["unused_sha256"]
    file.write_text(json.dumps(provenance))
    convert(tmp_path / "b", "lerobot", tmp_path / "c")
    assert read_published(locate(tmp_path / "c")).statistics is not None


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "object"},
        {"shape": [3, 3]},
        {"shape": "seven"},
        {"values": ["a"]},
        {"values": None},
    ],
)
def test_a_tensor_document_that_was_changed_is_told(lerobot_directory, tmp_path, change):
    convert(lerobot_directory(tmp_path / "a", "pi0"), "native", tmp_path / "b")
    file = tmp_path / "b/source.json"
    source = json.loads(file.read_text())
    source["documents"][STATE_FILE]["action.mean"] |= change
    file.write_text(json.dumps(source))
    words = rf"source.json, documents, {STATE_FILE}: found .*; expected small tensors.*Copy the ch"
    with pytest.raises(UserError, match=words) as caught:
        convert(tmp_path / "b", "lerobot", tmp_path / "c")
    assert "validation error" not in str(caught.value)
    assert not (tmp_path / "c").exists()
