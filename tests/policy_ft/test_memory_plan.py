"""`policy-ft plan`: its bytes are those of a real step, and what it advises fits and is valid."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from policy_ft.assemble.memory import GB, memory_of
from policy_ft.cli import app
from policy_ft.commands.plan import cheaper
from policy_ft.config.config_file import load_config
from policy_ft.config.edits import Lora
from policy_ft.config.optimizer import OptimizerConfig
from policy_ft.config.tuning import GroupRule
from policy_ft.errors import UserError
from policy_ft.formats.full_sizes import FULL_SIZES
from policy_ft.models.build import build_model
from policy_ft.objectives.flow import Flow
from policy_ft.tuning.memory import (
    LiveBytes,
    StepShape,
    example_batch,
    largest_micro_batch,
    plan_memory,
    step_loss,
)
from policy_ft.tuning.plan import Phase, plan_tuning
from tests.policy_ft.conftest import small_model_config

ROOT = Path(__file__).parents[2]
FROZEN = tuple(GroupRule(pattern=n, frozen=True) for n in ("vision", "projector", "language"))
PUBLISHED = {"pi0": 3_238_048_528, "pi05": 3_353_433_872, "smolvla": 402_737_376}
"""Parameters of the published files, without heads that nothing computes with."""


def plan_of(rules=()):
    return lambda model: plan_tuning(
        model, [Phase(0, rules)], OptimizerConfig(), Flow().reaches(model)
    )


def measured(config, rules, shape: StepShape, micro_batch: int) -> int:
    """Most bytes beside what stands in a step with real numbers."""
    model = build_model(config)
    plan_of(rules)(model).at(0).apply(model)
    model.checkpoint_activations(shape.checkpointed)
    live = LiveBytes((*model.parameters(), *model.buffers()))
    with live:
        batch = example_batch(config, micro_batch, shape.noise_draws)
        step_loss(model, shape, batch).backward()
    return live.peak


@pytest.mark.parametrize(
    ("rules", "edits", "settings"),
    [
        ((), (), {}),
        ((), (), {"checkpointed": True, "noise_draws": 3}),
        (FROZEN, (), {}),
        ((), (Lora(kind="lora", target="language", rank=4),), {}),
        ((), (), {"autocast_dtype": torch.bfloat16}),
    ],
    ids=["full", "checkpointed", "frozen", "lora", "bf16"],
)
def test_what_is_planned_without_numbers_is_what_a_step_takes(rules, edits, settings):
    config = small_model_config(edits=edits)
    shape = StepShape(**{"objectives": (Flow(),), "autocast_dtype": None, **settings})
    planned = plan_memory(config, plan_of(rules), shape, 4)
    assert planned.working == pytest.approx(measured(config, rules, shape, 4), rel=0.02)
    model = build_model(config)
    tensors = (*model.parameters(), *model.buffers())
    assert planned.weights == sum(t.numel() * t.element_size() for t in tensors)
    trained = sum(dict(model.named_parameters())[n].numel() for n in plan_of(rules)(model).trained)
    assert (planned.trainable, planned.optimizer) == (trained, 8 * trained)


def test_checkpointing_and_freezing_are_seen_where_they_save():
    config = small_model_config()
    shape = StepShape((Flow(),), None)
    full = plan_memory(config, plan_of(), shape, 8)
    frozen = plan_memory(config, plan_of(FROZEN), shape, 8)
    saved = plan_memory(config, plan_of(), StepShape((Flow(),), None, checkpointed=True), 8)
    assert full.activations["vision"] > 0
    assert frozen.activations["vision"] == 0
    assert saved.activations["vision"] < 0.5 * full.activations["vision"]
    assert frozen.gradients < full.gradients


@pytest.mark.parametrize("family", PUBLISHED)
def test_published_sizes_have_the_published_number_of_parameters(family):
    with torch.device("meta"):
        model = build_model(FULL_SIZES[family])
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED[family]
    assert FULL_SIZES[family].family == family


def test_the_largest_micro_batch_is_the_last_that_fits():
    config = small_model_config()

    def plan_at(micro_batch: int):
        return plan_memory(config, plan_of(), StepShape((Flow(),), None), micro_batch)

    budget = (plan_at(5).peak + plan_at(6).peak) / 2
    assert largest_micro_batch(plan_at, budget) == 5
    assert largest_micro_batch(plan_at, plan_at(1).peak - 1) == 0


def test_a_plan_of_a_policy_that_is_not_here_uses_its_published_sizes_and_says_so():
    run = memory_of(load_config(ROOT / "configs" / "smolvla_libero.yaml"))
    assert "planned with the published sizes of smolvla" in run.notes[0]
    assert run.plan.parameters == PUBLISHED["smolvla"]
    unknown = load_config(ROOT / "configs" / "smolvla_libero.yaml", ["policy.path=runs/none"])
    with pytest.raises(UserError, match=r"policy.path: found 'runs/none'; expected a checkp"):
        memory_of(unknown)


def test_what_is_advised_fits_and_is_a_valid_run():
    config = load_config(
        ROOT / "configs" / "quickstart.yaml", [f"policy.path={ROOT}/policy_ft/assets/tabletop_base"]
    )
    run = memory_of(config, on_cpu=True)
    budget = 0.6 * run.plan.peak / GB
    change, peak = next(cheaper(run, budget))
    assert peak <= budget * GB
    overrides = [
        f"{block}.{key}={yaml.safe_dump(value, default_flow_style=True).strip()}"
        for block, values in change.items()
        for key, value in values.items()
    ]
    overrides = [each.removesuffix("\n...") for each in overrides]
    changed = load_config(
        ROOT / "configs" / "quickstart.yaml",
        [f"policy.path={ROOT}/policy_ft/assets/tabletop_base", *overrides],
    )
    assert memory_of(changed, on_cpu=True).plan.peak == peak


def test_the_command_prints_json_and_refuses_what_cannot_fit(monkeypatch):
    monkeypatch.chdir(ROOT)
    call = CliRunner().invoke
    said = call(app, ["plan", "configs/quickstart.yaml", "--json", "--samples-per-second", "100"])
    facts = json.loads(said.output)
    keys = "parameters trainable weights_gb gradients_gb optimizer_gb ema_gb activations_gb peak_gb"
    assert {*keys.split(), "max_micro_batch"} <= facts.keys()
    assert facts["hours"] == pytest.approx(500 * 64 / 100 / 3600)
    refused = call(app, ["plan", "configs/quickstart.yaml", "--cpu", "--gpu-gb", "0.1"])
    assert refused.exit_code == 2
    assert "activation_checkpointing: true" in refused.output
