"""Memory of each process that shares a run: one and two, with whole weights and with parts.

    OMP_NUM_THREADS=1 python benchmarks/sharded_memory.py --json sharded_memory.json

Processes of this machine that talk through gloo train a policy without images on random states.
What is told is resident memory above that of a process which has imported everything, at its peak
while the run is made ready, in train steps (3 and 4 of 4), in a validation and while a checkpoint
is written; `tensors` is what weights, gradients, two moments and an average of float32 come to.
Freed memory is given back to the system at once (MALLOC_MMAP_THRESHOLD_), so that peaks are of what
lives.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CASES = {
    "1 process": (1, False),
    "2 processes, whole": (2, False),
    "2 processes, sharded": (2, True),
}
COLUMNS = ("start", "steps", "measuring", "saving")
BYTES_A_PARAMETER = 20


def status_mb(name: str) -> float:
    """VmRSS (resident now) or VmHWM (at most since the last reset), in 10^6 bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"/proc/self/status: found no {name}; expected Linux. Measure there.")


def peak_since_last() -> float:
    """The peak since this was last called, in 10^6 bytes; starts anew."""
    peak = status_mb("VmHWM")
    Path("/proc/self/clear_refs").write_text("5")
    return peak


def settings(folder: Path, width: int, depth: int, *, shard: bool) -> dict[str, Any]:
    """A run of four steps, its checkpoint at the last, as YAML would give it."""
    language = {"family": "llama", "vocab_size": 512, "width": width, "depth": depth}
    heads = {"mlp_width": 4 * width, "num_heads": 8, "num_kv_heads": 2, "head_dim": width // 8}
    model = {
        "vision": {"kind": "none"},
        "max_prompt_tokens": 32,
        "state_dim": 7,
        "action_dim": 7,
        "action_horizon": 16,
        "language": {**language, **heads},
        "expert": {"width": width // 4, "mlp_width": width},
    }
    training = {"steps": 4, "batch_size": 8, "save_every": 4, "precision": "fp32", "num_threads": 1}
    return {
        "seed": 0,
        "output_dir": str(folder / ("sharded" if shard else "whole")),
        "policy": {
            "kind": "new",
            "model": model,
            "tokenizer": {"train": 300},
            "transforms": {"cameras": []},
        },
        "data": {"path": str(folder / "states.hdf5"), "num_workers": 0},
        "tuning": {"ema": {"decay": 0.99}},
        "training": {**training, "log_every": 1, "shard": shard},
        "validation": {"every": 4, "num_windows": 8},
    }


def record(path: Path) -> None:
    """Ten episodes of random states and actions."""
    import numpy as np

    from data_tools.conventions import ActionSpec, Conventions, StateSpec
    from data_tools.writer import EpisodeWriter

    names = tuple(f"joint_{number}" for number in range(7))
    units = ("rad",) * 7
    action = ActionSpec(
        names=names,
        units=units,
        references=("absolute",) * 7,
        low=(-3,) * 7,
        high=(3,) * 7,
    )
    state = StateSpec(names=names, units=units, frame="joint")
    own = Conventions(cameras=(), state=state, action=action, control_hz=10)
    generator = np.random.default_rng(0)
    with EpisodeWriter(path, own) as writer:
        for _ in range(10):
            states = generator.normal(0.0, 0.1, (40, 7)).cumsum(0).astype(np.float32)
            writer.add(
                images={},
                state=states,
                actions=states,
                instruction="move the arm",
                success=True,
                attributes={},
            )


def measure(config_path: Path, out: Path) -> None:
    """Trains as one of the processes, and writes what it took beside `out`."""
    from accelerate import PartialState

    from policy_ft import assemble
    from policy_ft.config.config_file import load_config
    from policy_ft.training.hooks import Hook

    class Peaks(Hook):
        name = "peaks"
        works_on_shards = True

        def begin(self, run: Any) -> None:
            self.found = {"parameters": sum(p.numel() for p in run.policy.model.parameters())}
            self.found["start"] = peak_since_last() - before

        def after_step(self, train_step: int) -> dict[str, float]:
            peak = peak_since_last() - before
            if train_step > 2:
                self.found["steps"] = max(self.found.get("steps", 0.0), peak)
            return {}

        def after_measure(self, train_step: int, kind: str, values: object) -> None:
            self.found["measuring"] = peak_since_last() - before

    config = load_config(config_path)
    before, peaks = status_mb("VmRSS"), Peaks()
    assemble.train(config, methods=[peaks])
    peaks.found["saving"] = peak_since_last() - before
    rank = PartialState().process_index
    out.with_suffix(f".{rank}.json").write_text(json.dumps(peaks.found))


def launched(config_path: Path, out: Path, num_processes: int) -> list[dict[str, float]]:
    """What each of the processes found."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "MALLOC_MMAP_THRESHOLD_": "262144"}
    own = [__file__, "--config", str(config_path), "--json", str(out)]
    several = ["-m", "torch.distributed.run", "--nproc-per-node", str(num_processes)]
    command = [sys.executable, *(several if num_processes > 1 else []), *own]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return [json.loads(out.with_suffix(f".{r}.json").read_text()) for r in range(num_processes)]


def main() -> None:
    """Print the table, and write it where --json says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--width", type=int, default=1024, help="of the decoder")
    parser.add_argument("--depth", type=int, default=8, help="blocks of the decoder")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--config", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.config is not None:
        measure(given.config, given.json)
        return
    table = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        record(folder / "states.hdf5")
        print("| processes | tensors, MB | " + " | ".join(f"{c}, MB" for c in COLUMNS) + " |")
        print("|---|---|" + "---|" * len(COLUMNS))
        for number, (name, (num_processes, shard)) in enumerate(CASES.items()):
            values = settings(folder / str(number), given.width, given.depth, shard=shard)
            values["data"]["path"] = str(folder / "states.hdf5")
            config_path = folder / f"{number}.yaml"
            config_path.write_text(json.dumps(values))
            found = launched(config_path, folder / f"{number}", num_processes)
            most = {column: round(max(each[column] for each in found)) for column in COLUMNS}
            held = found[0]["parameters"] * BYTES_A_PARAMETER / (num_processes if shard else 1)
            table[name] = {"tensors": round(held / 1e6), **most}
            print(f"| {name} | " + " | ".join(f"{each:,}" for each in table[name].values()) + " |")
    if given.json is not None:
        given.json.write_text(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
