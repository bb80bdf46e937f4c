"""What the pretrained base is worth: the quickstart from it and from random weights, same budget.

Prints one table and writes one JSON file. Seed by seed both runs have the same demonstrations,
steps, order of samples and held-out episodes; only the starting weights differ. A paired test is
made within each seed: it compares two trained policies. What the start is worth is told by the
seeds' differences, their mean and range; episodes of different seeds are not pooled.

    python benchmarks/quickstart_baseline.py --seeds 3
"""

import argparse
import json
import os
import platform
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table

from policy_ft.evaluation.results import EvaluationResult, compare_results
from policy_ft.evaluation.statistics import PairedComparison
from policy_ft.quickstart import QuickstartSettings, run_quickstart

STARTS = ("base", "random")


def main() -> None:
    """Run every seed from both starts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--output", type=Path, default=Path("runs/quickstart_baseline"))
    options = parser.parse_args()
    console = Console()
    summaries: dict[str, list[dict[str, Any]]] = {start: [] for start in STARTS}
    comparisons = []
    for seed in range(options.seeds):
        for start in STARTS:
            output = options.output / f"{start}_{seed}"
            settings = QuickstartSettings(output, start, seed, episodes=options.episodes)
            summaries[start].append(run_quickstart(settings, console))
        comparisons.append(compare_starts(options.output, seed))
    table = Table("start", *(f"seed {seed}" for seed in range(options.seeds)), "mean", "train s")
    for start, runs in summaries.items():
        rates = [run["finetuned"]["success_rate"] for run in runs]
        seconds = fmean(run["wall_s"]["train"] for run in runs)
        cells = [f"{100 * rate:.0f} %" for rate in (*rates, fmean(rates))]
        table.add_row(start, *cells, f"{seconds:.0f}")
    console.print(table)
    for seed, each in enumerate(comparisons):
        console.print(
            f"base over random, seed {seed}: {100 * each.difference:+.0f} points, 95 % interval "
            f"{100 * each.low:+.0f} to {100 * each.high:+.0f}, p = {each.p_value:.2g}"
        )
    differences = [each.difference for each in comparisons]
    console.print(
        f"mean of {len(differences)} seeds: {100 * fmean(differences):+.0f} points, from "
        f"{100 * min(differences):+.0f} to {100 * max(differences):+.0f}"
    )
    record = {
        "machine": f"{platform.platform()}, {os.cpu_count()} CPU cores",
        "mean": {
            start: fmean(run["finetuned"]["success_rate"] for run in runs)
            for start, runs in summaries.items()
        },
        "differences": differences,
        "comparisons": [each.model_dump() for each in comparisons],
        "runs": summaries,
    }
    path = options.output / "summary.json"
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="ascii")
    print(f"wrote {path}")


def compare_starts(output: Path, seed: int) -> PairedComparison:
    """The policies fine-tuned from both starts on the held-out episodes of one seed."""
    results = {}
    for start in STARTS:
        record = json.loads((output / f"{start}_{seed}" / "evaluations.json").read_text())
        results[start] = EvaluationResult.model_validate(record["finetuned"]["evaluation"])
    return compare_results(results["random"], results["base"])


if __name__ == "__main__":
    main()
