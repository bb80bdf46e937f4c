"""Hooks: they see the run, may log and end it, have state of their own, and freeze nothing."""

import json
from collections.abc import Mapping

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from data_tools.formats.reader import open_dataset
from policy_ft import assemble
from policy_ft.checkpoints.weights import weights_hash
from policy_ft.errors import UserError
from policy_ft.training.hooks import Hook, RunView
from tests.policy_ft.test_methods import Stop


class Recorder(Hook):
    """Notes every call, and does at a step what it is asked to."""

    name = "recorder"

    def __init__(self, act=lambda run, step: None) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.total = torch.zeros(2)
        self._act = act

    def begin(self, run: RunView) -> None:
        self.run = run
        self.calls.append(("begin", len(run.plan.trained) > 0))

    def after_backward(self, train_step: int) -> None:
        weight = self.run.policy.model.expert.action_out_proj.weight
        self.calls.append(("backward", train_step, weight.grad is not None))

    def after_step(self, train_step: int) -> Mapping[str, float]:
        self._act(self.run, train_step)
        self.calls.append(("step", train_step))
        self.total += train_step
        return {"steps": float(train_step)}

    def after_measure(self, train_step: int, kind: str, values: Mapping[str, float]) -> None:
        self.calls.append(("measure", train_step, kind, "loss" in values))

    def state_dict(self):
        return {"total": self.total, "calls": len(self.calls)}

    def load_state_dict(self, state) -> None:
        self.total, self.loaded = state["total"].clone(), state["calls"]


def test_a_hook_is_called_at_each_place_and_what_it_returns_is_logged(run_config):
    recorder = Recorder()
    config = run_config(training={"steps": 2, "log_every": 2}, validation={"every": 2})
    result = assemble.train(config, methods=[recorder])
    assert recorder.calls == [
        ("begin", True),
        ("backward", 1, True),
        ("step", 1),
        ("backward", 2, True),
        ("step", 2),
        ("measure", 2, "validation", True),
    ]
    assert result.metrics[0]["recorder/steps"] == 1.5


def test_tensors_and_json_of_a_hook_come_back(run_config):
    config = run_config(training={"steps": 3})
    last = assemble.train(config, methods=[Recorder()]).last_checkpoint
    assert load_file(last / "training_state" / "hook_recorder.safetensors")["total"].tolist() == [
        6,
        6,
    ]
    saved = json.loads((last / "training_state" / "state.json").read_text())
    assert saved["hooks"]["recorder"] == {"calls": 8}
    again = Recorder()
    assemble.train(run_config(training={"steps": 4}), methods=[again], resume=True)
    assert again.loaded == 8
    assert again.total.tolist() == [10, 10]


def test_a_hook_may_change_gradients_before_they_are_clipped(run_config):
    class Doubled(Hook):
        name = "doubled"

        def begin(self, run: RunView) -> None:
            self.model = run.policy.model

        def after_backward(self, train_step: int) -> None:
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(2.0)

    norms = []
    for name, hooks in (("plain", []), ("doubled", [Doubled()])):
        directory = run_config().output_dir + name
        config = run_config(training={"steps": 1, "log_every": 1}, output_dir=directory)
        norms.append(assemble.train(config, methods=hooks).metrics[0]["grad_norm"])
    assert norms[1] == pytest.approx(2 * norms[0], rel=1e-5)


@pytest.mark.parametrize("place", ["step", "measure"])
def test_a_hook_ends_the_run_and_resuming_does_not_go_on(run_config, capsys, place):
    class Enough(Hook):
        name = "enough"

        def begin(self, run: RunView) -> None:
            self.run = run

        def after_step(self, train_step: int) -> Mapping[str, float]:
            if place == "step" and train_step == 4:
                self.run.request_stop("it is enough")
            return {}

        def after_measure(self, train_step: int, kind: str, values: Mapping[str, float]) -> None:
            if place == "measure" and train_step == 4:
                self.run.request_stop("it is enough")

    config = run_config(
        training={"steps": 9, "save_every": 3}, validation={"every": 2, "num_windows": 4}
    )
    result = assemble.train(config, methods=[Enough()])
    assert result.last_checkpoint.name == "step_00000004"
    validated = [row["train_step"] for row in result.metrics if row["kind"] == "validation"]
    assert validated == [2, 4]
    assert "stopped after step 4: it is enough" in capsys.readouterr().out
    again = assemble.train(config, methods=[Enough()], resume=True)
    assert again.last_checkpoint == result.last_checkpoint
    assert "the run was stopped after step 4 (it is enough); nothing to do" in " ".join(
        capsys.readouterr().out.split()
    )


