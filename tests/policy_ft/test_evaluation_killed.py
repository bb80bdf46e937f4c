"""Evaluations that are killed, run out of disk or are shared by processes write the same file."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from policy_ft.quickstart import BASE
from tests.policy_ft.test_evaluation_log import run, suite, written
from tests.policy_ft.test_training_distributed import torchrun

ROOT = Path(__file__).parents[2]


def eval_command(output: Path, *options: object) -> list[str]:
    usual = ["--task", "reach+push+pick", "-n", 8, "--num-envs", 1, "--output", output]
    return list(map(str, ["policy_ft", "eval", BASE, *usual, *options]))


def started(command: list[str]) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finished(command: list[str]) -> str:
    process = started(command)
    text, _ = process.communicate(timeout=200)
    assert process.returncode == 0, text
    return text


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--isolate", "--num-envs", "2"]])
def test_an_evaluation_killed_in_the_middle_goes_on_to_the_same_file(
    options: list[str], tmp_path: Path
) -> None:
    python = [sys.executable, "-m"]
    finished([*python, *eval_command(tmp_path / "whole")])
    process = started([*python, *eval_command(tmp_path / "killed", *options)])
    path = tmp_path / "killed" / "episodes.jsonl"
    while not path.exists() or path.read_bytes().count(b"\n") < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = path.read_bytes()
    assert 3 <= before.count(b"\n") < 8
    text = finished([*python, *eval_command(tmp_path / "killed", *options)])
    assert path.read_bytes() == written(tmp_path / "whole")
    assert "95 % interval" in text


@pytest.mark.slow
def test_two_ranks_write_the_file_of_one(tmp_path: Path) -> None:
    finished([sys.executable, "-m", *eval_command(tmp_path / "one")])
    process = started(torchrun("-m", *eval_command(tmp_path / "two")))
    path = tmp_path / "two" / "episodes.rank1.jsonl"
    while not path.exists() or path.read_bytes().count(b"\n") < 1:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    text = finished(torchrun("-m", *eval_command(tmp_path / "two")))
    assert written(tmp_path / "two") == written(tmp_path / "one")
    assert text.count("95 % interval") == 1
    assert not path.exists()


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from tests.policy_ft.test_evaluation_log import run, suite
from policy_ft.errors import UserError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
try:
    run(Path(sys.argv[1]), suite())
except UserError as error:
    print(error)
"""


def test_a_full_disk_is_told_and_the_evaluation_goes_on_where_there_is_room(
    tmp_path: Path,
) -> None:
    run(tmp_path / "whole", suite())
    whole, folder = written(tmp_path / "whole"), tmp_path / "full"
    told = finished([sys.executable, "-c", FULL_DISK, str(folder)])
    assert "Make room and give the same command again: it goes on from here." in told
    assert 0 < len(written(folder)) <= 3000 < len(whole)
    run(folder, suite())
    assert written(folder) == whole
