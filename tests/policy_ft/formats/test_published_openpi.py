"""What lies beside openpi's weights: statistics, sizes, prompts, and the robot from outside."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import policy_ft
from data_tools.actions import scaling
from policy_ft.errors import UserError
from policy_ft.formats.embodiments import load_embodiment
from policy_ft.formats.openpi.read_openpi import read_openpi


def statistics_of(published, part="state"):
    stats = getattr(published.statistics, part)
    config = published.transforms_config
    return stats, getattr(config, f"{'state' if part == 'state' else 'action'}_normalization")


@pytest.mark.parametrize("family", ["pi0", "pi05"])
def test_openpi_normalizes_as_its_code_does(openpi_directory, tmp_path, family):
    path = openpi_directory(tmp_path / "x", family)
    document = json.loads((path / "assets/trossen/norm_stats.json").read_text())["norm_stats"]
    published = read_openpi(path)
    rows = {name: np.array(row) for name, row in document["actions"].items()}
    x = np.random.default_rng(0).normal(size=(5, 7))
    # openpi, transforms.py, Normalize
    if family == "pi0":
        expected = (x - rows["mean"]) / (rows["std"] + 1e-6)
    else:
        expected = (x - rows["q01"]) / (rows["q99"] - rows["q01"] + 1e-6) * 2 - 1
    stats, kind = statistics_of(published, "actions")
    found = scaling(stats, kind, published.transforms_config.scale_rule).normalize(x)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_the_only_statistics_are_taken_and_of_several_the_robots(openpi_directory, tmp_path):
    def some(width, value):
        row = {name: [value] * width for name in ("mean", "std", "q01", "q99")}
        return {"norm_stats": {"state": row, "actions": row}}

    several = {"trossen": some(14, 1.0), "droid": some(8, 2.0)}
    path = openpi_directory(tmp_path / "x", "pi0", statistics=several)
    published = read_openpi(path)
    assert published.statistics is None
    assert r"statistics of ['droid', 'trossen']" in published.absent["statistics"]
    assert "'trossen' is of embodiment 'aloha'" in published.absent["statistics"]
    aloha = read_openpi(path, load_embodiment("aloha"))
    assert set(aloha.statistics.state.mean) == {1.0}


def test_without_statistics_a_policy_is_refused_unless_they_come_from_data(
    openpi_directory, tokenizer_file, tmp_path
):
    path = openpi_directory(tmp_path / "x", "pi0", statistics={})
    with pytest.raises(UserError, match=r"no norm_stats.json.*\(statistics: data\)"):
        policy_ft.load_policy(path, tokenizer=tokenizer_file)


def test_statistics_that_are_no_numbers_name_their_place(openpi_directory, tmp_path):
    broken = {"norm_stats": {"state": {"mean": [0.0], "std": ["a"]}, "actions": {"mean": [0.0]}}}
    path = openpi_directory(tmp_path / "x", "pi0", statistics={"arm": broken})
    absent = read_openpi(path).absent["statistics"]
    assert "norm_stats.json, norm_stats.state.std.0" in absent
    assert "norm_stats.actions.std: found no value" in absent


@pytest.mark.parametrize(
    ("family", "config", "robot", "prompt"),
    [
        ("pi0", None, None, "pi0"),
        ("pi05", None, None, "pi05"),
        ("pi05", {"discrete_state_input": False}, None, "pi0"),
        ("pi05", None, "libero", "pi0"),
        ("pi05", {"discrete_state_input": True}, "libero", "pi05"),
    ],
)
def test_the_prompt_is_that_of_the_family(
    openpi_directory, tmp_path, family, config, robot, prompt
):
    path = openpi_directory(tmp_path / "x", family, config=config, statistics={})
    embodiment = None if robot is None else load_embodiment(robot)
    assert read_openpi(path, embodiment).transforms_config.prompt == prompt


def test_an_embodiment_brings_cameras_maps_and_relative_actions(openpi_directory, tmp_path):
    robot = load_embodiment("aloha")
    path = openpi_directory(tmp_path / "x", "pi0", statistics={})
    published = read_openpi(path, robot)
    config = published.transforms_config
    assert config.cameras == ("cam_high", "cam_left_wrist", "cam_right_wrist")
    assert (config.delta_actions, config.state_maps) == (robot.delta_actions, robot.state_maps)
    assert published.conventions == robot.conventions


def test_what_openpi_does_not_say_is_declared_unknown(openpi_directory, tmp_path):
    conventions = read_openpi(openpi_directory(tmp_path / "x", "pi0")).conventions
    assert conventions.control_hz is None
    assert set(conventions.action.references) == {"unknown"}
    assert len(conventions.state.names) == 7


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"pi05": True}, "pi05: found True; expected False"),
        ({"action_horizont": 10}, "unknown key 'action_horizont'.*did you mean 'action_horizon'"),
        ({"paligemma_variant": "gemma_9b"}, "gemma_9b"),
    ],
)
def test_a_wrong_openpi_config_is_refused(openpi_directory, tmp_path, config, words):
    with pytest.raises(UserError, match=words):
        read_openpi(openpi_directory(tmp_path / "x", "pi0", config=config))


def test_weights_and_config_in_a_directory_with_a_pickle_are_read_without_it(
    openpi_directory, tmp_path
):
    path = openpi_directory(tmp_path / "x", "pi0")
    assert (path / "optimizer.pt").exists()
    save_file({"unrelated": torch.zeros(1)}, path / "other.safetensors")
    published = read_openpi(path)
    assert published.config.family == "pi0"
    (note,) = published.notes
    assert note.startswith("other.safetensors: not read")
