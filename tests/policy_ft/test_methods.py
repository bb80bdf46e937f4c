"""Methods of a run: asked for by settings, named by their class, or given; each resumes exactly."""

import json
import re
from collections.abc import Mapping

import pytest
import torch
from safetensors.torch import load_file

from data_tools.formats.reader import open_dataset
from policy_ft import assemble
from policy_ft.checkpoints.weights import weights_hash
from policy_ft.config.run import RunConfig
from policy_ft.errors import UserError
from policy_ft.models.objective import Objective, Term
from policy_ft.training.hooks import Hook, RunView

OWN = "tests.policy_ft.test_methods"
OLD = ["reach for it", "lift the cube"]
METHODS = {
    "lwf, velocity": {"objectives": {"lwf": {"sentences": OLD, "share": 0.5}}},
    "lwf, chunk": {"objectives": {"lwf": {"sentences": OLD, "target": "chunk", "share": 1.0}}},
    "l2_sp": {"objectives": {"l2_sp": {"weight": 0.1}}},
    "plateau": {"optimizer": {"plateau": {"patience": 1}}},
    "early_stop": {"training": {"early_stop": {"patience": 2}}},
    "phases": {
        "tuning": {
            "groups": [{"pattern": "vision", "frozen": True}],
            "phases": [{"start": 0.5, "groups": [], "warmup_steps": 3}],
        }
    },
    "phase that waits": {
        "optimizer": {"lr": 1e-9, "final_lr": 0.0},
        "tuning": {
            "groups": [
                {"pattern": "vision", "frozen": True},
                {"pattern": "language", "frozen": True},
            ],
            "phases": [
                {"start": {"patience": 1}, "groups": [{"pattern": "vision", "frozen": True}]},
                {"start": {"patience": 1}, "groups": [], "warmup_steps": 2},
            ],
        },
    },
    "augmentation": {
        "data": {
            "augmentation": {
                "crop": 0.9,
                "rotation_deg": 10,
                "saturation": 0.5,
                "state_noise": 0.1,
                "instruction_dropout": 0.2,
            }
        }
    },
    "layer-wise rates": {"tuning": {"groups": [{"pattern": "language", "lr_decay": 0.5}]}},
    "own": {
        "methods": [
            {"path": f"{OWN}:Towards", "args": {"weight": 0.1}},
            {"path": f"{OWN}:Tally"},
        ]
    },
}


class Towards(Hook, Objective):
    """The absolute way from the start, and how often it was asked for."""

    name = "towards"

    def __init__(self, weight: float) -> None:
        self.weight, self.calls = weight, 0

    def begin(self, run: RunView) -> None:
        start = dict(run.starting_policy().model.named_parameters())
        self.start = {name: start[name] for name in run.plan.trained}

    def __call__(self, model, prefix, batch) -> Mapping[str, Term]:
        own = dict(model.named_parameters())
        ways = [(own[name] - value).abs().sum() for name, value in self.start.items()]
        return self.penalty(torch.stack(ways).sum(), self.weight)

    def after_step(self, train_step: int) -> Mapping[str, float]:
        self.calls += 1
        return {"calls": float(self.calls)}

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state) -> None:
        self.calls = state["calls"]


class Tally(Hook):
    name = "tally"


class Stop(Hook):
    """Kills the run before it has done all that was asked for."""

    name = "stop"

    def __init__(self, after: int | None = None) -> None:
        self.after = after

    def after_step(self, train_step: int) -> Mapping[str, float]:
        if train_step == self.after:
            raise KeyboardInterrupt
        return {}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ema", ["off", "on"])
def test_a_run_that_was_killed_ends_in_the_same_bits(run_config, tmp_path, method, ema):
    def config_of(name: str):
        settings = {
            "output_dir": str(tmp_path / name),
            "training": {"steps": 6, "save_every": 2, "deterministic": True, "keep": 9},
            "validation": {"every": 1, "num_windows": 4},
            "tuning": {"ema": "off"} if ema == "off" else {},
        }
        for block, values in METHODS[method].items():
            both = isinstance(values, dict)
            settings[block] = {**settings.get(block, {}), **values} if both else values
        return run_config(**settings)

    whole = assemble.train(config_of("whole"), methods=[Stop()])
    with pytest.raises(KeyboardInterrupt):
        assemble.train(config_of("parts"), methods=[Stop(5)])
    parts = assemble.train(config_of("parts"), methods=[Stop()], resume=True)
    hashes = [
        weights_hash(load_file(run.last_checkpoint / "model.safetensors")) for run in (whole, parts)
    ]
    assert hashes[0] == hashes[1]
    states = [
        json.loads((run.last_checkpoint / "training_state" / "state.json").read_text())
        for run in (whole, parts)
    ]
    for key in ("hooks", "lr_factor", "recent"):
        assert states[0][key] == states[1][key]


def test_l2_sp_tells_the_squared_way_from_the_start_and_shortens_it(run_config, tmp_path):
    ways = {}
    for weight in (1e-6, 10.0):
        config = run_config(
            output_dir=str(tmp_path / str(weight)),
            training={"steps": 6, "log_every": 6},
            tuning={"ema": "off"},
            objectives={"l2_sp": {"weight": weight}},
        )
        start = assemble.build_policy(config, open_dataset(list(config.data.path))).model
        result = assemble.train(config)
        end = load_file(result.last_checkpoint / "model.safetensors")
        ways[weight] = sum(
            (end[name].double() - value.double()).square().sum().item()
            for name, value in start.named_parameters()
            if name in end
        )
        told = [row["l2_sp"] for row in result.metrics if row["kind"] == "validation"]
        assert told[-1] == pytest.approx(ways[weight], rel=1e-4)
    assert ways[10.0] < 0.5 * ways[1e-6]


