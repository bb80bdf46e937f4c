"""policy-ft plan: the memory that a run needs, and what to change where it is too much."""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
import yaml
from rich.table import Column, Table

from data_tools.view.tables import print_table
from policy_ft.assemble.memory import GB, RunMemory, memory_of
from policy_ft.commands.options import ConfigFile, Overrides
from policy_ft.config.config_file import load_config
from policy_ft.config.run import RunConfig
from policy_ft.errors import UserError, describe

app = typer.Typer()

CONTEXT_GB = 0.7
"""What CUDA itself and its libraries take of a GPU, before any tensor."""


@app.command()
def plan(
    config: ConfigFile,
    overrides: Overrides = [],  # noqa: B006 - typer reads the default and never changes it
    gpu_gb: Annotated[
        float | None, typer.Option(help="Memory of a GPU, in 10^9 bytes: what fits in it?")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="GPUs of the run.")] = 1,
    samples_per_second: Annotated[
        float | None, typer.Option(help="Of the whole run: how long does it take?")
    ] = None,
    on_cpu: Annotated[
        bool, typer.Option("--cpu", help="Plan for a CPU, where precision auto is fp32.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Count the memory that a run needs, before there is a GPU or a checkpoint."""
    run = memory_of(load_config(config, overrides), num_processes=processes, on_cpu=on_cpu)
    budget = None if gpu_gb is None else gpu_gb - (0.0 if on_cpu else CONTEXT_GB)
    facts = facts_of(run, budget, samples_per_second)
    if as_json:
        print(json.dumps(facts))
    else:
        _print(run, facts)
    if budget is None or run.plan.peak <= budget * GB:
        return
    fitting = next(cheaper(run, budget), None)
    found = f"{facts['peak_gb']:.1f} GB at a micro-batch of {run.micro_batch}"
    expected = f"at most {budget:.1f} GB, what a card of {gpu_gb:g} GB leaves"
    if fitting is None:
        remedy = "Take a larger card, shard over more of them, or adapt fewer groups."
    else:
        change, peak = fitting
        remedy = (
            f"This needs {peak / GB:.1f} GB:\n{yaml.safe_dump(change, sort_keys=False)}".rstrip()
        )
    raise UserError(describe("memory", found, expected, remedy))


def facts_of(
    run: RunMemory, budget_gb: float | None = None, samples_per_second: float | None = None
) -> dict[str, Any]:
    """The plan in numbers: parameters, and 10^9 bytes of each kind.

    Args:
        run: that is planned.
        budget_gb: for the largest micro-batch.
        samples_per_second: for the duration.
    """
    found = run.plan
    facts: dict[str, Any] = {
        "parameters": found.parameters,
        "trainable": found.trainable,
        "micro_batch": found.micro_batch,
        "weights_gb": found.weights / GB,
        "gradients_gb": found.gradients / GB,
        "optimizer_gb": found.optimizer / GB,
        "ema_gb": found.average / GB,
        "start_gb": found.start / GB,
        "activations_gb": found.beside_gradients / GB,
        "activations_by_part_gb": {part: n / GB for part, n in found.activations.items()},
        "peak_gb": found.peak / GB,
        "max_micro_batch": None if budget_gb is None else run.largest_micro_batch(budget_gb),
    }
    if samples_per_second is not None:
        training = run.config.training
        facts["hours"] = training.steps * training.batch_size / samples_per_second / 3600
    return facts


def cheaper(run: RunMemory, budget_gb: float) -> Iterator[tuple[dict[str, Any], int]]:
    """Changes of the settings with which the run fits, the mildest first, and the peak then."""
    for change in _changes(run):
        changed = RunConfig.model_validate(_merged(run.config.model_dump(), change))
        edits = tuple(change.get("policy", {}).get("edits", ()))
        sizes = run.sizes.model_copy(update={"edits": (*run.sizes.edits, *edits)})
        other = RunMemory(changed, sizes, run.notes, run.num_processes, run.on_cpu)
        if other.plan.peak <= budget_gb * GB:
            yield change, other.plan.peak


def _changes(run: RunMemory) -> Iterator[dict[str, Any]]:
    """From what changes no result to what changes what is learned."""
    training: dict[str, Any] = {"activation_checkpointing": True}
    yield {"training": training}
    size, parts = run.micro_batch, run.config.training.accumulation_steps
    while size > 1 and size % 2 == 0:
        size, parts = size // 2, parts * 2
        yield {"training": {**training, "accumulation_steps": parts}}
    training["accumulation_steps"] = parts
    if run.num_processes > 1 and not run.config.training.shard:
        training["shard"] = True
        yield {"training": training}
    yield {"training": training, "tuning": {"ema": "off"}}
    frozen = [{"pattern": "vision", "frozen": True}]
    yield {"training": training, "tuning": {"ema": "off", "groups": frozen}}
    if run.config.policy.kind == "pretrained" and not run.sizes.edits:
        lora = [{"kind": "lora", "target": ["language"], "rank": 32}]
        yield {
            "training": training,
            "tuning": {"ema": "off", "groups": frozen},
            "policy": {"edits": lora},
        }
        both = [*lora, {"kind": "lora", "target": ["expert"], "rank": 64}]
        yield {
            "training": training,
            "tuning": {"ema": "off", "groups": frozen},
            "policy": {"edits": both},
        }
    frozen = [{"pattern": name, "frozen": True} for name in ("vision", "projector", "language")]
    yield {"training": training, "tuning": {"ema": "off", "groups": frozen}}


def _merged(values: dict[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _print(run: RunMemory, facts: Mapping[str, Any]) -> None:
    for note in run.notes:
        print(f"note: {note}")
    found = run.plan
    table = Table("memory of one process", Column("GB", justify="right"), "what it is")
    rows = {
        "weights": (found.weights, f"{found.parameters:,} parameters"),
        "gradients": (found.gradients, f"{found.trainable:,} parameters learn"),
        "optimizer": (found.optimizer, "two moments of each that learns"),
        "average": (found.average, "tuning.ema"),
        "start": (found.start, "weights of the beginning, for an objective"),
        "activations": (
            found.beside_gradients,
            f"at the peak, for a micro-batch of {found.micro_batch}",
        ),
    }
    for name, (num_bytes, what) in rows.items():
        if num_bytes:
            table.add_row(name, f"{num_bytes / GB:.2f}", what)
    table.add_row("peak", f"{found.peak / GB:.2f}", "gradients and activations meet in part only")
    print_table(table)
    kept = Table("kept for the backward pass", Column("GB", justify="right"))
    for part, num_bytes in found.activations.items():
        kept.add_row(part, f"{num_bytes / GB:.2f}")
    print_table(kept)
    if facts["max_micro_batch"] is not None:
        print(f"largest micro-batch that fits: {facts['max_micro_batch']}")
    if "hours" in facts:
        print(f"the run takes {facts['hours']:.1f} hours")
