"""What training changed is written anew in another format, or said to the person."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

import policy_ft
from data_tools.formats.mapping.mapping import LinearMap
from policy_ft.checkpoints.native import save_policy
from policy_ft.errors import UserError
from policy_ft.formats.conversion.convert import convert

FAMILIES = ("pi0", "pi05", "smolvla")


def tuned(policy, **transforms):
    """The policy as training leaves it: other weights and statistics of other data."""
    statistics = policy.transforms.statistics
    shifted = tuple(value + 0.125 for value in statistics.state.mean)
    state = statistics.state.model_copy(update={"mean": shifted})
    with torch.no_grad():
        policy.model.expert.action_in_proj.weight.add_(0.5)
    config = policy.transforms.config.model_copy(update=transforms)
    return replace(
        policy,
        transforms=replace(
            policy.transforms,
            config=config,
            statistics=statistics.model_copy(update={"state": state}),
        ),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fine_tuned_policy_is_written_with_its_own_statistics(
    lerobot_directory, tmp_path, family, act
):
    policy = tuned(policy_ft.load_policy(lerobot_directory(tmp_path / "a", family)))
    save_policy(policy, tmp_path / "b")
    converted = convert(tmp_path / "b", "lerobot", tmp_path / "c")
    again = policy_ft.load_policy(tmp_path / "c")
    assert again.transforms.statistics.state == policy.transforms.statistics.state
    assert again.provenance["replan_steps"] == policy.provenance["replan_steps"]
    np.testing.assert_allclose(act(again), act(policy), rtol=0, atol=1e-5)
    assert not any("statistics" in remark for remark in converted.remarks)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_lerobot_file_that_is_written_is_one_that_is_read(
    lerobot_directory, tmp_path, family
):
    """The steps and their order are those of LeRobot 0.6, which the fixture writes."""
    first = lerobot_directory(tmp_path / "a", family)
    save_policy(tuned(policy_ft.load_policy(first)), tmp_path / "b")
    convert(tmp_path / "b", "lerobot", tmp_path / "c")
    for name in ("policy_preprocessor.json", "policy_postprocessor.json"):
        expected, found = (json.loads((d / name).read_text()) for d in (first, tmp_path / "c"))
        steps = [
            [(step["registry_name"], step.get("state_file")) for step in document["steps"]]
            for document in (expected, found)
        ]
        if family == "smolvla":  # has no relative actions, which the fixture does not know
            steps = [[s for s in each if s[0] != "absolute_actions_processor"] for each in steps]
        assert steps[0] == steps[1]
        assert expected["name"] == found["name"]
    written = json.loads((tmp_path / "c/config.json").read_text())
    theirs = json.loads((first / "config.json").read_text())
    assert set(written) - {"dtype", "load_vlm_weights", "vlm_model_name"} <= set(theirs)


def test_relative_actions_are_said_in_lerobots_words(lerobot_directory, lerobot_settings, tmp_path):
    names = ["waist", "elbow", "wrist", "tilt", "roll", "finger", "gripper"]
    config = lerobot_settings("pi0", use_relative_actions=True, action_feature_names=names)
    first = lerobot_directory(tmp_path / "a", "pi0", config=config)
    save_policy(tuned(policy_ft.load_policy(first)), tmp_path / "b")
    convert(tmp_path / "b", "lerobot", tmp_path / "c")
    again = policy_ft.load_policy(tmp_path / "c").transforms.config
    assert again.delta_actions == tuple(names[:6])


def test_relative_actions_that_lerobots_words_cannot_tell_apart_are_refused(
    lerobot_directory, lerobot_settings, tmp_path
):
    names = ["x", "y", "z", "rx", "ry", "rz", "gripper"]
    config = lerobot_settings(
        "pi0",
        use_relative_actions=True,
        relative_exclude_joints=["r"],
        action_feature_names=names,
    )
    policy = policy_ft.load_policy(lerobot_directory(tmp_path / "a", "pi0", config=config))
    assert policy.transforms.config.delta_actions == ("x", "y", "z")
    save_policy(tuned(policy, delta_actions=("rx", "ry", "rz")), tmp_path / "b")
    with pytest.raises(UserError, match="Rename or reorder the columns"):
        convert(tmp_path / "b", "lerobot", tmp_path / "c")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("to", ["openpi", "lerobot"])
def test_what_a_format_cannot_say_is_said_to_the_person(lerobot_directory, tmp_path, to):
    maps = (LinearMap(kind="linear", column="state_1", scale=-1.0),)
    policy = policy_ft.load_policy(lerobot_directory(tmp_path / "a", "pi0"))
    save_policy(tuned(policy, state_maps=maps, still_columns="center"), tmp_path / "b")
    converted = convert(tmp_path / "b", to, tmp_path / "c")
    (about_maps,) = (each for each in converted.remarks if each.startswith("state_maps"))
    assert about_maps.startswith("state_maps of state_1: ")
    assert "apply them to the state before the policy reads it" in about_maps
    card = (tmp_path / "c/README.md").read_text(encoding="utf-8")
    assert all(remark in card for remark in converted.remarks)


def test_the_card_states_facts_under_a_header_that_a_hub_reads(lerobot_directory, tmp_path):
    converted = convert(lerobot_directory(tmp_path / "a", "smolvla"), "native", tmp_path / "b")
    _, header, body = (tmp_path / "b/README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert yaml.safe_load(header)["tags"] == ["robotics", "vision-language-action", "smolvla"]
    assert converted.weights_sha256 in body
    for fact in ("chunks of 50 steps", "top, wrist", "mean_std", "float32", "state_0"):
        assert fact in body
