"""Does a policy look and listen? Success as it is, without images, and told of another object.

Prints one table and writes one JSON file. All three runs use the same seeds. A policy that looks
and listens fails blind; told of another object it misses the commanded one and still meets the
goal with some object.

    python benchmarks/grounding.py policy_ft/assets/tabletop_base --task reach+push+pick
"""

import argparse
import json
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from eval_envs.episodes import seeded_suite
from eval_envs.perturb import BlankImages, SwappedInstruction
from eval_envs.pool import LocalPool
from policy_ft.checkpoints.native import weights_hash
from policy_ft.evaluation.rollout import evaluate
from policy_ft.evaluation.tables import HEADER, success_rows
from policy_ft.execution.chunks import recorded_replan_steps
from policy_ft.execution.executor import RecedingHorizon
from policy_ft.execution.threads import ROLLOUT_THREADS
from policy_ft.formats.load import load_policy

CONTROLS = {
    "as it is": (),
    "blank images": (BlankImages,),
    "another object named": (SwappedInstruction,),
}


def main() -> None:
    """Run the three conditions."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--task", default="reach+push+pick")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=2_000_000)
    parser.add_argument("--json", type=Path, default=Path("runs/grounding.json"))
    options = parser.parse_args()
    torch.set_num_threads(ROLLOUT_THREADS)
    policy = load_policy(options.checkpoint)
    seeds = range(options.seed, options.seed + options.episodes)
    suite = seeded_suite("eval_envs:Tabletop-v0", {"task": options.task}, seeds)
    results = {}
    for name, wrappers in CONTROLS.items():
        with LocalPool(10, wrappers) as pool:
            results[name] = evaluate(
                policy,
                suite,
                pool=pool,
                executor=RecedingHorizon(recorded_replan_steps(policy.provenance)),
                num_sampling_steps=policy.config.num_sampling_steps,
            )
    table = Table(*HEADER, title=f"{options.checkpoint}, {options.task}", title_justify="left")
    for row in success_rows(results):
        table.add_row(*row)
    Console().print(table)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "checkpoint": str(options.checkpoint),
        "weights_sha256": weights_hash(policy.model),
        **{name: result.summary() for name, result in results.items()},
    }
    options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="ascii")
    print(f"wrote {options.json}")


if __name__ == "__main__":
    main()
