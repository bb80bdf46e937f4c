"""Measuring a run while it goes on: it neither costs a step nor binds the run to its settings."""

import json
import re
from pathlib import Path

import pytest
from safetensors.torch import load_file

from eval_envs.collect import collect
from policy_ft import assemble
from policy_ft.assemble import trainers
from policy_ft.checkpoints.weights import weights_hash
from policy_ft.config.run import RunConfig
from policy_ft.config.training import TrainingConfig
from policy_ft.errors import UserError
from policy_ft.training.directory import TrainResult
from policy_ft.training.hooks import Hook
from policy_ft.training.metrics import read_metrics

MEASURED = ("samples_per_s", "data_s", "encode_s", "step_s")

TABLETOP = {
    "env_args": {"task": "reach", "image_size": 32},
    "episodes": 1,
    "replan_steps": 4,
    "every": 2,
}


@pytest.fixture
def in_tabletop(run_config, small_model, tmp_path):
    """Settings of a run of four steps on demonstrations of the tabletop, with rollouts in it."""
    recipe = {"task": "reach", "num_episodes": 3, "seed": 0}
    path = collect(tmp_path / "reach.hdf5", env_args={"image_size": 32}, **recipe)

    def make(name: str, evaluation: object) -> RunConfig:
        return run_config(
            policy={"model": small_model(max_prompt_tokens=32)},
            data={"path": str(path)},
            training={"steps": 4, "save_every": 100, "keep": 10},
            validation={"every": 100},
            evaluation=evaluation,
            output_dir=str(tmp_path / name),
        )

    return make


def computed(directory: Path) -> list[dict[str, object]]:
    """The metrics of a run without its timings."""
    rows = read_metrics(directory)
    return [{k: v for k, v in row.items() if k not in MEASURED} for row in rows]


def state_hashes(checkpoint: Path) -> dict[str, str]:
    files = [
        checkpoint / "model.safetensors",
        *(checkpoint / "training_state").glob("*.safetensors"),
    ]
    return {file.name: weights_hash(load_file(file)) for file in files}


def best_of(checkpoint: Path) -> dict[str, object]:
    return json.loads((checkpoint / "training_state" / "state.json").read_text())["best"]


def test_a_failing_rollout_loses_no_step_and_the_run_goes_on_as_if_it_had_not_failed(
    in_tabletop, monkeypatch
):
    unbroken = assemble.train(in_tabletop("whole", TABLETOP))
    config = in_tabletop("broken", TABLETOP)

    def fail(*arguments: object, **settings: object) -> dict[str, float]:
        raise RuntimeError("the simulator is gone")

    with monkeypatch.context() as broken:
        broken.setattr(trainers, "success_in_rollouts", fail)
        with pytest.raises(RuntimeError, match="simulator is gone"):
            assemble.train(config)
    checkpoints = Path(config.output_dir) / "checkpoints"
    assert [path.name for path in checkpoints.glob("step_*")] == ["step_00000002"]
    resumed = assemble.train(config, resume=True)
    assert resumed.best_checkpoint.name == unbroken.best_checkpoint.name
    assert state_hashes(resumed.last_checkpoint) == state_hashes(unbroken.last_checkpoint)
    assert computed(resumed.directory) == computed(unbroken.directory)
    assert best_of(resumed.last_checkpoint) == best_of(unbroken.last_checkpoint)


def test_the_rollouts_of_a_run_may_change_when_it_goes_on(in_tabletop):
    config = in_tabletop("run", TABLETOP)
    other = {**TABLETOP, "env_args": {"task": "push", "image_size": 32}, "episodes": 2}
    unbroken = assemble.train(in_tabletop("whole", "off"))
    assemble.train(config.model_copy(update={"training": {**dict(config.training), "steps": 2}}))
    result = assemble.train(in_tabletop("run", other), resume=True)
    assert state_hashes(result.last_checkpoint) == state_hashes(unbroken.last_checkpoint)
    assert [row["num_episodes"] for row in result.metrics if row["kind"] == "rollout"] == [1, 2]
    assert best_of(result.last_checkpoint)["train_step"] == 4, "reach and push do not compare"


class StopAt(Hook):
    """A hook that ends the run after a step, before that is saved."""

    name = "stop"

    def __init__(self, step: int) -> None:
        self._step = step

    def after_step(self, train_step: int) -> dict[str, float]:
        if train_step == self._step:
            raise KeyboardInterrupt
        return {}


def test_the_best_checkpoint_outlives_a_change_of_what_measures_it(in_tabletop, capsys):
    """Step 2 is the best by one rollout; rollouts of another kind do not compare with it."""

    def train(steps: int, stop_at: int, **change: object) -> TrainResult:
        config = in_tabletop("run", {**TABLETOP, "every": 4, **change})
        training = {**dict(config.training), "steps": steps, "save_every": 1, "keep": 1}
        config = config.model_copy(update={"training": TrainingConfig(**training)})
        return assemble.train(config, resume=True, methods=[StopAt(stop_at)])

    best = train(2, stop_at=0).best_checkpoint
    weights = weights_hash(load_file(best / "model.safetensors"))
    for change in ({"seed": 77}, {"episodes": 2}, {"replan_steps": 3}):
        with pytest.raises(KeyboardInterrupt):
            train(4, stop_at=4, **change)
        kept = {path.name for path in best.parent.glob("step_*")}
        assert kept == {"step_00000002", "step_00000003"}
        assert (best.parent / "best").resolve() == best.resolve(), "nothing else is measured yet"
    capsys.readouterr()
    result = train(4, stop_at=0)
    assert result.best_checkpoint.name == "step_00000004"
    assert (best.parent / "best").resolve().name == "step_00000004"
    assert weights_hash(load_file(best / "model.safetensors")) == weights
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "step 2 (rollout_success_rate 0) was the best under other settings" in shown


def test_with_dropout_another_division_of_the_batch_is_refused_on_resuming(run_config, small_model):
    vision = small_model()["vision"]
    arguments = {**vision["tower_args"], "drop_path_rate": 0.2}
    model = small_model(vision={**vision, "tower_args": arguments})
    assemble.train(run_config(policy={"model": model}, training={"steps": 1}))
    config = run_config(policy={"model": model}, training={"accumulation_steps": 2})
    with pytest.raises(UserError, match=r"training.accumulation_steps: found 2; expected 1"):
        assemble.train(config, resume=True)
