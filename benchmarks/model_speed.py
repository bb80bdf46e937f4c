"""How fast pi0 trains and samples here, beside LeRobot's and transformers' code for the same model.

Prints one table and writes one JSON file. All codes get the same random weights and the same batch,
and must agree on losses, gradients and actions to 1e-4 before a time counts. They take turns step
by step, on one thread, in float32; a time is the median of the CPU time of a step (on a GPU: of the
device's time). A training step is forward and backward; the optimizer is not part of it.

    benchmarks/peers/lerobot.sh
    python benchmarks/model_speed.py --cases small64 small256 real
"""

import argparse
import itertools
import json
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import torch
from peers.lerobot import ENVIRONMENT, LeRobot
from peers.measure import Measured, release_memory
from peers.ours import Ours
from peers.pi0_cases import (
    CASES,
    MAX_DRAWS,
    PROMPT_LENGTHS,
    Case,
    write_batch,
    write_weights,
)
from peers.transformers_pi0 import TransformersPI0
from pi0_sizes import NUM_CAMERAS
from rich.console import Console
from rich.table import Table

from policy_ft.config.model import ModelConfig

TOLERANCE = 1e-4
WORKS = ("sample", "train")
CAMERAS = (NUM_CAMERAS, 1)


class Side(Protocol):
    """One code of pi0."""

    name: str

    def load(self, config: ModelConfig, weights: Path) -> None:
        """Builds the model."""

    def free(self) -> None:
        """Drops the model."""

    def train(self, batch: Path) -> Measured:
        """Forward and backward."""

    def sample(self, batch: Path) -> Measured:
        """Ten steps of sampling."""


@dataclass
class Samples:
    """Seconds of every step of one case, by (code, work, cameras), and what was computed."""

    seconds: dict[tuple[str, str, int], list[float]] = field(
        default_factory=lambda: defaultdict(list)
    )
    computed: dict[tuple[str, str, int], Measured] = field(default_factory=dict)

    def add(self, side: str, work: str, cameras: int, measured: Measured) -> None:
        """Keeps a step."""
        self.computed[side, work, cameras] = measured
        self.seconds[side, work, cameras].append(measured.seconds)

    def median(self, side: str, work: str, cameras: int) -> float:
        """The median time."""
        return median(self.seconds[side, work, cameras])


def measure_case(case: Case, sides: Sequence[Side], repeats: int, folder: Path) -> Samples:
    """All works on all sides, in turns."""
    weights = folder / "model.safetensors"
    parameters = write_weights(case, weights)
    release_memory()
    batches = {cameras: folder / f"{cameras}.safetensors" for cameras in CAMERAS}
    for cameras, path in batches.items():
        write_batch(case, cameras, path)
    samples = Samples()
    if case.one_at_a_time:
        require_memory(parameters)
        take_turns_alone(case, sides, repeats, weights, batches, samples)
    else:
        take_turns(case, sides, repeats, weights, batches, samples)
    return samples


def take_turns(
    case: Case,
    sides: Sequence[Side],
    repeats: int,
    weights: Path,
    batches: dict[int, Path],
    samples: Samples,
) -> None:
    """Step by step; every side keeps its model and has had one step of every kind before."""
    for side in sides:
        side.load(case.config, weights)
        for work, cameras in itertools.product(WORKS, CAMERAS):
            step(side, case, work, cameras, batches[cameras])
    for _, work, cameras in itertools.product(range(repeats), WORKS, CAMERAS):
        for side in sides:
            for kind, measured in step(side, case, work, cameras, batches[cameras]).items():
                samples.add(side.name, kind, cameras, measured)
    for side in sides:
        side.free()


def take_turns_alone(
    case: Case,
    sides: Sequence[Side],
    repeats: int,
    weights: Path,
    batches: dict[int, Path],
    samples: Samples,
) -> None:
    """Round by round; a side frees its model before the next one builds its own."""
    for _, side in itertools.product(range(repeats), sides):
        side.load(case.config, weights)
        for work, cameras in itertools.product(WORKS, CAMERAS):
            for kind, measured in step(side, case, work, cameras, batches[cameras]).items():
                samples.add(side.name, kind, cameras, measured)
        side.free()


def step(side: Side, case: Case, work: str, cameras: int, batch: Path) -> dict[str, Measured]:
    """One step, and one of several draws an observation where that is asked of ours."""
    if work == "sample":
        return {work: side.sample(batch)}
    measured = {work: side.train(batch)}
    if isinstance(side, Ours) and case.draws_target:
        measured["draws"] = side.train(batch, MAX_DRAWS)
    return measured


