"""The state of a run on the disk: a resumed run has every tensor and bit, or says what it lacks."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from policy_ft import assemble
from policy_ft.checkpoints.weights import weights_hash
from policy_ft.errors import UserError


@pytest.fixture
def halfway(run_config):
    """A run of three of six steps: its settings, and its state on the disk."""
    last = assemble.train(run_config(training={"steps": 3})).last_checkpoint
    return run_config(), last / "training_state"


def drop(path: Path, count: int) -> list[str]:
    tensors = load_file(path)
    gone = list(tensors)[:count]
    save_file({name: value for name, value in tensors.items() if name not in gone}, path)
    return gone


@pytest.mark.parametrize("name", ["weights", "optimizer"])
@pytest.mark.parametrize("count", [1, 20])
def test_a_tensor_that_is_missing_is_named_by_check_and_train(halfway, name, count):
    config, state = halfway
    gone = drop(state / f"{name}.safetensors", count)
    fault = rf"{name}.safetensors: found {count} tensors missing, e.g. '{sorted(gone)[0]}'"
    assert any(re.search(fault, each) for each in assemble.check(config, resume=True))
    with pytest.raises(UserError, match=fault + r".*Move .* away"):
        assemble.train(config, resume=True)


@pytest.mark.parametrize("name", ["weights", "optimizer"])
def test_a_tensor_with_other_bytes_is_named(halfway, name):
    config, state = halfway
    path = state / f"{name}.safetensors"
    tensors = load_file(path)
    changed = next(key for key, value in tensors.items() if value.any())
    save_file({**tensors, changed: torch.zeros_like(tensors[changed])}, path)
    with pytest.raises(UserError, match=rf"found other bytes in the tensor '{changed}'"):
        assemble.train(config, resume=True)


def test_a_run_cannot_go_on_to_fewer_steps_than_are_done(halfway, run_config):
    _, state = halfway
    before = (state.parents[2] / "config.yaml").read_bytes()
    fewer = run_config(training={"steps": 2})
    fault = r"training.steps: found 2; expected at least 3, so many are done"
    assert any(re.search(fault, each) for each in assemble.check(fewer, resume=True))
    with pytest.raises(UserError, match=fault):
        assemble.train(fewer, resume=True)
    assert (state.parents[2] / "config.yaml").read_bytes() == before


def test_a_state_of_before_checksums_and_hooks_goes_on_to_the_same_bits(run_config, tmp_path):
    """As it was written until 2026-11-30: pairs of loss and gradient norm, and no hooks in JSON."""
    whole = assemble.train(run_config(output_dir=str(tmp_path / "whole"))).last_checkpoint
    state = assemble.train(run_config(training={"steps": 3})).last_checkpoint / "training_state"
    saved = json.loads((state / "state.json").read_text())
    for name in ("hooks", "lr_factor", "stop_reason"):
        del saved[name]
    saved["format"] = "policy_ft training state/2"
    saved["recent"] = [[each["loss"], each["grad_norm"]] for each in saved["recent"]]
    (state / "state.json").write_text(json.dumps(saved))
    (state / "checksums.json").unlink()
    last = assemble.train(run_config(), resume=True).last_checkpoint
    hashes = [weights_hash(load_file(each / "model.safetensors")) for each in (last, whole)]
    assert hashes[0] == hashes[1]
