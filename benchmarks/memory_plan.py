"""How near `policy-ft plan` comes to the bytes that a training step allocates, on a CPU.

A model of the architecture of pi0 with more than 1 GB of weights takes real steps with real
tensors; torch's profiler tells every allocation. Prints one table and writes one JSON file.

    python benchmarks/memory_plan.py
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from pi0_sizes import pi0_config
from rich.console import Console
from rich.table import Table
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile

from policy_ft.config.edits import Lora
from policy_ft.config.model import ModelConfig
from policy_ft.config.optimizer import OptimizerConfig
from policy_ft.config.tuning import GroupRule
from policy_ft.models.build import build_model
from policy_ft.models.vla import VLAModel
from policy_ft.objectives.flow import Flow
from policy_ft.training.optimizer import build_optimizer
from policy_ft.tuning.averaging import Ema
from policy_ft.tuning.memory import StepShape, example_batch, plan_memory, step_loss
from policy_ft.tuning.plan import Phase, TuningPlan, plan_tuning

FROZEN = tuple(GroupRule(pattern=name, frozen=True) for name in ("vision", "projector", "language"))
LORA = (
    Lora(kind="lora", target=["language"], rank=16),
    Lora(kind="lora", target=["expert"], rank=16),
)
CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "checkpointing": {"checkpointed": True},
    "frozen backbone": {"rules": FROZEN},
    "LoRA": {"edits": LORA},
    "bf16": {"dtype": torch.bfloat16},
}


def main() -> None:
    """Plan and measure every case."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--micro-batch", type=int, default=2)
    parser.add_argument("--tiny", action="store_true", help="a small model, to try the script")
    parser.add_argument("--output", type=Path, default=Path("runs/memory_plan.json"))
    options = parser.parse_args()
    sizes = {"vision": (64, 2, 2, 128), "language": (64, 2, 32, 256), "expert": (64, 128)}
    large = {"vision": (768, 12, 12, 3072), "language": (1024, 12, 128, 4096)}
    chosen = sizes if options.tiny else {**large, "expert": (512, 2048)}
    config = pi0_config(**chosen, vocabulary=4096 if options.tiny else 64_000)
    table = Table("case", "weights GB", "planned GB", "measured GB", "error")
    found = {}
    for name, case in CASES.items():
        row = compare(config, case, options.micro_batch)
        found[name] = row
        error = f"{100 * (row['planned'] / row['measured'] - 1):+.1f} %"
        numbers = (f"{row[key] / 1e9:.3f}" for key in ("weights", "planned", "measured"))
        table.add_row(name, *numbers, error)
    Console().print(table)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(found, indent=2) + "\n", encoding="ascii")
    print(f"wrote {options.output}")


def compare(config: ModelConfig, case: dict[str, Any], micro_batch: int) -> dict[str, int]:
    """Planned and measured bytes of one case."""
    config = config.model_copy(update={"edits": case.get("edits", ())})

    def plan_of(model: VLAModel) -> TuningPlan:
        phases = [Phase(0, case.get("rules", ()))]
        return plan_tuning(model, phases, OptimizerConfig(), Flow().reaches(model))

    shape = StepShape((Flow(),), case.get("dtype"), checkpointed=case.get("checkpointed", False))
    planned = plan_memory(config, plan_of, shape, micro_batch)
    measured = allocated(config, plan_of, shape, micro_batch)
    return {"weights": planned.weights, "planned": planned.peak, "measured": measured}


def allocated(config: ModelConfig, plan_of: Any, shape: StepShape, micro_batch: int) -> int:
    """Most bytes that tensors had at once in the second step of a real run, weights included."""
    model = build_model(config)
    plan = plan_of(model)
    plan.at(0).apply(model)
    model.checkpoint_activations(shape.checkpointed)
    optimizer = build_optimizer(model, plan, OptimizerConfig())
    average = Ema({n: p for n, p in model.named_parameters() if n in plan.trained}, 0.99)

    def step() -> None:
        batch = example_batch(config, micro_batch, shape.noise_draws)
        step_loss(model, shape, batch).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update()

    step()
    standing = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    trained = sum(p.numel() for n, p in model.named_parameters() if n in plan.trained)
    standing += 12 * trained  # two moments and the average
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    return standing + peak_of(profiler)


def peak_of(profiler: Any) -> int:
    """Most bytes alive at once of what was allocated while the profiler ran."""
    changes = []
    todo = list(profiler.profiler.kineto_results.experimental_event_tree())
    while todo:
        event = todo.pop()
        todo += event.children
        if event.tag == _EventType.Allocation:
            changes.append((event.start_time_ns, event.extra_fields.alloc_size))
    now = peak = 0
    for _, size in sorted(changes, key=lambda change: change[0]):
        now += size
        peak = max(peak, now)
    return peak


if __name__ == "__main__":
    main()
