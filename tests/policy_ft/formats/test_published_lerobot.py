"""What lies beside LeRobot's weights: processors old and new, cameras, relative actions."""

import json

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import policy_ft
from data_tools.actions import scaling
from policy_ft.errors import UserError
from policy_ft.formats.lerobot.read_lerobot import read_lerobot
from policy_ft.formats.lerobot.tensor_document import tensor_document, tensors_of


def statistics_of(published, part="state"):
    stats = getattr(published.statistics, part)
    config = published.transforms_config
    return stats, getattr(config, f"{'state' if part == 'state' else 'action'}_normalization")


def lerobot_reference(x, stats, mode, eps=1e-8):
    """LeRobot, processor/normalize_processor.py, written down from its formulas."""
    low, high = {"QUANTILES": ("q01", "q99"), "MIN_MAX": ("min", "max")}.get(mode, ("", ""))
    if mode == "MEAN_STD":
        return (x - stats["mean"]) / (stats["std"] + eps)
    span = stats[high] - stats[low]
    return 2 * (x - stats[low]) / np.where(span == 0, eps, span) - 1


@pytest.mark.parametrize("mode", ["MEAN_STD", "QUANTILES", "MIN_MAX"])
def test_lerobot_normalizes_as_its_code_does(lerobot_directory, lerobot_settings, tmp_path, mode):
    mapping = {"VISUAL": "IDENTITY", "STATE": mode, "ACTION": mode}
    config = lerobot_settings("pi0", normalization_mapping=mapping)
    path = lerobot_directory(tmp_path / "x", "pi0", config=config)
    published = read_lerobot(path)
    stored = load_file(next(path.glob("*_normalizer_processor.safetensors")))
    rows = {
        name.removeprefix("observation.state."): tensor.double().numpy()
        for name, tensor in stored.items()
        if name.startswith("observation.state.")
    }
    x = np.random.default_rng(0).normal(size=(5, 7))
    stats, kind = statistics_of(published)
    found = scaling(stats, kind, published.transforms_config.scale_rule).normalize(x)
    np.testing.assert_allclose(found, lerobot_reference(x, rows, mode), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", ["pi0", "pi05", "smolvla"])
def test_the_state_files_index_is_read_and_not_assumed(
    lerobot_directory, lerobot_steps, lerobot_settings, tmp_path, family
):
    steps = lerobot_steps(family, lerobot_settings(family))
    usual = read_lerobot(lerobot_directory(tmp_path / "a", family)).statistics
    moved = [*steps[:1], {"registry_name": "device_processor", "config": {}}, *steps[1:]]
    path = lerobot_directory(tmp_path / "b", family, steps=moved)
    found = read_lerobot(path).statistics
    assert (found.state, found.actions) == (usual.state, usual.actions)


def test_cameras_come_in_the_order_of_the_features(lerobot_directory, lerobot_settings, tmp_path):
    config = lerobot_settings("pi0")
    config["input_features"] = dict(reversed(config["input_features"].items()))
    config["empty_cameras"] = 1
    published = read_lerobot(lerobot_directory(tmp_path / "x", "pi0", config=config))
    assert published.transforms_config.cameras == ("wrist", "top")
    assert published.config.num_cameras == 3
    assert [(c.height, c.width) for c in published.conventions.cameras] == [(64, 64), (48, 64)]


def test_empty_cameras_that_lerobot_wrote_out_count_once(
    lerobot_directory, lerobot_settings, tmp_path
):
    config = lerobot_settings("pi0", empty_cameras=1)
    empty = {"type": "VISUAL", "shape": [3, 224, 224]}
    config["input_features"]["observation.images.empty_camera_0"] = empty
    published = read_lerobot(lerobot_directory(tmp_path / "x", "pi0", config=config))
    assert (published.transforms_config.cameras, published.config.num_cameras) == (
        ("top", "wrist"),
        3,
    )


def test_cameras_have_the_robots_names_and_not_the_policys(
    lerobot_directory, lerobot_steps, lerobot_settings, tmp_path
):
    steps = lerobot_steps("pi0", lerobot_settings("pi0"))
    steps[0]["config"]["rename_map"] = {"observation.images.front": "observation.images.top"}
    published = read_lerobot(lerobot_directory(tmp_path / "x", "pi0", steps=steps))
    assert published.conventions.camera_names == ("front", "wrist")


@pytest.mark.parametrize(
    ("excluded", "named", "expected"),
    [
        (["gripper"], True, ("waist", "elbow")),
        ([], True, ("waist", "elbow", "left_Gripper")),
        (["gripper"], False, ("action_0", "action_1", "action_2")),
    ],
)
def test_relative_actions_follow_lerobots_words(
    lerobot_directory, lerobot_settings, tmp_path, excluded, named, expected
):
    names = ["waist", "elbow", "left_Gripper"]
    config = lerobot_settings(
        "pi0",
        use_relative_actions=True,
        relative_exclude_joints=excluded,
        action_feature_names=names if named else None,
    )
    config["input_features"]["observation.state"]["shape"] = [4]
    config["output_features"]["action"]["shape"] = [3]
    row = torch.ones
    stats = {
        f"{f}.{n}": row(w)
        for f, w in (("observation.state", 4), ("action", 3))
        for n in ("mean", "std")
    }
    published = read_lerobot(
        lerobot_directory(tmp_path / "x", "pi0", config=config, statistics=stats)
    )
    assert published.transforms_config.delta_actions == expected
    published.transforms()


@pytest.mark.parametrize(
    ("family", "changes", "prompt", "resize"),
    [
        ("pi0", {}, "lerobot_pi0", "torch_bilinear_center_pad"),
        ("pi05", {}, "pi05", "torch_bilinear_center_pad"),
        ("smolvla", {}, "smolvla", "torch_bilinear_lefttop_pad"),
        ("pi0", {"old": True}, "lerobot_pi0", "torch_bilinear_center_pad_minus_three"),
        ("pi05", {"old": True}, "pi05_padded_state", "torch_bilinear_center_pad_minus_three"),
        ("pi05", {"statistics": {}}, "pi05", "pil_bilinear_center_pad"),
    ],
)
def test_images_and_prompts_are_those_of_the_version_that_trained_it(
    lerobot_directory, lerobot_settings, tmp_path, family, changes, prompt, resize
):
    config = lerobot_settings(family)
    if changes.pop("old", False):
        del config["use_relative_actions"]
    path = lerobot_directory(tmp_path / "x", family, config=config, **changes)
    found = read_lerobot(path)
    assert (found.transforms_config.prompt, found.transforms_config.resize) == (prompt, resize)


def legacy(weights, suffix="buffer_"):
    """Statistics among the weights, as before LeRobot 0.4."""
    rows = {"mean": torch.full((7,), 0.25), "std": torch.full((7,), 2.0)}
    for root, feature in (
        ("normalize_inputs.", "observation_state"),
        ("normalize_targets.", "action"),
        ("unnormalize_outputs.", "action"),
    ):
        weights |= {f"{root}{suffix}{feature}.{name}": row.clone() for name, row in rows.items()}
    return weights


def test_statistics_among_old_weights_are_used_and_named(
    lerobot_directory, golden_weights, tmp_path
):
    tensors = legacy(golden_weights("smolvla"))
    path = lerobot_directory(tmp_path / "x", "smolvla", tensors=tensors, processors=False)
    policy = policy_ft.load_policy(path)
    assert policy.transforms.statistics.state.mean == (0.25,) * 7
    assert policy.transforms.statistics.actions.std == (2.0,) * 7
    assert sum("buffer_" in name for name in policy.load_report.dropped) == 6


def test_statistics_that_were_never_set_are_none(lerobot_directory, golden_weights, tmp_path):
    tensors = legacy(golden_weights("smolvla"))
    for name in [name for name in tensors if "buffer_" in name]:
        tensors[name] = torch.full((7,), float("inf"))
    path = lerobot_directory(tmp_path / "x", "smolvla", tensors=tensors, processors=False)
    with pytest.raises(UserError, match=r"no statistics of observation.state and action"):
        policy_ft.load_policy(path)


def test_action_statistics_that_disagree_are_refused(lerobot_directory, golden_weights, tmp_path):
    tensors = legacy(golden_weights("smolvla"))
    tensors["unnormalize_outputs.buffer_action.mean"] += 1
    path = lerobot_directory(tmp_path / "x", "smolvla", tensors=tensors, processors=False)
    with pytest.raises(UserError, match=r"action.mean: found other numbers.*do not belong toge"):
        policy_ft.load_policy(path)


@pytest.mark.parametrize("is_legacy", [False, True])
def test_statistics_by_dataset_are_not_taken_for_none(
    lerobot_directory, golden_weights, tmp_path, is_legacy
):
    """smolvla_base: so100.buffer.action.mean fits no feature, so LeRobot passes raw numbers."""
    if is_legacy:
        tensors = legacy(golden_weights("smolvla"), suffix="so100.buffer_")
        changes = {"tensors": tensors, "processors": False}
    else:
        names = [f"{g}.buffer.action.{n}" for g in ("so100", "so100-red") for n in ("mean", "std")]
        changes = {"statistics": {name: torch.full((7,), 3.0) for name in names}}
    path = lerobot_directory(tmp_path / "x", "smolvla", **changes)
    with pytest.raises(UserError, match=r"some of the datasets \['so100'.*would pass raw numbers"):
        policy_ft.load_policy(path)


def test_an_embodiment_chooses_among_the_statistics_of_datasets(
    lerobot_directory, golden_weights, tmp_path
):
    tensors = legacy(golden_weights("smolvla"), suffix="so100.buffer_")
    path = lerobot_directory(tmp_path / "x", "smolvla", tensors=tensors, processors=False)
    columns = {"names": list("abcdefg"), "units": ["rad"] * 7}
    limits = {"low": [0] * 7, "high": [1] * 7, "references": ["absolute"] * 7}
    robot = {
        "name": "so100",
        "description": "an arm",
        "cameras": ["top"],
        "asset_ids": ["so100"],
        "conventions": {
            "control_hz": 30,
            "cameras": [{"name": "top", "height": 48, "width": 64}],
            "state": columns,
            "action": columns | limits,
        },
    }
    (tmp_path / "robot.yaml").write_text(yaml.safe_dump(robot), encoding="utf-8")
    policy = policy_ft.load_policy(path, embodiment=str(tmp_path / "robot.yaml"))
    assert policy.transforms.statistics.state.mean == (0.25,) * 7
    assert policy.conventions.state.names == tuple("abcdefg")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"use_visual_memory": True}, "use_visual_memory: found True; expected False"),
        ({"adapt_to_pi_aloha": True}, "adapt_to_pi_aloha"),
        ({"attention_mode": "self_attn"}, "expected 'cross_attn'"),
        ({"num_expert_layers": 2}, "num_expert_layers: found 2"),
        ({"n_obs_steps": 2}, "n_obs_steps: found 2; expected 1"),
        ({"novel_attention": 3}, "novel_attention: found an unknown key, 3; .*Remove the key if"),
        ({"chunk_sise": 10}, "did you mean 'chunk_size'"),
        ({"chunk_size": "ten"}, "chunk_size"),
        ({"type": "act"}, r"type: found 'act'; expected one of \['pi0'"),
        ({"max_action_dim": 24}, "max_action_dim: found 24; expected 32"),
        (
            {"normalization_mapping": {"VISUAL": "MEAN_STD"}},
            r"norm_map, VISUAL: found 'MEAN_STD'; expected one of \['IDENTITY'\]",
        ),
    ],
)
def test_settings_that_are_not_honoured_are_refused(
    lerobot_directory, lerobot_settings, tmp_path, changes, words
):
    config = lerobot_settings("smolvla", **changes)
    path = lerobot_directory(tmp_path / "x", "smolvla", config=config, processors=False)
    with pytest.raises(UserError, match=words):
        read_lerobot(path)


