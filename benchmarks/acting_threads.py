"""Calls of `act` a second by one thread and by two that share a policy; two trees.

    mkdir /tmp/before && git archive COMMIT | tar x -C /tmp/before
    OMP_NUM_THREADS=1 python benchmarks/acting_threads.py --before /tmp/before --json threads.json

The policy is the base that we ship, with FiLM in its tower. One thread and two take turns in one
process; `gain` is the ratio of neighbours, which the load of other programs moves least.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]


def rates(calls: int, rounds: int) -> dict[str, list[float]]:
    """'one' and 'two' -> calls a second in each round, of the tree that Python imports from."""
    import numpy as np

    import policy_ft
    from data_tools.episode import Observation

    policy = policy_ft.load_policy("policy_ft/assets/tabletop_base")
    own, generator = policy.conventions, np.random.default_rng(0)
    images = {
        camera.name: generator.integers(0, 256, (camera.height, camera.width, 3), dtype=np.uint8)
        for camera in own.cameras
    }
    seen = Observation(images, np.zeros(len(own.state.names), np.float32), "push the red block")

    def act(count: int) -> None:
        for _ in range(count):
            policy.act([seen])

    found: dict[str, list[float]] = {"one": [], "two": []}
    act(2)
    with ThreadPoolExecutor(2) as threads:
        works: dict[str, Callable[[], object]] = {
            "one": lambda: act(calls),
            "two": lambda: list(threads.map(act, [calls // 2] * 2)),
        }
        for _ in range(rounds):
            for name, work in works.items():
                start = time.perf_counter()
                work()
                found[name].append(calls / (time.perf_counter() - start))
    return found


def main() -> None:
    """Print the table, and write it where --json says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--before", type=Path, help="another tree, which takes turns with this one")
    parser.add_argument("--calls", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5, help="in each process")
    parser.add_argument("--runs", type=int, default=3, help="processes of each tree")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.alone:
        print(json.dumps(rates(settings.calls, settings.rounds)))
        return
    command = [sys.executable, __file__, "--alone"]
    command += ["--calls", str(settings.calls), "--rounds", str(settings.rounds)]
    table: dict[str, dict[str, list[float]]] = {}
    for _ in range(settings.runs):
        for tree in filter(None, (settings.before, HERE)):
            environment = {**os.environ, "PYTHONPATH": str(tree)}
            told = subprocess.run(
                command, cwd=tree, env=environment, check=True, stdout=subprocess.PIPE
            ).stdout
            row = table.setdefault("now" if tree == HERE else "before", {"one": [], "two": []})
            for name, values in json.loads(told).items():
                row[name] += values
    print("| tree | one thread, calls/s | two threads, calls/s | gain: median (least to most) |")
    print("|---|---|---|---|")
    for tree_name, row in table.items():
        gains = [two / one for one, two in zip(row["one"], row["two"], strict=True)]
        one, two = (statistics.median(row[name]) for name in ("one", "two"))
        spread = f"{statistics.median(gains):.2f} ({min(gains):.2f} to {max(gains):.2f})"
        print(f"| {tree_name} | {one:.1f} | {two:.1f} | {spread} |")
    if settings.json is not None:
        settings.json.write_text(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
