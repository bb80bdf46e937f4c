"""Fuzz the readers: `make fuzz`, or

python -m tests.data_tools.fuzz --hdf5 2000 --lerobot 200 --seed 0
python -m tests.data_tools.fuzz --case hdf5:17 --scratch /tmp/here     one case, its data kept

Prints a table of outcomes and every failure with its case; exit code 1 when there is any.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.data_tools.fuzz.case import GOOD, Cases, Outcome
from tests.data_tools.fuzz.originals import write_originals
from tests.data_tools.fuzz.pool import run_cases


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description="Fuzz the readers of data_tools.")
    parser.add_argument("--hdf5", type=int, default=2000, help="number of damaged HDF5 files")
    parser.add_argument("--lerobot", type=int, default=200, help="number of LeRobot folders")
    parser.add_argument("--seed", type=int, default=0, help="number of the first case")
    parser.add_argument("--case", help="only this case, in this process")
    parser.add_argument("--scratch", type=Path, help="folder for the data; kept")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        scratch = asked.scratch or Path(temporary)
        originals = scratch / "originals"
        if not originals.exists():
            write_originals(originals)
        if asked.case:
            sys.stdout.write(f"{Cases(originals, scratch).run(asked.case)}\n".replace("\\n", "\n"))
            return 0
        names = [f"hdf5:{asked.seed + i}" for i in range(asked.hdf5)]
        names += [f"lerobot:{asked.seed + i}" for i in range(asked.lerobot)]
        started = time.perf_counter()
        outcomes = list(_told(run_cases(names, originals, scratch / "cases")))
        return _report(outcomes, time.perf_counter() - started)


def _told(outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    for number, outcome in enumerate(outcomes, start=1):
        if outcome.verdict not in GOOD:
            sys.stdout.write(
                f"{outcome.name} {outcome.verdict}: {outcome.data}, {outcome.damage}\n"
            )
            sys.stdout.write("    " + outcome.detail.strip().replace("\n", "\n    ") + "\n")
        if number % 100 == 0:
            sys.stderr.write(f"{number} cases\n")
        yield outcome


def _report(outcomes: list[Outcome], seconds: float) -> int:
    for kind in ("hdf5", "lerobot"):
        mine = [outcome for outcome in outcomes if outcome.name.startswith(kind)]
        counts = Counter(outcome.verdict for outcome in mine)
        slowest = max((outcome.seconds for outcome in mine), default=0.0)
        sys.stdout.write(f"{kind}: {len(mine)} cases, {dict(counts)}, slowest {slowest:.2f} s\n")
    failed = [outcome for outcome in outcomes if outcome.verdict not in GOOD]
    sys.stdout.write(f"{len(outcomes)} cases in {seconds:.0f} s, {len(failed)} failures\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