def test_settings_without_effect_are_noted(lerobot_directory, lerobot_settings, tmp_path):
    config = lerobot_settings(
        "pi0", rtc_config={"enabled": True}, time_sampling_beta_alpha=1.0, some_new_switch=False
    )
    notes = read_lerobot(lerobot_directory(tmp_path / "x", "pi0", config=config)).notes
    assert [note.split(":")[0].split()[1] for note in notes] == [
        "rtc_config",
        "time_sampling_beta_alpha",
        "some_new_switch",
    ]


def test_prompt_lengths_that_disagree_are_refused(
    lerobot_directory, lerobot_steps, lerobot_settings, tmp_path
):
    steps = lerobot_steps("pi0", lerobot_settings("pi0"))
    steps[3]["config"]["max_length"] = 64
    path = lerobot_directory(tmp_path / "x", "pi0", steps=steps)
    with pytest.raises(UserError, match=r"max_length: found 64; expected 48, as config.json says"):
        read_lerobot(path)


def test_an_unknown_processor_step_is_refused(
    lerobot_directory, lerobot_steps, lerobot_settings, tmp_path
):
    steps = lerobot_steps("pi0", lerobot_settings("pi0"))
    steps.insert(1, {"registry_name": "image_crop_resize_processor", "config": {}})
    path = lerobot_directory(tmp_path / "x", "pi0", steps=steps)
    with pytest.raises(UserError, match=r"steps.1: found the step 'image_crop.*not implemented"):
        read_lerobot(path)


