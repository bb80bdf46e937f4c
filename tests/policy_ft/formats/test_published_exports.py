"""A converted checkpoint keeps its statistics or is not made, and loads as its card says."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

import policy_ft
from data_tools.formats.mapping.mapping import LinearMap
from policy_ft.assemble.policies import descended
from policy_ft.checkpoints import atomic
from policy_ft.checkpoints.native import save_policy
from policy_ft.cli import app
from policy_ft.config.resize import ModelResize
from policy_ft.errors import UserError
from policy_ft.formats import hub
from policy_ft.formats.conversion.convert import convert
from policy_ft.formats.embodiments import load_embodiment

DEAD = "paligemma_with_expert.gemma_expert.lm_head.weight"


@pytest.fixture
def native(openpi_directory, tokenizer_file, arm, tmp_path):
    """native(key=value, ...): a policy as training leaves it, with these transforms."""

    def write(resize=None, **transforms):
        first = openpi_directory(tmp_path / "published", "pi0")
        given = {"tokenizer": tokenizer_file, "embodiment": arm, "resize": resize}
        policy = policy_ft.load_policy(first, **given)
        stats = policy.transforms.statistics
        shifted = tuple(value + 0.125 for value in stats.state.mean)
        changed = {"state": stats.state.model_copy(update={"mean": shifted})}
        settings = policy.transforms.config.model_copy(update=transforms)
        kept = replace(
            policy.transforms, config=settings, statistics=stats.model_copy(update=changed)
        )
        save_policy(replace(policy, transforms=kept), tmp_path / "native")
        return tmp_path / "native"

    return write


def card_of(directory):
    return (directory / "README.md").read_text(encoding="utf-8")


def used_as_the_card_says(directory, monkeypatch):
    """The policy that the code of a model card makes, typed where the card lies."""
    monkeypatch.chdir(directory)
    (code,) = (line for line in card_of(directory).splitlines() if line.startswith("policy = "))
    words = code.partition("(")[2].rstrip(")").split(", ")
    given = dict(word.split("=") for word in words[1:])
    return policy_ft.load_policy(".", **{key: text.strip('"') for key, text in given.items()})


@pytest.mark.parametrize("to", ["openpi", "lerobot"])
@pytest.mark.parametrize("source", ["openpi", "lerobot"])
def test_statistics_that_do_not_fit_the_named_robot_are_not_dropped(
    openpi_directory, lerobot_directory, write_robot, tokenizer_file, tmp_path, to, source
):
    make = {"openpi": openpi_directory, "lerobot": lerobot_directory}[source]
    first = make(tmp_path / "a", "pi0")
    cameras = ["top", "wrist"]
    small = write_robot(tmp_path / "small.yaml", "abcd", cameras=cameras)
    with pytest.raises(UserError, match="found 7 columns; expected 4"):
        convert(first, to, tmp_path / "b", embodiment=small, tokenizer=tokenizer_file)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"asset_ids": []}, r"no asset_ids in .*add asset_ids: \[trossen\] to its YAML file"),
        ({"asset_ids": ["droid"]}, r"the asset_ids \['droid'\] in .*: \[trossen\] to its YAML"),
    ],
)
def test_statistics_of_another_name_say_what_to_add(
    openpi_directory, write_robot, tokenizer_file, tmp_path, changes, words
):
    first = openpi_directory(tmp_path / "a", "pi0")
    robot = write_robot(tmp_path / "own.yaml", **changes)
    with pytest.raises(UserError, match=words):
        convert(first, "lerobot", tmp_path / "b", embodiment=robot, tokenizer=tokenizer_file)


@pytest.mark.parametrize("has_statistics", [True, False])
def test_what_lerobot_does_to_images_and_prompts_is_said_with_and_without_statistics(
    openpi_directory, arm, tokenizer_file, tmp_path, has_statistics
):
    given = None if has_statistics else {}
    first = openpi_directory(tmp_path / "a", "pi0", statistics=given)
    converted = convert(first, "lerobot", tmp_path / "b", embodiment=arm, tokenizer=tokenizer_file)
    about = {remark.partition(":")[0] for remark in converted.remarks}
    assert {"resize", "prompt"} <= about
    assert ("no statistics" in about) is not has_statistics
    card = card_of(tmp_path / "b")
    assert ("| normalization | none: there are no statistics" in card) is not has_statistics
    assert ("statistics: data" in card.partition("## Use")[2]) is not has_statistics


@pytest.mark.parametrize("to", ["openpi", "lerobot", "native"])
def test_the_code_of_the_card_loads_what_was_written(native, tmp_path, monkeypatch, act, to):
    first = native()
    convert(first, to, tmp_path / "b")
    again = used_as_the_card_says(tmp_path / "b", monkeypatch)
    ours = policy_ft.load_policy(first)
    assert again.conventions == ours.conventions
    assert again.transforms.statistics.state.mean == ours.transforms.statistics.state.mean
    if to == "openpi":
        np.testing.assert_array_equal(act(again), act(ours))
    assert ("format: policy_ft/1" in card_of(tmp_path / "b")) is (to == "native")


@pytest.mark.parametrize("to", ["openpi", "lerobot"])
def test_maps_are_written_whole_beside_the_weights(native, tmp_path, monkeypatch, to):
    maps = tuple(
        LinearMap(kind="linear", column=name, scale=-1.0, offset=0.123456789) for name in "abcdefg"
    )
    first = native(state_maps=maps, action_maps=maps)
    converted = convert(first, to, tmp_path / "b")
    document = yaml.safe_load((tmp_path / "b/embodiment.yaml").read_text(encoding="utf-8"))
    assert [each["column"] for each in document["state_maps"]] == list("abcdefg")
    again = used_as_the_card_says(tmp_path / "b", monkeypatch)
    assert again.transforms.config.state_maps == maps
    assert again.transforms.config.action_maps == maps
    (about,) = (each for each in converted.remarks if each.startswith("state_maps"))
    assert about.startswith("state_maps of a, b, c, d, e, f, g: ")
    assert not any("..." in remark for remark in converted.remarks)


def test_the_statistics_written_are_found_for_the_same_robot_under_another_name(
    native, write_robot, tmp_path
):
    convert(native(), "openpi", tmp_path / "b")
    same = write_robot(tmp_path / "same.yaml", asset_ids=[])
    policy = policy_ft.load_policy(tmp_path / "b", embodiment=same)
    assert len(policy.transforms.statistics.state.mean) == 7
    other = write_robot(tmp_path / "other.yaml", "hijklmn", asset_ids=[])
    with pytest.raises(UserError, match=r"add asset_ids: \[robot\] to its YAML file"):
        policy_ft.load_policy(tmp_path / "b", embodiment=other)


def test_an_untouched_openpi_checkpoint_keeps_the_name_of_its_statistics(
    openpi_directory, arm, tokenizer_file, tmp_path
):
    first = openpi_directory(tmp_path / "a", "pi0")
    convert(first, "native", tmp_path / "b", tokenizer=tokenizer_file, embodiment=arm)
    convert(tmp_path / "b", "openpi", tmp_path / "c")
    assert load_embodiment(str(tmp_path / "c/embodiment.yaml")).asset_ids == ("trossen",)


def test_openpi_takes_one_width_alone_and_the_remedy_gives_it(native, tmp_path, act):
    first = native(resize=ModelResize(action_dim=40))
    with pytest.raises(UserError, match=r"a state of 32 columns and actions of 40.*ModelResize"):
        convert(first, "openpi", tmp_path / "b")
    wide = policy_ft.load_policy(first, resize=ModelResize(state_dim=40, action_dim=40))
    save_policy(wide, tmp_path / "wide")
    convert(tmp_path / "wide", "openpi", tmp_path / "c")
    stored = load_file(tmp_path / "c/model.safetensors")
    assert stored["state_proj.weight"].shape[1] == 40
    assert json.loads((tmp_path / "c/config.json").read_text())["action_dim"] == 40


@pytest.mark.parametrize("is_still", [True, False])
def test_still_columns_are_named_where_there_are_any(native, tmp_path, is_still):
    first = native(still_columns="center")
    file = first / "normalization_stats.json"
    document = json.loads(file.read_text())
    if is_still:
        document["actions"]["std"][3] = 0.0
    file.write_text(json.dumps(document))
    remarks = convert(first, "openpi", tmp_path / "b").remarks
    about = [remark for remark in remarks if remark.startswith("still_columns")]
    assert len(about) == is_still
    if is_still:
        assert "the action columns d hardly moved" in about[0]


@pytest.mark.parametrize("kind", ["mean_std", "min_max"])
def test_the_epsilon_of_ranges_is_said_where_there_are_ranges(lerobot_directory, tmp_path, kind):
    policy = policy_ft.load_policy(lerobot_directory(tmp_path / "a", "pi0"))
    settings = {"state_normalization": kind, "action_normalization": kind}
    config = policy.transforms.config.model_copy(update=settings)
    save_policy(
        replace(policy, transforms=replace(policy.transforms, config=config)), tmp_path / "b"
    )
    remarks = convert(tmp_path / "b", "openpi", tmp_path / "c").remarks
    about = [remark for remark in remarks if remark.startswith("range_epsilon")]
    assert len(about) == (kind == "min_max")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_head_of_zeros_has_the_type_of_the_weights(
    openpi_directory, golden_weights, tmp_path, dtype
):
    tensors = {name: each.to(dtype) for name, each in golden_weights("pi0").items() if name != DEAD}
    convert(openpi_directory(tmp_path / "a", "pi0", tensors), "openpi", tmp_path / "b")
    assert load_file(tmp_path / "b/model.safetensors")[DEAD].dtype == dtype


@pytest.mark.parametrize(
    ("to", "key"),
    [("openpi", "precision"), ("lerobot", "dtype")],
)
def test_documents_that_are_kept_say_the_new_type(
    openpi_directory, lerobot_directory, lerobot_settings, tmp_path, to, key
):
    if to == "openpi":
        first = openpi_directory(tmp_path / "a", "pi0", config={key: "float32"})
    else:
        config = lerobot_settings("pi0", dtype="float32")
        first = lerobot_directory(tmp_path / "a", "pi0", config=config)
    convert(first, to, tmp_path / "b", dtype="bfloat16")
    before, after = (json.loads((p / "config.json").read_text()) for p in (first, tmp_path / "b"))
    assert after[key] == "bfloat16"
    assert {**before, key: "bfloat16"}.items() <= after.items()


def test_every_file_is_on_the_disk_before_the_directory_gets_its_name(tmp_path, monkeypatch):
    events = []
    flush, move = atomic.flush_to_disk, os.replace

    def flushing(path):
        events.append(Path(path).name)
        flush(path)

    def moving(source, target):
        events.append("moved")
        move(source, target)

    monkeypatch.setattr(atomic, "flush_to_disk", flushing)
    monkeypatch.setattr(os, "replace", moving)
    with atomic.atomic_directory(tmp_path / "a") as unfinished:
        (unfinished / "below").mkdir()
        (unfinished / "below/file").touch()
    before = events[: events.index("moved")]
    assert {"file", "below", ".a.unfinished"} <= set(before)
    assert events[-1] == tmp_path.name


@pytest.mark.parametrize(("words", "is_private"), [((), True), (("--public",), False)])
def test_push_makes_a_private_repository_unless_told(
    lerobot_directory, tmp_path, monkeypatch, words, is_private
):
    asked = []
    monkeypatch.setattr(
        hub, "push", lambda directory, repo_id, **given: asked.append((repo_id, given))
    )
    first = lerobot_directory(tmp_path / "a", "pi0")
    result = CliRunner().invoke(app, ["push", str(first), "owner/name", *words])
    assert result.exit_code == 0, result.output
    assert asked == [("owner/name", {"is_private": is_private})]


def test_a_descendant_keeps_the_hash_of_the_tensors_beside_the_weights(lerobot_directory, tmp_path):
    convert(lerobot_directory(tmp_path / "a", "pi0"), "native", tmp_path / "b")
    policy = policy_ft.load_policy(tmp_path / "b")
    kept = descended(policy).provenance["unused_sha256"]
    assert kept == policy.provenance["unused_sha256"]
