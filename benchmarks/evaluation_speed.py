"""CPU seconds of an episode of `policy-ft eval`: one environment, ten, ten in processes; two trees.

    git worktree add /tmp/before COMMIT
    python benchmarks/evaluation_speed.py --before /tmp/before --runs 3 --json speed.json

Start-up is taken out: each figure is what 40 episodes take more than 10, over 30. All runs take
turns on the same machine; the table has the median, the least and the most.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
FEW, MANY = 10, 40
CASES = {
    "1 environment": ["--num-envs", "1"],
    "10 environments": ["--num-envs", "10"],
    "10 environments, --output": ["--num-envs", "10", "--output"],
    "10 environments, --isolate": ["--num-envs", "10", "--isolate"],
}
NEW = {name for name in CASES if "--" in name}
"""What the tree of before cannot do."""


def spent(tree: Path, options: list[str], episodes: int, output: Path) -> tuple[float, float]:
    """CPU seconds, with those of children, and wall-clock seconds of one evaluation."""
    output = output / str(time.monotonic_ns())
    given = [*options, str(output)] if options[-1] == "--output" else options
    command = [sys.executable, "-m", "policy_ft", "eval", "policy_ft/assets/tabletop_base"]
    command += ["--task", "reach+push+pick", "-n", str(episodes), *given]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=tree, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu_s, time.perf_counter() - start


def main() -> None:
    """Print the table, and write it where --json says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--before", type=Path, help="another tree, which takes turns with this one")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("/tmp/evaluation_speed"))
    parser.add_argument("--json", type=Path)
    settings = parser.parse_args()
    taken: dict[str, list[tuple[float, float]]] = {}
    for _ in range(settings.runs):
        for name, options in CASES.items():
            for tree in filter(None, (settings.before, HERE)):
                if tree != HERE and name in NEW:
                    continue
                few, many = (spent(tree, options, n, settings.output) for n in (FEW, MANY))
                each = tuple((b - a) / (MANY - FEW) for a, b in zip(few, many, strict=True))
                label = f"{name}, {'now' if tree == HERE else 'before'}"
                taken.setdefault(label, []).append(each)
    for label, figures in taken.items():
        cpu_s, wall_s = zip(*figures, strict=True)
        told = f"{statistics.median(cpu_s):.3f} s of CPU ({min(cpu_s):.3f} to {max(cpu_s):.3f})"
        print(f"{label:36} {told}, {statistics.median(wall_s):.3f} s")
    if settings.json:
        settings.json.write_text(json.dumps(taken, indent=1) + "\n")


if __name__ == "__main__":
    main()