def test_a_hook_scales_the_rates_and_a_resumed_run_keeps_them(run_config):
    def halve(run: RunView, step: int) -> None:
        if step == 2:
            run.scale_rates(0.5)

    optimizer = {"schedule": "constant", "warmup_steps": 0}
    rates = []
    for steps in (3, 4):
        training = {"steps": steps, "log_every": 1, "save_every": 3}
        config = run_config(training=training, optimizer=optimizer)
        result = assemble.train(config, methods=[Recorder(halve)], resume=steps == 4)
        rates = [row["lr"] for row in result.metrics if row["kind"] == "train"]
    assert rates == pytest.approx([1e-3, 1e-3, 5e-4, 5e-4])


def test_a_hook_that_freezes_is_refused(run_config):
    def freeze(run: RunView, step: int) -> None:
        run.policy.model.backbone.projector.weight.requires_grad_(False)

    fault = r"hooks \['average', 'recorder'\]: found requires_grad changed of 1 parameters, first "
    with pytest.raises(UserError, match=fault + r"'backbone.projector.weight'.*tuning.phases"):
        assemble.train(run_config(), methods=[Recorder(freeze)])


def test_the_average_is_a_hook_whose_state_is_the_policy_itself(run_config):
    last = assemble.train(run_config()).last_checkpoint
    saved = json.loads((last / "training_state" / "state.json").read_text())
    assert saved["hooks"] == {"average": {"num_updates": 6}}
    assert not list((last / "training_state").glob("hook_*"))


def trained_in_memory(run_config, tmp_path) -> tuple[dict[str, Tensor], object]:
    config = run_config(output_dir=str(tmp_path / "nowhere"))
    episodes = open_dataset(list(config.data.path))
    policy = assemble.build_policy(config, episodes)
    result = assemble.build_trainer(config, policy, episodes, in_memory=True).run()
    assert not (tmp_path / "nowhere").exists()
    return policy, result


def test_a_run_in_memory_leaves_no_file_and_the_same_weights(run_config, tmp_path):
    on_disk = assemble.train(run_config())
    policy, result = trained_in_memory(run_config, tmp_path)
    assert weights_hash(policy.model) == weights_hash(
        load_file(on_disk.last_checkpoint / "model.safetensors")
    )
    assert not policy.model.training
    assert result.train_step == 6
    kinds = [(row["train_step"], row["kind"]) for row in result.records]
    assert kinds == [(row["train_step"], row["kind"]) for row in on_disk.metrics]
    assert result.best is not None


def test_unfreezing_in_phases_moves_each_part_in_its_time_and_resumes_to_the_bit(
    run_config, tmp_path
):
    def config_of(name: str):
        return run_config(
            output_dir=str(tmp_path / name),
            training={"steps": 6, "save_every": 2, "keep": 9},
            tuning={
                "groups": [
                    {"pattern": "vision", "frozen": True},
                    {"pattern": "language", "frozen": True},
                ],
                "phases": [
                    {"start": 2, "groups": [{"pattern": "vision", "frozen": True}]},
                    {"start": 4, "groups": []},
                ],
                "ema": "off",
            },
        )

    whole = assemble.train(config_of("whole"), methods=[Stop()])
    weights = {
        step: load_file(whole.last_checkpoint.parent / f"step_{step:08d}" / "model.safetensors")
        for step in (2, 4, 6)
    }

    def moved(before: int, after: int) -> set[str]:
        return {
            name.split(".")[1]
            for name, value in weights[after].items()
            if name.startswith("backbone.") and not torch.equal(value, weights[before][name])
        }

    assert "language" in moved(2, 4)
    assert "vision" not in moved(2, 4)
    assert "vision" in moved(4, 6)
    for after in (3, 5):
        with pytest.raises(KeyboardInterrupt):
            assemble.train(config_of("parts"), methods=[Stop(after)], resume=after > 3)
    parts = assemble.train(config_of("parts"), methods=[Stop()], resume=True)
    assert weights_hash(load_file(parts.last_checkpoint / "model.safetensors")) == weights_hash(
        weights[6]
    )
