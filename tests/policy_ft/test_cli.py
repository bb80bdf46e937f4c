"""The command line: what each command prints and writes, and that mistakes exit with 2."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import Result
from typer.testing import CliRunner

from policy_ft.cli import app
from policy_ft.errors import UserError
from policy_ft.evaluation.results import EvaluationResult

RUN = """
# purpose: the smallest whole run
seed: 3
output_dir: {folder}/run
policy:
  kind: new
  model:
    image_height: 32
    image_width: 32
    num_cameras: 2
    max_prompt_tokens: 40
    state_dim: 4
    action_dim: 4
    action_horizon: 4
    num_sampling_steps: 2
    vision:
      kind: timm
      tower: resnetv2_18
      tower_args: {{norm_layer: groupnorm1, channels: [32, 32, 32, 32], stem_chs: 32,
                   layers: [1, 1, 1, 1]}}
      feature_level: 3
    language: {{family: llama, vocab_size: 300, width: 32, depth: 2, mlp_width: 48, num_heads: 4,
               num_kv_heads: 2, head_dim: 8}}
    expert: {{width: 24, mlp_width: 40}}
  transforms: {{cameras: [front, wrist]}}
  tokenizer: {{train: 300}}
data:
  path: {folder}/demos.hdf5
  num_workers: 0
  collect: {{task: reach, num_episodes: 4, env_args: {{image_size: 32}}}}
