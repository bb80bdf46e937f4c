"""Settings become things, and what does not fit is refused before a step is taken."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import policy_ft
from data_tools.formats.reader import open_dataset
from policy_ft import assemble
from policy_ft.checkpoints.native import save_policy
from policy_ft.checkpoints.weights import weights_hash
from policy_ft.data.split import split_episodes
from policy_ft.errors import UserError
from policy_ft.formats.load import load_policy
from policy_ft.models.torchvision_guard import ensure_torchvision_imports

ensure_torchvision_imports()
import transformers  # noqa: E402  it imports torchvision, which must have been mended by then


@pytest.fixture
def checkpoint(policy, tmp_path) -> Path:
    """A saved policy for the arm of the recorded demonstrations."""
    save_policy(policy, tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def finetune(run_config, checkpoint):
    """Settings that start from the saved policy; policy settings given by name are added."""

    def make(statistics: str = "checkpoint", **changes: object):
        policy = {"kind": "pretrained", "path": str(checkpoint), "statistics": statistics}
        config = run_config(**changes)
        return type(config).model_validate({**config.model_dump(mode="json"), "policy": policy})

    return make


def demos(config) -> Path:
    return Path(config.data.path[0])


def spoil(config, name: str, index: tuple[int, int], value: float) -> None:
    with h5py.File(demos(config), "r+") as file:
        file[f"data/demo_2/{name}"][index] = value


def test_settings_that_fit_have_no_faults_and_leave_nothing_behind(run_config, finetune):
    for config in (run_config(), finetune()):
        assert assemble.check(config) == []
        assert not Path(config.output_dir).exists()


def test_train_is_public_and_does_what_assemble_does(run_config):
    assert policy_ft.train is assemble.train


def test_a_new_policy_takes_its_statistics_from_the_training_episodes_alone(run_config):
    config = run_config()
    episodes = open_dataset(list(config.data.path))
    kept, held_out = split_episodes(episodes, config.data.validation_fraction, config.seed)
    policy = assemble.build_policy(config, episodes)
    actions = np.concatenate([episodes[index].actions() for index in kept])
    np.testing.assert_allclose(
        policy.transforms.statistics.actions.mean, actions.mean(0), rtol=1e-6
    )
    assert held_out, "some episodes must not count"


def test_the_seed_decides_the_weights_of_a_new_policy(run_config):
    config = run_config()
    episodes = open_dataset(list(config.data.path))
    hashes = [
        weights_hash(assemble.build_policy(run_config(seed=seed), episodes).model)
        for seed in (0, 0, 1)
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_published_parts_fill_a_new_policy_and_may_then_be_frozen(run_config, tmp_path):
    config = run_config()
    episodes = open_dataset(list(config.data.path))
    published = assemble.build_policy(run_config(seed=9), episodes).model.backbone
    language = published.language.config
    settings = transformers.LlamaConfig(
        vocab_size=language.vocab_size,
        hidden_size=language.width,
        intermediate_size=language.mlp_width,
        num_hidden_layers=language.depth,
        num_attention_heads=language.num_heads,
        num_key_value_heads=language.num_kv_heads,
        head_dim=language.head_dim,
    )
    settings.save_pretrained(tmp_path)
    save_file(published.language.state_dict(), tmp_path / "model.safetensors")
    save_file(published.vision.body.state_dict(), tmp_path / "tower.safetensors")
    parts = {
        "language_weights": str(tmp_path),
        "vision_weights": str(tmp_path / "tower.safetensors"),
    }
    rules = [{"pattern": name, "frozen": True} for name in ("language", "vision")]
    config = run_config(policy=parts, tuning={"groups": rules})
    assert assemble.check(config) == []
    policy = assemble.build_policy(config, episodes)
    for name, tensor in published.language.state_dict().items():
        assert torch.equal(policy.model.backbone.language.state_dict()[name], tensor)
    assert "backbone.vision.body.stem_conv.weight" in policy.load_report.loaded


def test_freezing_random_weights_is_refused(run_config):
    config = run_config(tuning={"groups": [{"pattern": "language.layers.0", "frozen": True}]})
    (fault,) = assemble.check(config)
    assert "found 9 frozen parameters with random weights" in fault
    assert "or train them" in fault
    with pytest.raises(UserError, match="frozen parameters with random weights"):
        assemble.train(config)


def test_a_pretrained_policy_keeps_its_weights_and_its_statistics(finetune, checkpoint):
    config = finetune()
    built = assemble.build_policy(config, open_dataset(list(config.data.path)))
    saved = load_policy(checkpoint)
    assert weights_hash(built.model) == weights_hash(saved.model)
    assert built.transforms == saved.transforms


def test_a_pretrained_policy_may_take_the_statistics_of_the_data(finetune, checkpoint, record):
    record(seed=5)
    config = finetune(statistics="data")
    episodes = open_dataset(list(config.data.path))
    statistics = assemble.build_policy(config, episodes).transforms.statistics
    assert statistics.fingerprint == episodes.fingerprint
    assert statistics.state != load_policy(checkpoint).transforms.statistics.state


def test_given_objects_are_used_instead_of_the_settings(run_config, policy, record):
    episodes = record(lengths=(6, 6))
    config = run_config(training={"steps": 1}, data={"path": "nowhere.hdf5"})
    result = assemble.train(config, policy, episodes)
    assert load_policy(result.last_checkpoint).provenance["command"] == "made for a test"


def test_data_that_is_missing_is_collected_and_rollouts_choose_the_best(
    run_config, small_model, tmp_path
):
    config = run_config(
        policy={"model": small_model(max_prompt_tokens=32)},
        data={
            "path": str(tmp_path / "reach.hdf5"),
            "collect": {"task": "reach", "num_episodes": 3, "env_args": {"image_size": 32}},
        },
        evaluation={
            "env_args": {"task": "reach", "image_size": 32},
            "episodes": 2,
            "num_envs": 2,
            "replan_steps": 4,
            "every": 2,
        },
        training={"steps": 2},
    )
    result = assemble.train(config)
    assert len(open_dataset(demos(config))) == 3
    (rollout,) = [row for row in result.metrics if row["kind"] == "rollout"]
    assert rollout["num_episodes"] == 2
    assert 0 <= rollout["low"] <= rollout["success_rate"] <= rollout["high"] <= 1
    state = result.best_checkpoint / "training_state" / "state.json"
    assert '"metric": "rollout_success_rate"' in state.read_text()


def test_a_run_that_would_collect_is_checked_as_far_as_it_can_be(finetune, tmp_path):
    config = finetune(
        data={
            "path": str(tmp_path / "later.hdf5"),
            "collect": {"task": "reach", "num_episodes": 3},
        },
        tuning={"groups": [{"pattern": "vison", "frozen": True}]},
    )
    (fault,) = assemble.check(config)
    assert "id you mean 'vision'" in fault
    assert not demos(config).exists()


def test_all_faults_are_told_at_once(run_config):
    config = run_config(
        tuning={"groups": [{"pattern": "vison", "frozen": True}, {"pattern": "nothing"}]},
        evaluation={"env": "eval_envs:Nowhere-v0", "replan_steps": 2, "every": 5},
    )
    Path(config.output_dir, "checkpoints", "step_00000001", "training_state").mkdir(parents=True)
    Path(config.output_dir, "checkpoints/step_00000001/training_state/state.json").touch()
    faults = "\n".join(assemble.check(config))
    for words in (
        "Add --resume",
        "'vison', which matches no group",
        "'nothing', which matches no group",
        "eval_envs:Nowhere-v0",
    ):
        assert words in faults


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_named_before_anything_is_written(run_config, value):
    config = run_config()
    spoil(config, "actions", (4, 1), value)
    with pytest.raises(UserError, match=r"demo_2.*step 4.*'y'") as caught:
        assemble.train(config)
    assert "leave the episode out" in str(caught.value)
    assert not Path(config.output_dir).exists()
    assert any("step 4" in fault for fault in assemble.check(config))


def test_a_truncated_file_is_named(run_config):
    config = run_config()
    os.truncate(demos(config), demos(config).stat().st_size // 2)
    with pytest.raises(UserError, match=r"demos\.hdf5"):
        assemble.train(config)
    assert any("demos.hdf5" in fault for fault in assemble.check(config))


def test_data_of_another_robot_is_refused(finetune):
    config = finetune()
    with h5py.File(demos(config), "r+") as file:
        for name, value in file["data"].attrs.items():
            if isinstance(value, str) and '"control_hz":10' in value.replace(" ", ""):
                changed = value.replace('"control_hz":10', '"control_hz":20')
                file["data"].attrs[name] = changed
        for group in file["data"].values():
            group.attrs["fps"] = 20.0
    for faults in (assemble.check(config), _refusal(config)):
        assert any("Resample the data, or correct control_hz" in fault for fault in faults)


def _refusal(config) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        assemble.train(config)
    return caught.value.faults


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"policy": {"transforms": {"cameras": ["frnt"]}}}, "id you mean 'front'"),
        ({"policy": {"tokenizer": "nowhere/tokenizer.json"}}, "Correct the path"),
        ({"data": {"path": "nowhere.hdf5"}}, "nowhere.hdf5"),
        ({"tuning": {"groups": [{"pattern": "*", "frozen": True}]}}, "Remove a frozen rule"),
        (
            {"evaluation": {"env": "CartPole-v1", "replan_steps": 2, "every": 5}},
            "environment CartPole-v1",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_check(run_config, changes, remedy):
    assert any(remedy in fault for fault in assemble.check(run_config(**changes)))


def test_an_instruction_too_long_for_the_model_is_named(run_config):
    config = run_config()
    with h5py.File(demos(config), "r+") as file:
        for name in file["data/demo_1"].attrs:
            if file["data/demo_1"].attrs[name] == "lift the  blue cylinder":
                file["data/demo_1"].attrs[name] = "zigzag " * 40
    for faults in (assemble.check(config), _refusal(config)):
        assert any("demo_1" in each and "Shorten the instruction" in each for each in faults)
    assert not Path(config.output_dir).exists()


def test_instructions_too_long_for_the_model_are_one_fault_that_counts_episodes(
    run_config, small_model
):
    config = run_config(policy={"model": small_model(max_prompt_tokens=1)})
    (fault,) = assemble.check(config)
    assert "and 3 more episodes, instruction: found" in fault
    assert "policy.resize.max_prompt_tokens (kind pretrained)" in fault


def test_a_checkpoint_tells_its_command_its_duration_and_its_parents(finetune, checkpoint):
    parent_hash = load_policy(checkpoint).provenance["weights_sha256"]
    config = finetune(training={"steps": 1})
    first = load_policy(assemble.train(config, command="policy-ft train a.yaml").last_checkpoint)
    assert first.provenance["command"] == "policy-ft train a.yaml"
    assert first.provenance["train_s"] > 0
    assert first.provenance["parent"] == {
        "path": str(checkpoint),
        "weights_sha256": parent_hash,
        "command": "made for a test",
    }
    second = finetune(training={"steps": 1}, output_dir=config.output_dir + "2")
    result = assemble.train(second, first)
    parent = load_policy(result.last_checkpoint).provenance["parent"]
    assert parent["weights_sha256"] == first.provenance["weights_sha256"]
    assert parent["parent"] == first.provenance["parent"]


def test_a_resumed_run_keeps_its_parent(finetune, checkpoint):
    assemble.train(finetune(training={"steps": 1}), command="one")
    last = assemble.train(
        finetune(training={"steps": 2}), resume=True, command="two"
    ).last_checkpoint
    provenance = load_policy(last).provenance
    assert provenance["parent"]["path"] == str(checkpoint)
    assert provenance["command"] == "two"


def test_an_environment_without_rollout_settings_is_refused(run_config):
    with pytest.raises(UserError, match="Fill in the config's evaluation block"):
        assemble.train(run_config(), env="eval_envs:Tabletop-v0")
