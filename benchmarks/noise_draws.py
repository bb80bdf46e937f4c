"""Whether several noise draws an observation learn more in the same CPU time than one.

Trains the small policy of configs/pretrain_tabletop.yaml from random weights, for each number of
draws as many steps as fit into the same CPU seconds, each with a schedule of its own length. Runs
of one seed share weights, data and validation. Prints one table and writes one JSON file.

    python benchmarks/noise_draws.py --draws 1 4 8 --seeds 3 --seconds 75
"""

import argparse
import json
from pathlib import Path
from statistics import fmean
from typing import Any

from cpu_clock import CpuClock
from rich.console import Console
from rich.table import Table

from policy_ft import assemble
from policy_ft.config.config_file import load_config

RECIPE = Path("configs/pretrain_tabletop.yaml")
CALIBRATION_STEPS = 12


def train(draws: int, seed: int, steps: int, output: Path) -> tuple[float, float, CpuClock]:
    """The validation loss and action_mse after so many steps, and the clock."""
    settings = {
        "output_dir": output,
        "seed": seed,
        "data.path": "data/noise_draws.hdf5",
        "data.collect.num_episodes": 300,
        "data.validation_fraction": 0.1,
        "training.noise_draws": draws,
        "training.steps": steps,
        "training.num_threads": 1,
        "training.save_every": steps,
        "optimizer.warmup_steps": max(steps // 25, 1),
        "optimizer.decay_steps": steps,
        "tuning.ema.decay": 0.99,
        "validation.every": steps,
        "evaluation": "off",
    }
    config = load_config(RECIPE, [f"{name}={value}" for name, value in settings.items()])
    clock = CpuClock()
    last = assemble.train(config, methods=[clock]).metrics[-1]
    return last["loss"], last["action_mse"], clock


def main() -> None:
    """Calibrate, train, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--draws", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=75.0, help="CPU seconds of each run")
    parser.add_argument("--output", type=Path, default=Path("runs/noise_draws"))
    options = parser.parse_args()
    calibrated = {
        draws: train(draws, 0, CALIBRATION_STEPS, options.output / f"calibration_{draws}")[
            2
        ].step_s()
        for draws in options.draws
    }
    rows: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        for draws, step_s in calibrated.items():
            steps = round(options.seconds / step_s)
            output = options.output / f"draws_{draws}_seed_{seed}"
            loss, action_mse, clock = train(draws, seed, steps, output)
            rows.append(
                {
                    "draws": draws,
                    "seed": seed,
                    "steps": steps,
                    "cpu_s": clock.step_s() * steps,
                    "loss": loss,
                    "action_mse": action_mse,
                }
            )
            (options.output / "result.json").write_text(json.dumps(rows, indent=2) + "\n")
    table = Table("draws", "steps", "CPU s", "validation loss by seed", "mean", "action_mse, mean")
    for draws in options.draws:
        mine = [row for row in rows if row["draws"] == draws]
        table.add_row(
            str(draws),
            str(mine[0]["steps"]),
            f"{fmean(row['cpu_s'] for row in mine):.0f}",
            ", ".join(f"{row['loss']:.3f}" for row in mine),
            f"{fmean(row['loss'] for row in mine):.3f}",
            f"{fmean(row['action_mse'] for row in mine):.3f}",
        )
    Console().print(table)
    print(f"wrote {options.output / 'result.json'}")


if __name__ == "__main__":
    main()
