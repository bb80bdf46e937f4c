"""An output directory belongs to one run, and outputs never replace what is not theirs."""

import errno
import fcntl
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from data_tools.formats.reader import open_dataset
from data_tools.storage.files.disk import NO_LOCKS_HERE
from policy_ft import assemble
from policy_ft.checkpoints.native import save_policy
from policy_ft.cli import app
from policy_ft.config.data import CollectConfig
from policy_ft.data import opening
from policy_ft.errors import UserError
from policy_ft.formats.load import load_policy
from policy_ft.training.run_lock import lock_output_dir, require_writable


def test_a_second_run_in_the_same_directory_is_refused_until_the_first_ends(tmp_path: Path):
    with (
        lock_output_dir(tmp_path / "run"),
        pytest.raises(UserError, match=r"the run of process \d+ at work there.*Wait for it"),
        lock_output_dir(tmp_path / "run"),
    ):
        pass
    with lock_output_dir(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()


def test_a_process_that_no_launcher_started_is_told_how_several_share_a_run(tmp_path: Path):
    with (
        lock_output_dir(tmp_path / "run"),
        pytest.raises(UserError, match=r"torchrun --nproc-per-node N -m policy_ft train CONFIG"),
        lock_output_dir(tmp_path / "run"),
    ):
        pass


@pytest.mark.parametrize("number", sorted(NO_LOCKS_HERE))
def test_a_disk_without_locks_trains_and_says_so(run_config, monkeypatch, capsys, number):
    def refuse(file: object, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assemble.train(run_config())
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "this disk keeps no locks; let no other run write there" in shown


def test_a_disk_that_refuses_a_lock_is_told_in_a_sentence(tmp_path, monkeypatch):
    def refuse(file: object, operation: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(UserError, match=r"refuses a lock \(.*Set output_dir to another directory"),
        lock_output_dir(tmp_path / "run"),
    ):
        pass


def test_train_refuses_a_directory_in_which_another_run_is_at_work(run_config):
    config = run_config()
    with lock_output_dir(Path(config.output_dir)), pytest.raises(UserError, match="no other run"):
        assemble.train(config)


@pytest.mark.parametrize("place", ["file/below", "file"])
def test_an_output_directory_that_cannot_be_made_is_refused(run_config, tmp_path, place):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"which is a file.*Set output_dir to another"):
        require_writable(tmp_path / place)
    config = run_config(output_dir=str(tmp_path / place))
    assert "Set output_dir to another directory" in " ".join(assemble.check(config))
    with pytest.raises(UserError, match="Set output_dir to another directory"):
        assemble.train(config)


def test_resuming_where_nothing_is_says_that_it_starts_anew(run_config, capsys):
    assemble.train(run_config(), resume=True)
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "no checkpoint to resume; starting at step 0" in shown


@pytest.mark.parametrize("resume", [False, True])
def test_check_and_train_tell_of_the_run_that_is_at_work(run_config, resume):
    config = run_config(training={"steps": 1})
    assemble.train(config)
    fault = rf"found the run of process {os.getpid()} at work there; expected no other run"
    with lock_output_dir(Path(config.output_dir)):
        (told,) = assemble.check(config, resume=resume)
        assert re.search(fault, told)
        with pytest.raises(UserError, match=fault) as caught:
            assemble.train(config, resume=resume)
    assert "--resume" not in str(caught.value)


def test_a_damaged_training_state_is_refused_with_what_to_do(run_config):
    config = run_config()
    last = assemble.train(config).last_checkpoint
    damaged = last / "training_state" / "optimizer.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    longer = run_config(training={"steps": 8})
    with pytest.raises(UserError, match=r"optimizer.safetensors.*Move .* away"):
        assemble.train(longer, resume=True)


def test_weights_that_are_not_finite_are_refused_by_name(policy, tmp_path):
    save_policy(policy, tmp_path / "base")
    path = tmp_path / "base" / "model.safetensors"
    tensors = load_file(path)
    name = "expert.action_out_proj.bias"
    tensors[name] = torch.full_like(tensors[name], float("nan"))
    save_file(tensors, path)
    with pytest.raises(UserError, match=rf"{name}: found \d+ of \d+ values.*earlier checkpoint"):
        load_policy(tmp_path / "base")


def test_weights_that_the_provenance_does_not_know_are_refused(policy, tmp_path):
    save_policy(policy, tmp_path / "base")
    path = tmp_path / "base" / "model.safetensors"
    tensors = load_file(path)
    tensors["expert.action_out_proj.bias"][0] += 1e-3
    save_file(tensors, path)
    with pytest.raises(UserError, match=r"weights_sha256.*files do not belong together"):
        load_policy(tmp_path / "base")


def test_a_policy_saved_in_bfloat16_loads_in_both_types(policy, tmp_path):
    save_policy(policy, tmp_path / "full")
    save_policy(load_policy(tmp_path / "full", dtype="bfloat16"), tmp_path / "half")
    for dtype in ("float32", "bfloat16"):
        assert load_policy(tmp_path / "half", dtype=dtype).load_report.missing == ()


def test_a_file_that_is_not_what_collect_would_record_is_refused(run_config):
    config = run_config()
    episodes = open_dataset(list(config.data.path))
    collect = CollectConfig(task="pick", num_episodes=len(episodes) + 1)
    data = config.data.model_copy(update={"collect": collect})
    with pytest.raises(UserError, match=r"4 episodes.*expected 5 of pick.*set data.collect to off"):
        opening.open_or_collect(data)


def test_eval_overwrites_nothing_but_json(policy, tmp_path):
    save_policy(policy, tmp_path / "base")
    victim = tmp_path / "demos.hdf5"
    victim.write_bytes(b"demonstrations")
    outputs = ["--json", str(victim), "--video", str(victim)]
    done = CliRunner().invoke(app, ["eval", str(tmp_path / "base"), *outputs])
    assert done.exit_code == 2
    assert "Name it .json" in done.stderr
    assert "expected a directory" in done.stderr
    assert victim.read_bytes() == b"demonstrations"


def test_a_run_that_was_stopped_can_be_checked_for_going_on(run_config):
    config = run_config()
    assemble.train(config)
    assert "--resume" in " ".join(assemble.check(config))
    assert assemble.check(config, resume=True) == []