def standing_still(run_config, *, optimizer=None, training=None, tuning=None, steps=5):
    """A run whose rate is so low that no validation is better than the first."""
    rates = {"lr": 1e-12, "final_lr": 0.0, "schedule": "constant", "warmup_steps": 0}
    return run_config(
        training={"steps": steps, "log_every": 1, **(training or {})},
        validation={"every": 1, "num_windows": 4},
        optimizer={**rates, **(optimizer or {})},
        tuning={"ema": "off", **(tuning or {})},
    )


def test_rates_fall_on_a_plateau(run_config, capsys):
    config = standing_still(run_config, optimizer={"plateau": {"patience": 2, "factor": 0.25}})
    rates = [row["lr"] for row in assemble.train(config).metrics if row["kind"] == "train"]
    # nothing moves at such a rate: steps 2 and 3 are no better than step 1, nor are 4 and 5
    assert rates == pytest.approx([1e-12, 1e-12, 1e-12, 2.5e-13, 2.5e-13])
    assert "step 3: 2 measurements by validation were no better; rates times 0.25" in said(capsys)


def said(capsys) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_a_run_that_stands_still_ends_early_and_stays_ended(run_config, capsys):
    config = standing_still(run_config, training={"early_stop": {"patience": 2}}, steps=9)
    result = assemble.train(config)
    assert result.last_checkpoint.name == "step_00000003"
    assert result.best_checkpoint.name == "step_00000001"
    assert "stopped after step 3: 2 measurements by validation were no better" in said(capsys)
    assert assemble.train(config, resume=True).last_checkpoint == result.last_checkpoint


def test_phases_that_wait_begin_one_after_the_other(run_config, capsys):
    frozen = [{"pattern": name, "frozen": True} for name in ("vision", "language")]
    phases = [
        {"start": {"patience": 2}, "groups": frozen[:1]},
        {"start": {"patience": 1}, "groups": []},
    ]
    assemble.train(standing_still(run_config, tuning={"groups": frozen, "phases": phases}, steps=6))
    told = said(capsys)
    assert "step 3: 2 measurements by validation were no better; phase 1 begins" in told
    assert "parameter groups from step 3 on" in told
    # the best of before still stands: the first measurement of phase 1 is no better
    assert "step 4: 1 measurements by validation were no better; phase 2 begins" in told
    assert "parameter groups from step 4 on" in told


class Infinite(Hook):
    name = "infinite"

    def state_dict(self):
        return {"best": float("inf")}


class NoMethod:
    name = "none"


@pytest.mark.parametrize(
    ("methods", "faults"),
    [
        ([{"path": f"{OWN}:Missing"}], ["methods.0.path: found ", "PYTHONPATH"]),
        ([{"path": "no_such_module:Missing"}], ["methods.0.path: found ", "PYTHONPATH"]),
        ([{"path": f"{OWN}:NoMethod"}], ["a class derived from Hook", "Derive it"]),
        ([{"path": f"{OWN}:Tally", "args": {"a": 1}}], ["methods.0.args: found ", "Tally()"]),
        ([{"path": f"{OWN}:Tally"}] * 2, ["2 of the name 'tally'"]),
        (
            [{"path": f"{OWN}:Tally", "args": {"a": 1}}, {"path": f"{OWN}:Missing"}],
            ["methods.0.args", "methods.1.path"],
        ),
    ],
)
def test_methods_that_cannot_be_made_are_told_by_check_and_train(run_config, methods, faults):
    config = run_config(methods=methods)
    told = "\n".join(assemble.check(config))
    with pytest.raises(UserError) as refused:
        assemble.train(config)
    for fault in faults:
        assert fault in told
        assert fault in str(refused.value)


def test_a_state_that_json_cannot_hold_is_told_before_it_is_lost(run_config):
    with pytest.raises(UserError, match=r"the hooks \['average', 'infinite'\] log or save: found"):
        assemble.train(run_config(), methods=[Infinite()])


def test_resuming_without_a_method_that_was_given_is_refused(run_config):
    config = run_config(training={"steps": 1})
    assemble.train(config, methods=[Tally(), Towards(0.1)])
    expected = re.escape("methods given in Python: found []; expected ['tally', 'towards']")
    with pytest.raises(UserError, match=expected):
        assemble.train(config, resume=True)


def test_resuming_on_a_base_that_was_replaced_is_refused(run_config, tmp_path):
    first = assemble.train(run_config(training={"steps": 1}, output_dir=str(tmp_path / "first")))
    other = assemble.train(run_config(training={"steps": 2}, output_dir=str(tmp_path / "other")))
    base = tmp_path / "base"
    first.last_checkpoint.rename(base)

    def config_of(steps: int):
        values = run_config(
            training={"steps": steps, "save_every": 1},
            objectives={"l2_sp": {"weight": 0.1}},
            output_dir=str(tmp_path / "run"),
        ).model_dump()
        values["policy"] = {"kind": "pretrained", "path": str(base)}
        return RunConfig.model_validate(values)

    assemble.train(config_of(1))
    base.rename(tmp_path / "away")
    other.last_checkpoint.rename(base)
    with pytest.raises(UserError, match=r"policy.path: found weights .*which the run began with"):
        assemble.train(config_of(2), resume=True)