def require_memory(parameters: int) -> None:
    """Weights and gradients in float32, and as much again for activations and the file cache."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    needed = 12 * parameters
    if available * 1024 < needed:
        raise SystemExit(
            f"memory: found {available / 2**20:.1f} GiB free; expected {needed / 2**30:.1f} GiB. "
            "End other programs, or leave the case out with --cases."
        )


def require_agreement(samples: Samples, name: str) -> dict[str, float]:
    """The largest difference between ours and each other code, in units of the largest value."""
    worst: dict[str, float] = defaultdict(float)
    for (side, work, cameras), theirs in samples.computed.items():
        if side == Ours.name:
            continue
        ours = samples.computed[Ours.name, work, cameras]
        for mine, other in (
            (torch.tensor(ours.values), torch.tensor(theirs.values)),
            (torch.tensor(ours.gradient_norm), torch.tensor(theirs.gradient_norm)),
        ):
            scale = mine.abs().max().clamp(min=1.0)
            difference = float((mine - other).abs().max() / scale)
            if not difference <= TOLERANCE:
                raise SystemExit(
                    f"{name}, {work}, {cameras} cameras: {side} differs by {difference:.2e}; "
                    f"expected at most {TOLERANCE}. Times of different computations say nothing."
                )
            worst[side] = max(worst[side], difference)
    return dict(worst)


def rows(name: str, case: Case, samples: Samples, sides: Sequence[Side]) -> list[dict[str, Any]]:
    """One row a work and number of cameras: medians, and how many times faster ours is."""
    ours = Ours.name
    found = []
    for work, cameras in itertools.product(WORKS, CAMERAS):
        seconds = {side.name: samples.median(side.name, work, cameras) for side in sides}
        found.append(
            {
                "case": name,
                "work": work,
                "cameras": cameras,
                "seconds": seconds,
                "faster": {side: seconds[side] / seconds[ours] for side in seconds if side != ours},
                "target": case.targets[work, cameras],
            }
        )
    return found


def draws_rows(name: str, case: Case, samples: Samples) -> list[dict[str, Any]]:
    """What eight noise draws an observation cost, in training steps of one draw."""
    if not case.draws_target:
        return []
    return [
        {
            "case": name,
            "work": f"train, {MAX_DRAWS} draws",
            "cameras": cameras,
            "seconds": {Ours.name: samples.median(Ours.name, "draws", cameras)},
            "cost": samples.median(Ours.name, "draws", cameras)
            / samples.median(Ours.name, "train", cameras),
            "target": case.draws_target,
        }
        for cameras in CAMERAS
    ]


def table(found: Sequence[dict[str, Any]], names: Sequence[str]) -> Table:
    """Rows for people."""
    shown = Table(
        *("model", "work", "cameras"),
        *(f"{name}, s" for name in names),
        *(f"faster than {name}" for name in names[1:]),
        "asked",
        title="pi0, float32, one thread: median time of a step",
        title_justify="left",
    )
    for row in found:
        ratios = row.get("faster", {})
        shown.add_row(
            row["case"],
            row["work"],
            f"{row['cameras']} of {NUM_CAMERAS}",
            *(f"{row['seconds'][name]:.3f}" if name in row["seconds"] else "" for name in names),
            *(f"{ratios[name]:.2f}x" if name in ratios else "" for name in names[1:]),
            f"{row['cost']:.2f} of <= {row['target']} steps"
            if "cost" in row
            else f">= {row['target']}x {LeRobot.name}",
        )
    return shown


def chosen_sides(options: argparse.Namespace, stack: ExitStack) -> list[Side]:
    """Ours first, then the peers asked for that are installed."""
    sides: list[Side] = [Ours(options.device)]
    if "lerobot" in options.peers and (options.lerobot / "bin/python").exists():
        child = LeRobot(options.lerobot, options.device)
        stack.callback(child.close)
        sides.append(child)
    elif "lerobot" in options.peers:
        print(f"{options.lerobot}: no LeRobot; run benchmarks/peers/lerobot.sh. Going on without.")
    if "transformers" in options.peers:
        sides.append(TransformersPI0(options.device))
    return sides


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"found {number}; expected at least 1")
    return number


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--cases",
        nargs="+",
        choices=CASES,
        default=["small64", "small256"],
        help="sizes of model; real needs 20 GB of memory and half an hour",
    )
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=["lerobot", "transformers"],
        default=["lerobot", "transformers"],
        help="codes to be timed beside ours",
    )
    parser.add_argument("--repeats", type=_positive, default=7, help="steps of each")
    parser.add_argument("--device", default="cpu", help="of torch")
    parser.add_argument("--lerobot", type=Path, default=ENVIRONMENT, help="where lerobot.sh put it")
    parser.add_argument(
        "--json", type=Path, default=Path("runs/model_speed.json"), help="where to write it"
    )
    return parser.parse_args()


def main() -> None:
    """Measure the cases asked for."""
    options = arguments()
    torch.set_num_threads(1)
    found, agreement, seconds = [], {}, {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        sides = chosen_sides(options, stack)
        names = [side.name for side in sides]
        for name in options.cases:
            samples = measure_case(CASES[name], sides, options.repeats, folder)
            agreement[name] = require_agreement(samples, name)
            found += rows(name, CASES[name], samples, sides) + draws_rows(
                name, CASES[name], samples
            )
            seconds[name] = [[*key, times] for key, times in samples.seconds.items()]
    Console(width=160).print(table(found, names))
    record = {
        "device": options.device,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "versions": {package: version(package) for package in ("torch", "transformers")},
        "models": {name: CASES[name].config.model_dump() for name in options.cases},
        "batch_sizes": {name: CASES[name].batch_size for name in options.cases},
        "prompt_lengths": PROMPT_LENGTHS,
        "rows": found,
        "largest_difference": agreement,
        "seconds": seconds,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="ascii")
    print(f"wrote {options.json}")


if __name__ == "__main__":
    main()