def test_a_state_file_elsewhere_is_refused(lerobot_directory, tmp_path):
    path = lerobot_directory(tmp_path / "x", "pi0")
    document = json.loads((path / "policy_preprocessor.json").read_text())
    document["steps"][-1]["state_file"] = "../../secret.safetensors"
    (path / "policy_preprocessor.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="name of a file in the same directory"):
        read_lerobot(path)


def test_a_missing_state_file_is_refused(lerobot_directory, tmp_path):
    path = lerobot_directory(tmp_path / "x", "pi0")
    next(path.glob("*_normalizer_processor.safetensors")).unlink()
    with pytest.raises(UserError, match=r"normalizer_processor.safetensors: found no such file"):
        read_lerobot(path)


def test_the_robot_executes_as_many_steps_as_lerobot_does(lerobot_directory, tmp_path):
    policy = policy_ft.load_policy(lerobot_directory(tmp_path / "x", "pi0"))
    assert policy.provenance["replan_steps"] == 20


def test_small_tensors_survive_as_json_bit_for_bit():
    tensors = {
        "a": torch.randn(3, 1, 1),
        "b": torch.randn(4).bfloat16(),
        "c": torch.tensor([1, 2]),
        "d": torch.tensor([float("nan"), float("inf")], dtype=torch.float64),
    }
    again = tensors_of(json.loads(json.dumps(tensor_document(tensors))), "x")
    for name, tensor in tensors.items():
        assert again[name].dtype == tensor.dtype
        assert torch.equal(again[name], tensor) or name == "d"
    assert again["d"].isnan()[0]