optimizer: {{lr: 1e-3, warmup_steps: 1, decay_steps: 100, final_lr: 1e-4}}
training: {{steps: 2, batch_size: 4, num_threads: 1, log_every: 1}}
validation: {{every: 2, num_windows: 4, num_noise: 1, times: [0.5]}}
"""
IN_REACH = ["--task", "reach", "--env-arg", "image_size=32", "-n", "3", "--replan-steps", "3"]


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def printed(*arguments: object) -> str:
    result = call(*arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config, its demonstrations and the checkpoint of its run."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "run.yaml").write_text(RUN.format(folder=folder))
    printed("train", folder / "run.yaml")
    return folder


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Path:
    return folder / "run/checkpoints/step_00000002"


def test_train_says_where_the_checkpoints_are(folder: Path, checkpoint: Path) -> None:
    text = printed("train", folder / "run.yaml", "--resume")
    assert f"last checkpoint: {checkpoint}" in text
    assert f"best checkpoint: {checkpoint}" in text


def test_train_takes_settings_from_the_command_line(folder: Path) -> None:
    arguments = ["--set", f"output_dir={folder}/other", "--set", "training.steps=1"]
    printed("train", folder / "run.yaml", *arguments)
    provenance = folder / "other/checkpoints/step_00000001/provenance.json"
    assert json.loads(provenance.read_text())["command"] == (
        f"policy-ft train {folder}/run.yaml --set output_dir={folder}/other --set training.steps=1"
    )
    assert not (folder / "other/checkpoints/step_00000002").exists()


def test_check_trains_nothing(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    output = f"output_dir={folder}/fresh"
    assert "ready to train" in printed("check", folder / "run.yaml", "--set", output)
    assert sorted(folder.rglob("*")) == before


def test_show_tells_the_origin_of_every_setting(folder: Path, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = printed("show", folder / "run.yaml", "--set", "optimizer.lr=2e-3")
    rows = {
        cells[1].strip(): cells[2:4]
        for line in text.splitlines()
        if len(cells := line.split("\u2502")) > 4
    }
    assert [cell.strip() for cell in rows["optimizer.lr"]] == ["0.002", "--set"]
    assert [cell.strip() for cell in rows["optimizer.eps"]] == ["1e-08", "default"]
    value, origin = (cell.strip() for cell in rows["seed"])
    assert value == "3"
    assert re.search(r"run\.yaml:\d+$", origin)


def test_show_hash_equals_the_recorded_hash_of_the_weights(checkpoint: Path) -> None:
    recorded = json.loads((checkpoint / "provenance.json").read_text())["weights_sha256"]
    assert printed("show", checkpoint, "--hash").strip() == recorded


def test_show_lists_the_parameters_of_a_checkpoint(checkpoint: Path) -> None:
    text = printed("show", checkpoint)
    assert "expert.layers.1" in text
    assert "tensors loaded, 0 missing, 0 unexpected, 0 tied, 0 reshaped, 0 dropped" in text
    parts = yaml.safe_load(text[text.index("\nmodel:") :])
    assert parts["model"]["action_horizon"] == 4
    assert parts["conventions"]["control_hz"] == 10
    assert parts["provenance"]["train_step"] == 2


def test_eval_writes_every_episode_and_films_some(checkpoint: Path, tmp_path: Path) -> None:
    outputs = ["--json", tmp_path / "result.json", "--video", tmp_path / "videos"]
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        text = printed("eval", checkpoint, *IN_REACH, "--seed", 77, *outputs)
        assert torch.get_num_threads() == threads + 1, "eval keeps the caller's threads"
    finally:
        torch.set_num_threads(threads)
    summary = json.loads((tmp_path / "result.json").read_text())
    result = EvaluationResult.model_validate(summary["evaluation"])
    assert result.seeds == (77, 78, 79)
    assert (result.replan_steps, result.num_sampling_steps) == (3, 2)
    assert summary["weights_sha256"] == printed("show", checkpoint, "--hash").strip()
    assert f"{100 * summary['low']:.1f} to {100 * summary['high']:.1f} %" in text
    films = sorted((tmp_path / "videos").iterdir())
    assert films
    assert all(film.read_bytes()[4:8] == b"ftyp" for film in films)


def test_eval_executes_as_many_actions_as_the_checkpoint_records(
    checkpoint: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "checkpoint"
    copy.mkdir()
    for file in checkpoint.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    provenance = json.loads((copy / "provenance.json").read_text())
    (copy / "provenance.json").write_text(json.dumps({**provenance, "replan_steps": 2}))
    printed("eval", copy, *IN_REACH[:6], "--json", tmp_path / "result.json")
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["evaluation"]["replan_steps"] == 2


def test_eval_goes_on_in_its_output_directory_and_films_what_was_run_before(
    checkpoint: Path, tmp_path: Path
) -> None:
    output = ["--output", tmp_path / "evaluation"]
    first = printed("eval", checkpoint, *IN_REACH, *output)
    lines = (tmp_path / "evaluation/episodes.jsonl").read_bytes()
    assert lines.count(b"\n") == 3
    again = printed("eval", checkpoint, *IN_REACH, *output, "--video", tmp_path / "videos")
    assert (tmp_path / "evaluation/episodes.jsonl").read_bytes() == lines
    assert again.startswith(first)
    assert list((tmp_path / "videos").iterdir())
    refused = call("eval", checkpoint, *IN_REACH, *output, "--replan-steps", 2)
    assert refused.exit_code == 2
    assert "replan_steps: found 3; expected 2" in refused.stderr


def test_eval_in_processes_and_in_another_interpreter_says_the_same(checkpoint: Path) -> None:
    usual = printed("eval", checkpoint, *IN_REACH)
    assert printed("eval", checkpoint, *IN_REACH, "--isolate", "--time-limit", 100) == usual
    assert printed("eval", checkpoint, *IN_REACH, "--env-python", sys.executable) == usual


def test_eval_tells_of_lost_episodes_and_exits_with_1(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "falling.py").write_text(FALLING)
    monkeypatch.syspath_prepend(tmp_path)
    places = ["--env", "falling:Falling-v0", "--isolate", "--video", tmp_path / "videos"]
    result = call("eval", checkpoint, *IN_REACH, "--seed", 30_001, *places)
    assert result.exit_code == 1, result.stderr
    assert "lost: seed 30003 of falling:Falling-v0, a process that ended with exit" in result.stdout
    assert "1 of 3 episodes were lost and count as no successes" in result.stdout


FALLING = """
import os
import gymnasium
from eval_envs.tabletop.env import TabletopEnv

class Falling(TabletopEnv):
    def reset(self, *, seed=None, options=None):
        if seed == 30_003:
            os._exit(3)
        return super().reset(seed=seed, options=options)

