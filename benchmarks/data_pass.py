"""What a run costs before its first step, of the numbers of its data: CPU seconds, bytes, memory.

    python benchmarks/data_pass.py --episodes 2000 --steps 500 --json pass.json

`each process, pass by pass` is what every process of a launch did until 2026-12: open, look, name
by a fingerprint and count into statistics, each reading for itself. `the first process, one pass`
does the same with the numbers held in memory, and tells the others, which read nothing. Both are
processes of their own that find the file in the page cache.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from data_tools.conventions import ActionSpec, Conventions, StateSpec
from data_tools.formats.reader import open_dataset
from data_tools.writer import EpisodeWriter
from policy_ft.config.data import DataConfig
from policy_ft.config.transforms import TransformsConfig
from policy_ft.data.fitting import fit_statistics
from policy_ft.data.soundness import require_sound_data, survey

JOINTS = 14
HORIZON = 50
MODES = {
    "passes": "each process, pass by pass",
    "one": "the first process, one pass",
}


def record(path: Path, num_episodes: int, num_steps: int) -> None:
    """Joints that walk at random, and commands near where they go next; no camera."""
    names, rng = tuple(f"joint_{i}" for i in range(JOINTS)), np.random.default_rng(0)
    conventions = Conventions(
        cameras=(),
        state=StateSpec(names=names, units=("rad",) * JOINTS),
        action=ActionSpec(
            names=names,
            units=("rad",) * JOINTS,
            references=("absolute",) * JOINTS,
            low=(-10.0,) * JOINTS,
            high=(10.0,) * JOINTS,
        ),
        control_hz=50,
    )
    with EpisodeWriter(path, conventions) as writer:
        for index in range(num_episodes):
            state = rng.normal(0, 0.01, (num_steps, JOINTS)).cumsum(0)
            noise = rng.normal(0, 0.002, state.shape)
            actions = np.clip(np.vstack([state[1:], state[-1:]]) + noise, -9.9, 9.9)
            text = f"do task {index % 10} with the arm"
            writer.add(images={}, state=state, actions=actions, instruction=text, success=True)


def measure(mode: str, folder: Path) -> None:
    """Do a process's share and print what it cost."""
    config = DataConfig(path=(str(folder / "set.hdf5"),))
    before = Path("/proc/self/io").read_text()
    used = resource.getrusage(resource.RUSAGE_SELF)
    with ExitStack() as held:
        if mode == "one":
            episodes = survey(config, 0, held).episodes
        else:
            episodes = open_dataset(list(config.path))
            require_sound_data(config, episodes)
        every, settings = range(len(episodes)), TransformsConfig(cameras=())
        fitted = fit_statistics(settings, episodes.conventions, episodes, every, HORIZON)
        told = [episodes.fingerprint, fitted.model_dump_json()]
    after, now = Path("/proc/self/io").read_text(), resource.getrusage(resource.RUSAGE_SELF)
    cost = {
        "cpu_s": now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime,
        "mb_read": (int(after.split()[1]) - int(before.split()[1])) / 1e6,
        "peak_mb": now.ru_maxrss / 1e3,
        "told": told,
    }
    sys.stdout.write(json.dumps(cost))


def main() -> None:
    """Print the table, and write it where --json says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--episodes", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", nargs=2, metavar=("MODE", "FOLDER"), help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.measure:
        measure(settings.measure[0], Path(settings.measure[1]))
        return
    costs = {}
    with tempfile.TemporaryDirectory() as folder:
        record(Path(folder) / "set.hdf5", settings.episodes, settings.steps)
        for mode, name in MODES.items():
            command = [sys.executable, __file__, "--measure", mode, folder]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            cost = costs[mode] = json.loads(done.stdout)
            print(
                f"{name:28} {cost['cpu_s']:7.2f} s of CPU {cost['mb_read']:8.1f} MB read "
                f"{cost['peak_mb']:7.0f} MB at most"
            )
    if costs["passes"]["told"] != costs["one"]["told"]:
        raise SystemExit("the passes and the one pass found different numbers")
    if settings.json:
        settings.json.write_text(json.dumps(costs, indent=1) + "\n")


if __name__ == "__main__":
    main()
