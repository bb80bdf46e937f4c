"""Child processes that may die or hang, and the outcome of every case all the same."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from tests.data_tools.fuzz.case import Outcome

ROOT = Path(__file__).resolve().parents[3]
LIMIT_S = 10.0
START_S = 60.0  # the first case of a process pays for its imports and for reading what is true
CASES_A_PROCESS = 100


class Child:
    """One process that reads damaged data."""

    def __init__(self, originals: Path, scratch: Path) -> None:
        self._log = (scratch / "stderr.txt").open("w+")
        command = [sys.executable, "-m", "tests.data_tools.fuzz.child", originals, scratch]
        self._process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=ROOT,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "MALLOC_ARENA_MAX": "2",
                "XDG_CACHE_HOME": str(scratch),
            },
        )
        self.num_cases = 0

    def run(self, name: str) -> Outcome:
        self.num_cases += 1
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(name + "\n")
        self._process.stdin.flush()
        limit_s = START_S if self.num_cases == 1 else LIMIT_S
        if not select.select([self._process.stdout], [], [], limit_s)[0]:
            self._process.kill()
            return Outcome(name, "", "", "hung", f"no answer in {limit_s:g} s", limit_s)
        return self._answer(name, self._process.stdout)

    def _answer(self, name: str, stream: IO[str]) -> Outcome:
        line = stream.readline()
        if line.endswith("\n"):
            return Outcome(**json.loads(line))
        code = self._process.wait()
        self._log.seek(0)
        return Outcome(name, "", "", "died", f"exit code {code}\n{self._log.read()[-3000:]}", 0.0)

    def close(self) -> None:
        with suppress(BrokenPipeError):  # of a process that died
            self._process.communicate()
        self._log.close()


def run_cases(names: Iterable[str], originals: Path, scratch: Path) -> Iterator[Outcome]:
    """The outcome of each case, in order, by one child at a time; one that dies is replaced."""
    scratch.mkdir(parents=True, exist_ok=True)
    child = Child(originals, scratch)
    try:
        for name in names:
            outcome = child.run(name)
            yield outcome
            if outcome.verdict in ("died", "hung") or child.num_cases >= CASES_A_PROCESS:
                child.close()
                child = Child(originals, scratch)
    finally:
        child.close()
