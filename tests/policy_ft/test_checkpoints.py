"""The laws of checkpoints: the whole policy, at once or not at all, every tensor accounted for."""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import policy_ft
from data_tools.episode import Observation
from policy_ft.checkpoints import atomic
from policy_ft.checkpoints.atomic import atomic_directory, write_atomically
from policy_ft.checkpoints.native import save_policy, weights_hash
from policy_ft.checkpoints.weights import read_weights, write_weights
from policy_ft.errors import UserError
from policy_ft.formats.load import load_policy
from policy_ft.models.solvers import Euler, SampleRequest


@pytest.fixture
def checkpoint(policy, tmp_path):
    save_policy(policy, tmp_path / "checkpoint", card="# A policy for tests\n")
    return tmp_path / "checkpoint"


@pytest.fixture
def observations():
    rng = np.random.default_rng(0)
    return [
        Observation(
            {n: rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for n in ("front", "wrist")},
            rng.normal(size=4).astype(np.float32),
            text,
        )
        for text in ("push the red block", "lift the blue cylinder")
    ]


def test_a_loaded_policy_acts_bit_for_bit_like_the_saved_one(policy, checkpoint, observations):
    noise = np.random.default_rng(1).normal(size=(2, 4, 4)).astype(np.float32)
    loaded = policy_ft.load_policy(checkpoint)
    for ours, theirs in zip(
        policy.act(observations, SampleRequest(noise)),
        loaded.act(observations, SampleRequest(noise)),
        strict=True,
    ):
        assert ours.shape == (4, 3)
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, theirs)
    assert loaded.transforms == policy.transforms
    assert loaded.config == policy.config
    assert loaded.conventions == policy.conventions


def test_acting_depends_on_what_is_seen_and_said(policy, observations):
    noise = np.zeros((1, 4, 4), np.float32)
    (reference,) = policy.act(observations[:1], SampleRequest(noise))
    other_text = replace(observations[0], instruction=observations[1].instruction)
    dark = {name: np.zeros_like(image) for name, image in observations[0].images.items()}
    for changed in (other_text, replace(observations[0], images=dark)):
        assert not np.array_equal(policy.act([changed], SampleRequest(noise))[0], reference)


def test_acting_leaves_a_training_model_in_training(policy, observations):
    policy.model.train()
    policy.act(observations[:1])
    assert policy.model.training


def test_the_number_of_euler_steps_is_the_models_own_unless_given(policy, observations):
    noise = np.ones((1, 4, 4), np.float32)
    (own,) = policy.act(observations[:1], SampleRequest(noise))
    np.testing.assert_array_equal(
        policy.act(observations[:1], SampleRequest(noise, Euler(2)))[0], own
    )
    assert not np.array_equal(policy.act(observations[:1], SampleRequest(noise, Euler(7)))[0], own)


