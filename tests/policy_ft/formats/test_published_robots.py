"""Whose numbers a published checkpoint's are: columns, statistics, cameras, and its version."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file

import policy_ft
from policy_ft.config.resize import ModelResize
from policy_ft.errors import UserError
from policy_ft.formats.conversion.convert import convert
from policy_ft.formats.embodiments import load_embodiment
from policy_ft.formats.lerobot.read_lerobot import read_lerobot
from policy_ft.formats.openpi.read_openpi import read_openpi

FLIP = [{"kind": "linear", "column": "a", "scale": -1}]
VERSION_KEYS = ("use_relative_actions", "relative_exclude_joints", "action_feature_names")


class AskedError(Exception):
    """What a fit was asked for."""


def fit(settings, shape, tokenizer_json):
    raise AskedError(settings)


def asked(path, **changes):
    """The settings that new statistics would be made with."""
    with pytest.raises(AskedError) as caught:
        policy_ft.load_policy(path, fit=fit, **changes)
    return caught.value.args[0]


def rows(width, value=1.0, prefix=""):
    """Statistics of state and actions as LeRobot stores them."""
    return {
        f"{prefix}{feature}.{name}": torch.full((width,), value)
        for feature in ("observation.state", "action")
        for name in ("mean", "std")
    }


@pytest.fixture
def robot(write_robot, tmp_path):
    """robot(names, ...): an embodiment with the cameras of `lerobot_directory`."""

    def make(names="abcdefg", **changes):
        changes = {"cameras": ["top", "wrist"], **changes}
        return write_robot(tmp_path / "own.yaml", names, **changes)

    return make


@pytest.fixture
def relative(lerobot_directory, lerobot_settings, tmp_path):
    """relative(...): a pi0 of three columns, relative but for those called a gripper."""

    def write(names=("waist", "left_Gripper", "elbow"), **changes):
        config = lerobot_settings("pi0", use_relative_actions=True, action_feature_names=names)
        config["input_features"]["observation.state"]["shape"] = [3]
        config["output_features"]["action"]["shape"] = [3]
        given = {"config": config, "statistics": rows(3), **changes}
        return lerobot_directory(tmp_path / "relative", "pi0", **given)

    return write


def test_relative_actions_are_told_by_position_and_not_by_the_robots_own_names(relative, robot):
    path = relative()
    good = load_embodiment(robot(["one", "two", "gripper"], delta_actions=["one", "gripper"]))
    published = read_lerobot(path, good)
    assert published.transforms_config.delta_actions == ("one", "gripper")
    assert published.statistics is not None
    wrong = load_embodiment(robot(["one", "two", "gripper"], delta_actions=["one", "two"]))
    absent = read_lerobot(path, wrong).absent["statistics"]
    assert "found ['one', 'two']; expected ['one', 'gripper']" in absent
    assert "(statistics: data)" in absent


def test_columns_beyond_the_stored_names_are_relative(relative):
    found = read_lerobot(relative(names=["gripper", "waist"])).transforms_config.delta_actions
    assert found == ("action_1", "action_2")


def test_the_relative_step_decides_over_the_config(
    lerobot_settings, lerobot_steps, lerobot_directory, tmp_path
):
    config = lerobot_settings("pi0", use_relative_actions=True)
    steps = lerobot_steps("pi0", config)
    (step,) = [each for each in steps if each["registry_name"] == "relative_actions_processor"]
    step["config"]["enabled"] = False
    path = lerobot_directory(tmp_path / "x", "pi0", config=config, steps=steps)
    assert read_lerobot(path).transforms_config.delta_actions == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state_maps": FLIP}, r"state_maps: found maps of \['a'\]; expected none"),
        ({"action_maps": FLIP}, r"action_maps: found maps of \['a'\]; expected none"),
        ({"delta_actions": ["a"]}, r"delta_actions: found \['a'\]; expected \[\], as"),
    ],
)
def test_lerobots_statistics_are_of_columns_that_nothing_maps(
    lerobot_directory, robot, tmp_path, changes, words
):
    path = lerobot_directory(tmp_path / "x", "pi0")
    with pytest.raises(UserError, match=rf"{words}[^\n]*\(statistics: data\)"):
        policy_ft.load_policy(path, embodiment=robot(**changes))


def test_new_statistics_have_the_robots_maps_whatever_holds_the_checkpoint(
    lerobot_directory, robot, tmp_path
):
    plain = robot(asset_ids=["so100"])
    some = rows(7, prefix="so100.buffer.")
    trained = lerobot_directory(tmp_path / "a", "smolvla", statistics=some)
    convert(trained, "native", tmp_path / "b", embodiment=plain)
    bare = lerobot_directory(tmp_path / "c", "smolvla", statistics={})
    mapped = robot(state_maps=FLIP, action_maps=FLIP, delta_actions=["a", "b"])
    found = [asked(path, embodiment=mapped) for path in (trained, tmp_path / "b", bare)]
    assert found[0] == found[1] == found[2]
    assert (len(found[0].state_maps), found[0].delta_actions) == (1, ("a", "b"))


def test_new_statistics_never_blow_up_a_still_column(
    openpi_directory, tokenizer_file, arm, tmp_path
):
    first = openpi_directory(tmp_path / "a", "pi0")
    given = {"embodiment": arm, "tokenizer": tokenizer_file}
    convert(first, "native", tmp_path / "b", **given)
    assert policy_ft.load_policy(tmp_path / "b").transforms.config.still_columns == "divide"
    assert asked(first, **given).still_columns == "hold"
    assert asked(tmp_path / "b").still_columns == "hold"


def test_lerobots_statistics_of_another_width_are_another_robots(
    lerobot_directory, robot, tmp_path
):
    path = lerobot_directory(tmp_path / "x", "pi0")
    with pytest.raises(UserError, match=r"of state: found 7 columns; expected 4, as the rob") as e:
        policy_ft.load_policy(path, embodiment=robot("abcd"))
    assert "of actions: found 7 columns; expected 4" in str(e.value)


@pytest.mark.parametrize(("width", "is_taken"), [(7, True), (32, True), (14, False), (6, False)])
def test_openpis_statistics_are_cut_from_the_padded_width_alone(
    openpi_directory, arm, tmp_path, width, is_taken
):
    row = {name: [1.0] * width for name in ("mean", "std", "q01", "q99")}
    stored = {"trossen": {"norm_stats": {"state": row, "actions": row}}}
    path = openpi_directory(tmp_path / "x", "pi0", statistics=stored)
    published = read_openpi(path, load_embodiment(arm))
    if is_taken:
        assert (published.statistics.state.dim, published.statistics.actions.dim) == (7, 7)
        assert "statistics" not in published.absent
    else:
        assert f"found {width} columns; expected 7" in published.absent["statistics"]


def test_statistics_by_time_step_are_refused(lerobot_directory, tmp_path):
    stats = rows(7) | {"action.mean": torch.ones(50, 7)}
    path = lerobot_directory(tmp_path / "x", "pi0", statistics=stats)
    with pytest.raises(UserError, match=r"action.mean: found \[50, 7\]; expected \[columns\]"):
        read_lerobot(path)


def test_statistics_of_two_datasets_are_not_mixed(lerobot_directory, robot, tmp_path):
    a, b = rows(7, 1.0, "A.buffer."), rows(7, 2.0, "B.buffer.")
    halves = {n: t for n, t in a.items() if "action" in n}
    path = lerobot_directory(tmp_path / "x", "smolvla", statistics=halves | b)
    found = read_lerobot(path, load_embodiment(robot(asset_ids=["A", "B"]))).statistics
    assert (set(found.state.mean), set(found.actions.mean)) == ({2.0}, {2.0})
    only_a = load_embodiment(robot(asset_ids=["A"]))
    assert "no statistics of" in read_lerobot(path, only_a).absent["statistics"]


@pytest.mark.parametrize("family", ["pi0", "pi05"])
def test_openpi_does_not_act_in_its_own_space_for_a_robot_nobody_named(
    openpi_directory, tokenizer_file, tmp_path, family
):
    path = openpi_directory(tmp_path / "x", family)
    words = r"load_policy\(embodiment=...\).*'trossen' is of embodiment 'aloha'"
    with pytest.raises(UserError, match=words):
        policy_ft.load_policy(path, tokenizer=tokenizer_file)
    assert asked(path, tokenizer=tokenizer_file).delta_actions == ()


def without_version(settings, family):
    config = settings(family)
    return {key: value for key, value in config.items() if key not in VERSION_KEYS}


@pytest.mark.parametrize(
    ("train_config", "is_old", "note"),
    [
        ({"cudnn_deterministic": False}, False, ""),
        ({"seed": 0}, True, "train_config.json has no cudnn_deterministic"),
        (None, True, "without train_config.json it cannot be told apart from 0.5.0 or later"),
    ],
)
@pytest.mark.parametrize("family", ["pi05", "smolvla"])
def test_the_version_of_lerobot_is_told_by_its_train_config(
    lerobot_directory, lerobot_settings, tmp_path, family, train_config, is_old, note
):
    config = without_version(lerobot_settings, family)
    path = lerobot_directory(tmp_path / "x", family, config=config)
    if train_config is not None:
        (path / "train_config.json").write_text(json.dumps(train_config))
    published = read_lerobot(path)
    if family == "smolvla":
        assert published.config.vision.shifted_positions == is_old
    else:
        assert published.transforms_config.prompt == ("pi05_padded_state" if is_old else "pi05")
        assert published.transforms_config.resize.endswith("minus_three") == is_old
    assert any(note in each for each in published.notes) == is_old or not note


def test_positions_are_not_shifted_where_the_tower_ran_in_bfloat16(
    lerobot_directory, golden_weights, tmp_path
):
    tensors = {name: tensor.bfloat16() for name, tensor in golden_weights("smolvla").items()}
    published = read_lerobot(lerobot_directory(tmp_path / "x", "smolvla", tensors=tensors))
    assert not published.config.vision.shifted_positions
    assert not any("positions" in note for note in published.notes)


@pytest.mark.parametrize(
    ("config", "changes", "is_noted"),
    [
        (None, {}, True),
        (None, {"prompt_says_state": False}, False),
        (None, {"prompt_says_state": True}, False),
        ({"discrete_state_input": True}, {}, False),
    ],
)
def test_a_guess_about_the_prompt_of_pi05_is_noted(
    openpi_directory, write_robot, tokenizer_file, tmp_path, config, changes, is_noted
):
    path = openpi_directory(tmp_path / "x", "pi05", config=config)
    own = write_robot(tmp_path / "own.yaml", **changes)
    policy = policy_ft.load_policy(path, embodiment=own, tokenizer=tokenizer_file)
    assert any("discrete_state_input" in note for note in policy.load_report.notes) == is_noted


def test_a_base_that_lerobot_only_converted_has_openpis_prompt_and_images(
    lerobot_directory, openpi_directory, tmp_path
):
    theirs = read_lerobot(lerobot_directory(tmp_path / "a", "pi0", statistics={}))
    own = read_openpi(openpi_directory(tmp_path / "b", "pi0", statistics={}))
    for name in ("prompt", "resize"):
        assert getattr(theirs.transforms_config, name) == getattr(own.transforms_config, name)


@pytest.mark.parametrize("cameras", [["wrist", "top"], ["wrist"], [None, "top"]])
def test_a_camera_in_another_slot_than_it_was_trained_in_is_refused(
    lerobot_directory, robot, tmp_path, cameras
):
    path = lerobot_directory(tmp_path / "x", "pi0")
    with pytest.raises(UserError, match=r"expected each where it was trained: \['top', 'wrist'\]"):
        read_lerobot(path, load_embodiment(robot(cameras=cameras)))


@pytest.mark.parametrize(
    ("cameras", "note"),
    [
        (["top", "wrist"], None),
        (["front", "hand"], "slot 0 front (trained as top), slot 1 hand (trained as wrist)"),
        ([None, "wrist"], "slot 0 empty (trained as top), slot 1 wrist (trained as wrist)"),
    ],
)
def test_cameras_of_other_names_are_noted_slot_by_slot(
    lerobot_directory, robot, tmp_path, cameras, note
):
    path = lerobot_directory(tmp_path / "x", "pi0")
    notes = read_lerobot(path, load_embodiment(robot(cameras=cameras))).notes
    assert [each for each in notes if each.startswith("cameras")] == (
        [] if note is None else [f"cameras: {note}"]
    )


def test_actions_are_unnormalized_as_they_were_normalized(lerobot_directory, tmp_path):
    path = lerobot_directory(tmp_path / "x", "pi0")
    document = json.loads((path / "policy_postprocessor.json").read_text())
    document["steps"][0]["config"]["norm_map"] = {"ACTION": "MIN_MAX"}
    (path / "policy_postprocessor.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"ACTION: found 'MIN_MAX'; expected 'MEAN_STD', as the n"):
        read_lerobot(path)


def test_a_state_that_the_prompt_pads_keeps_its_width(
    lerobot_directory, lerobot_settings, tmp_path
):
    config = without_version(lerobot_settings, "pi05")
    path = lerobot_directory(tmp_path / "a", "pi05", config=config)
    convert(path, "native", tmp_path / "b")
    for each in (path, tmp_path / "b"):
        with pytest.raises(UserError, match=r"resize.state_dim: found 40.*Leave it out"):
            policy_ft.load_policy(each, resize=ModelResize(state_dim=40))


def test_smolvla_turns_by_lerobots_own_base(lerobot_directory, lerobot_settings, tmp_path):
    config = lerobot_settings("smolvla")
    config["vlm_config"]["text_config"]["rope_theta"] = 100_000
    path = lerobot_directory(tmp_path / "x", "smolvla", config=config)
    assert read_lerobot(path).config.language.rope_theta == 10_000


def test_a_parameter_that_no_published_file_has_keeps_its_name_in_messages(
    openpi_directory, tmp_path
):
    path = openpi_directory(tmp_path / "x", "pi0")
    names = read_openpi(path).names
    assert names.stored_name("backbone.image_positions") == "backbone.image_positions"
    stored = load_file(path / "model.safetensors")
    assert names.stored_name("expert.action_in_proj.weight") in stored
    assert not any(re.search("image_positions", name) for name in stored)