gymnasium.register(id="Falling-v0", entry_point=Falling)
"""


MISTAKES = {
    "missing config": (["train", "{folder}/nothing.yaml"], "Correct the path"),
    "missing checkpoint": (["show", "{folder}/run/nothing"], "Correct the path"),
    "nothing beside a checkpoint": (
        ["show", "{folder}/rnu"],
        "expected a config (a YAML file), a checkpoint directory or a hub id. Correct the path; "
        "did you mean 'run'?",
    ),
    "no value for a block": (
        ["check", "{config}", "--set", "evaluation=null"],
        "expected 'off' or a block of settings. Set evaluation to such a value, or leave it out "
        "for its default, 'off'",
    ),
    "override without value": (["check", "{config}", "--set", "seed"], "--set optimizer.lr=1e-4"),
    "override of an unknown key": (["show", "{config}", "--set", "sed=1"], "did you mean 'seed'?"),
    "output directory in use": (["train", "{config}"], "resume"),
    "hash of a config": (["show", "{config}", "--hash"], "Leave --hash out"),
    "override of a checkpoint": (["show", "{checkpoint}", "--set", "seed=1"], "Leave --set out"),
    "unknown environment": (
        ["eval", "{checkpoint}", "--env", "eval_envs:Tabeltop-v0", "--replan-steps", "2"],
        "Write the id as 'module:Name-v0'",
    ),
    "unknown task": (
        ["eval", "{checkpoint}", "--task", "reech", "--replan-steps", "2"],
        "did you mean 'reach'",
    ),
    "setting without value": (
        ["eval", "{checkpoint}", "--env-arg", "image_size"],
        "Write e.g. --env-arg image_size=64",
    ),
    "malformed setting": (
        ["eval", "{checkpoint}", "--env-arg", "cameras=[front"],
        "Put quotes around the value",
    ),
    "images of another size": (
        ["eval", "{checkpoint}", "--task", "reach", "--replan-steps", "2"],
        "Set the size of the environment",
    ),
    "replanning never recorded": (["eval", "{checkpoint}", "--task", "reach"], "--replan-steps"),
    "replanning beyond the horizon": (
        ["eval", "{checkpoint}", *IN_REACH, "--replan-steps", "5"],
        "Set replan_steps to at most 4",
    ),
    "setting given twice": (
        ["eval", "{checkpoint}", "--task", "reach", "--env-arg", "task=pick"],
        "Drop one",
    ),
    "unusable device": (["eval", "{checkpoint}", "--device", "abacus"], "Use --device cpu"),
    "json where nothing can be written": (
        ["eval", "{checkpoint}", *IN_REACH, "--json", "/proc/a.json"],
        "Choose another folder, or ask for permission",
    ),
    "videos where nothing can be written": (
        ["eval", "{checkpoint}", *IN_REACH, "--video", "/proc/videos"],
        "Choose another folder, or ask for permission",
    ),
    "a robot beside a checkpoint that has one": (
        ["show", "{checkpoint}", "--embodiment", "aloha"],
        "Leave --embodiment out",
    ),
    "a time limit without processes": (
        ["eval", "{checkpoint}", *IN_REACH, "--time-limit", "9"],
        "Leave --time-limit out",
    ),
    "no interpreter": (
        ["eval", "{checkpoint}", *IN_REACH, "--env-python", "{folder}/python"],
        "Name one, e.g.",
    ),
    "output that is a file": (
        ["eval", "{checkpoint}", *IN_REACH, "--output", "{config}"],
        "Choose another directory",
    ),
    "json into a missing folder": (
        ["eval", "{checkpoint}", *IN_REACH, "--json", "{folder}/missing/a.json"],
        "mkdir -p",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_one_message_and_exit_code_2(name: str, folder: Path, checkpoint: Path) -> None:
    arguments, remedy = MISTAKES[name]
    places = {"folder": folder, "config": folder / "run.yaml", "checkpoint": checkpoint}
    before = sorted(folder.rglob("*"))
    result = call(*(each.format(**places) for each in arguments))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    assert remedy.lower() in result.stderr.lower()
    assert sorted(folder.rglob("*")) == before


def test_traceback_is_shown_on_demand(folder: Path) -> None:
    result = call("--traceback", "show", folder / "nothing.yaml")
    assert isinstance(result.exception, UserError)


@pytest.mark.parametrize(
    "arguments", [["fly"], ["train"], ["eval", "x", "-n", "0"], ["eval", "x", "--frames", "3"]]
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    assert call(*arguments).exit_code == 2


@pytest.mark.parametrize(
    ("command", "hint"),
    [("train", "train ... --resume"), ("eval", "goes on with the same command"), ("show", "")],
)
def test_ctrl_c_speaks_of_going_on_where_that_is_possible(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: str, hint: str
) -> None:
    def interrupt(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("policy_ft.commands.train.load_config", interrupt)
    monkeypatch.setattr("policy_ft.commands.show.read_config", interrupt)
    monkeypatch.setattr("policy_ft.commands.evaluate.load_policy", interrupt)
    result = call(command, folder / "run.yaml")
    assert result.exit_code == 130
    assert result.stderr.startswith("stopped")
    assert hint in result.stderr
    assert (result.stderr == "stopped\n") == (not hint)


def test_module_runs_as_a_program(folder: Path) -> None:
    program = [sys.executable, "-m", "policy_ft", "show", str(folder / "nothing.yaml")]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