def test_a_policy_in_bfloat16_acts_nearly_the_same(policy, checkpoint, observations):
    noise = np.zeros((2, 4, 4), np.float32)
    low = load_policy(checkpoint, dtype="bfloat16")
    dtypes = {
        name: {low.model.get_parameter(n).dtype for n in names}
        for name, names in low.groups().items()
    }
    assert dtypes.pop("language.embed") == {torch.bfloat16}
    assert dtypes.pop("heads.action_out") == {torch.float32}
    for ours, theirs in zip(
        policy.act(observations, SampleRequest(noise)),
        low.act(observations, SampleRequest(noise)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, atol=0.1)


def test_a_checkpoint_holds_everything(checkpoint, policy):
    assert sorted(path.name for path in checkpoint.iterdir()) == [
        "README.md",
        "conventions.json",
        "model.json",
        "model.safetensors",
        "normalization_stats.json",
        "provenance.json",
        "tokenizer.json",
        "transforms.json",
    ]
    provenance = json.loads((checkpoint / "provenance.json").read_text())
    assert provenance["command"] == "made for a test"
    assert provenance["weights_sha256"] == weights_hash(policy.model)


def test_the_report_accounts_for_every_tensor(checkpoint, policy):
    report = load_policy(checkpoint).load_report
    assert set(report.loaded) == set(policy.model.state_dict())
    assert report.missing == report.unexpected == report.tied == report.reshaped == ()


def test_saving_again_gives_the_same_weights(checkpoint, tmp_path):
    save_policy(load_policy(checkpoint), tmp_path / "again")
    again, first = tmp_path / "again/model.safetensors", checkpoint / "model.safetensors"
    assert again.read_bytes() == first.read_bytes()


def test_averages_are_saved_in_place_of_the_weights(policy, tmp_path):
    name = "expert.action_out_proj.weight"
    own = policy.model.state_dict()[name]
    average = {name: torch.zeros_like(own)}
    save_policy(policy, tmp_path / "averaged", weights=average)
    loaded = load_policy(tmp_path / "averaged").model.state_dict()
    assert (loaded[name] == 0).all()
    assert (own != 0).any()
    others = [n for n in loaded if n != name]
    assert all(torch.equal(loaded[n], policy.model.state_dict()[n]) for n in others)
    with pytest.raises(ValueError, match="stranger"):
        save_policy(policy, tmp_path / "wrong", weights={"stranger": own})
    assert not (tmp_path / "wrong").exists()


def test_the_hash_changes_with_any_weight_and_with_nothing_else(policy):
    before = weights_hash(policy.model)
    assert weights_hash(copy.deepcopy(policy.model)) == before
    assert weights_hash(dict(reversed(policy.model.state_dict().items()))) == before
    with torch.no_grad():
        next(policy.model.parameters()).view(-1)[0] += 1e-3
    assert weights_hash(policy.model) != before


def test_missing_tensors_start_at_random_only_where_allowed(checkpoint):
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    removed = {name: tensors.pop(name) for name in list(tensors) if name.startswith("expert.state")}
    save_file(tensors, path)
    with pytest.raises(UserError, match="init_missing"):
        load_policy(checkpoint)
    report = load_policy(checkpoint, init_missing=("expert.state_proj.*",)).load_report
    assert set(report.missing) == set(removed)
    assert set(report.loaded) == set(tensors)


def test_tied_tensors_are_stored_once_and_stay_tied(tmp_path):
    def tied():
        model = torch.nn.ModuleDict(
            {"embed": torch.nn.Embedding(5, 3), "head": torch.nn.Linear(3, 5)}
        )
        model["head"].weight = model["embed"].weight
        return model

    model, path = tied(), tmp_path / "tied.safetensors"
    write_weights(path, model, {})
    assert set(load_file(path)) == {"embed.weight", "head.bias"}
    loaded = tied()
    report = read_weights([path], loaded)
    assert report.tied == ("head.weight",)
    assert loaded["head"].weight is loaded["embed"].weight
    assert torch.equal(loaded["head"].weight, model["embed"].weight)


def test_a_tied_tensor_may_be_stored_under_either_name(tmp_path):
    model = torch.nn.ModuleDict({"embed": torch.nn.Embedding(5, 3), "head": torch.nn.Linear(3, 5)})
    model["head"].weight = model["embed"].weight
    weight = torch.randn(5, 3)
    for name in ("embed.weight", "head.weight"):
        save_file({name: weight, "head.bias": torch.zeros(5)}, tmp_path / "tied.safetensors")
        read_weights([tmp_path / "tied.safetensors"], model)
        assert torch.equal(model["embed"].weight, weight)


def test_a_model_is_untouched_when_its_file_does_not_match(checkpoint, policy):
    path = checkpoint / "model.safetensors"
    tensors = {name: tensor + 1 for name, tensor in load_file(path).items()}
    tensors.popitem()
    save_file(tensors, path)
    before = weights_hash(policy.model)
    with pytest.raises(UserError):
        read_weights([path], policy.model)
    assert weights_hash(policy.model) == before


def test_an_error_while_writing_leaves_nothing(tmp_path):
    def write_half():
        with atomic_directory(tmp_path / "target") as unfinished:
            (unfinished / "half").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_no_target_and_its_rest_is_removed_by_the_next(tmp_path):
    program = (
        "import sys, time, pathlib\n"
        "from policy_ft.checkpoints.atomic import atomic_directory\n"
        "with atomic_directory(pathlib.Path(sys.argv[1])) as unfinished:\n"
        "    (unfinished / 'half').write_text('x')\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
    )
    target = tmp_path / "target"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(target)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout.readline() == "writing\n"
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait(timeout=10)
    assert not target.exists()
    assert [path.name for path in tmp_path.iterdir()] == [".target.unfinished"]
    with atomic_directory(target) as unfinished:
        assert list(unfinished.iterdir()) == []
        (unfinished / "whole").write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert [path.name for path in target.iterdir()] == ["whole"]


def test_importing_the_package_imports_no_torch():
    program = "import sys, policy_ft, policy_ft.config.config_file; print('torch' in sys.modules)"
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
    assert time.perf_counter() - start < 20


def test_an_unknown_public_name_is_refused_with_the_known_ones():
    with pytest.raises(AttributeError, match="load_policy"):
        policy_ft.load_polcy  # noqa: B018


def test_a_file_that_could_not_be_written_whole_keeps_its_old_content(tmp_path, monkeypatch):
    path = tmp_path / "config.yaml"
    write_atomically(path, "old")
    monkeypatch.setattr(
        atomic, "flush_to_disk", lambda path: (_ for _ in ()).throw(OSError("full"))
    )
    with pytest.raises(OSError, match="full"):
        write_atomically(path, "new and longer")
    assert path.read_text() == "old"
    monkeypatch.undo()
    write_atomically(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path], "what was unfinished is taken up or gone"


def test_acting_leaves_every_module_in_its_own_mode(policy, observations):
    policy.model.train()
    policy.model.backbone.vision.eval()  # as a frozen tower is kept in training
    before = [module.training for module in policy.model.modules()]
    policy.act(observations)
    assert [module.training for module in policy.model.modules()] == before


def test_what_the_model_predicts_in_padded_columns_changes_no_action(policy, observations):
    """The model's fourth action column is padding."""
    noise = np.random.default_rng(1).normal(size=(2, 4, 4)).astype(np.float32)
    before = policy.act(observations, SampleRequest(noise))
    with torch.no_grad():
        policy.model.expert.action_out_proj.weight[3].mul_(100.0)
    np.testing.assert_array_equal(policy.act(observations, SampleRequest(noise)), before)
