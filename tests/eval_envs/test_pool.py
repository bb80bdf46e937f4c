"""Environments in processes: what they do, and what becomes of episodes that go wrong."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import venv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_tools.errors import UserError
from eval_envs.episodes import EpisodeSpec, require_distinct, seeded_suite
from eval_envs.playing import Look, Lost
from eval_envs.pool import LocalPool, Pool, ProcessPool
from tests.eval_envs.troubled_world import ENV as TROUBLED
from tests.policy_ft.point_world import ENV as POINT

TABLETOP = "eval_envs:Tabletop-v0"
ROOT = Path(__file__).parents[2]
END = 40  # steps after which an episode of the point world is over


def played(pool: Pool, suite: Sequence[EpisodeSpec], length: int = 5) -> list[list[Look | Lost]]:
    """Everything that each episode answers, place by place, with actions drawn from its seed."""
    answers: dict[int, list[Look | Lost]] = {index: [] for index in range(len(suite))}
    for first in range(0, len(suite), pool.num_envs):
        running = dict(enumerate(range(first, min(first + pool.num_envs, len(suite)))))
        for place, index in running.items():
            pool.begin(place, suite[index])
        while running:
            for place, answer in pool.answers():
                answers[running[place]].append(answer)
                if isinstance(answer, Lost) or answer.is_over:
                    del running[place]
            for place, index in running.items():
                random = np.random.default_rng((suite[index].seed, len(answers[index])))
                width = 2 if suite[index].env_id in (POINT, TROUBLED) else 4
                pool.execute(place, random.uniform(-1, 1, (length, width)).astype(np.float32))
    return list(answers.values())


def numbers(look: Look | Lost) -> Any:
    assert isinstance(look, Look)
    seen = look.observation
    images = {name: image.tobytes() for name, image in seen.images.items()}
    return images, seen.state.tobytes(), seen.instruction, replace(look, observation=None)


def troubled(trouble: dict[int, str], seeds: Sequence[int] = range(4), **args: Any) -> Any:
    named = {str(seed): kind for seed, kind in trouble.items()}
    return seeded_suite(TROUBLED, {"trouble": named, **args}, seeds)


@pytest.fixture(scope="module")
def other_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a virtual environment with what docs/evaluation.md asks, and MuJoCo."""
    folder = tmp_path_factory.mktemp("other") / "venv"
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for requirement in ("numpy", "gymnasium", "pydantic", "mujoco"):
        _link(requirement, site)
    return folder / "bin" / "python"


def _link(distribution: str, site: Path) -> None:
    """Everything that is installed with a distribution and with those it requires."""
    found = metadata.distribution(distribution)
    names = {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}
    for name in names:
        if not (site / name).exists():
            (site / name).symlink_to(found.locate_file(name))
    for requirement in found.requires or ():
        if "extra ==" not in requirement and "python_version <" not in requirement:
            _link(re.split(r"[^\w.-]", requirement)[0], site)


@pytest.fixture
def process_pool() -> Iterator[ProcessPool]:
    with ProcessPool(2) as pool:
        yield pool


def test_processes_play_the_same_episodes_bit_for_bit(process_pool: ProcessPool) -> None:
    suite = [
        *seeded_suite(TABLETOP, {"task": "reach", "image_size": 16}, range(2)),
        *seeded_suite(TABLETOP, {"task": "pick", "image_size": [24, 32]}, range(2)),
        *seeded_suite(POINT, {}, range(3)),
    ]
    with LocalPool(2) as here:
        expected = played(here, suite)
    found = played(process_pool, suite)
    assert [[*map(numbers, looks)] for looks in found] == [
        [*map(numbers, looks)] for looks in expected
    ]
    assert {look.observation.images["front"].shape for look in found[2]} == {(24, 32, 3)}
    assert found[0][0].conventions is not None
    assert found[0][1].conventions is None
    assert found[-1][0].observation.images == {}


@pytest.mark.parametrize("in_processes", [False, True])
def test_what_an_environment_sees_is_told_as_it_is(in_processes: bool) -> None:
    """A policy can then refuse float images in the same words wherever they come from."""
    with ProcessPool() if in_processes else LocalPool() as pool:
        pool.begin(0, *seeded_suite(TROUBLED, {"sees": "floats"}, [0]))
        ((_, look),) = pool.answers()
        assert isinstance(look, Look)
        images = look.observation.images
        assert {name: (image.dtype, image.max()) for name, image in images.items()} == {
            "float": (np.float64, 0.5)
        }
        pool.begin(0, *seeded_suite(TROUBLED, {"sees": "objects"}, [0]))
        with pytest.raises(UserError, match=r"observation, object: found .*Return numpy arrays"):
            list(pool.answers())


def test_a_process_of_another_interpreter_plays_the_same(
    other_python: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It finds our packages, wherever it runs, and the simulator's modules by its own means."""
    monkeypatch.chdir(tmp_path)
    where = subprocess.run(
        [other_python, "-c", "import numpy, sys; print(sys.prefix); import eval_envs"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert where.stdout.strip() == str(other_python.parents[1])
    assert "No module named 'eval_envs'" in where.stderr
    assert not list(other_python.parents[1].glob("lib/python*/site-packages/torch*"))
    (tmp_path / "own.py").write_text(
        textwrap.dedent(
            f"""
            import sys
            import gymnasium
            from eval_envs.tabletop.env import TabletopEnv
            assert sys.prefix == {str(other_python.parents[1])!r}
            gymnasium.register(id="Own-v0", entry_point=TabletopEnv)
            """
        )
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    args = {"task": "reach", "image_size": 16}
    with LocalPool() as here:
        expected = played(here, seeded_suite(TABLETOP, args, [3]))
    with ProcessPool(1, python=other_python) as there:
        found = played(there, seeded_suite("own:Own-v0", args, [3]))
    assert [*map(numbers, found[0])] == [*map(numbers, expected[0])]


def test_a_process_loads_no_torch(process_pool: ProcessPool, tmp_path: Path) -> None:
    process_pool.begin(0, seeded_suite(TABLETOP, {"image_size": 8}, [0])[0])
    assert [place for place, _ in process_pool.answers()] == [0]
    (worker,) = process_pool._workers.values()
    mapped = Path(f"/proc/{worker._process.pid}/maps").read_text()
    assert "mujoco" in mapped
    assert "libtorch" not in mapped


@pytest.mark.parametrize("stage", ["reset", "step"])
@pytest.mark.parametrize("in_processes", [False, True])
def test_a_simulator_that_raises_costs_one_episode(in_processes: bool, stage: str) -> None:
    suite = troubled({1: f"raises in {stage}"})
    with ProcessPool(2) if in_processes else LocalPool(2) as pool:
        good, bad, *others = played(pool, suite)
    lost = bad[-1]
    assert isinstance(lost, Lost)
    assert lost.stage == stage
    assert lost.error.startswith(f"RuntimeError: the {stage} of <")
    assert "0x..." in lost.error
    assert "troubled_world.py" in lost.traceback
    assert [len(answers) for answers in (good, bad, *others)] == [
        9,
        {"reset": 1, "step": 3}[stage],
        9,
        9,
    ]
    assert all(isinstance(answers[-1], Look) for answers in (good, *others))


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("is killed in step", "ended with signal SIGKILL"),
        ("crashes in step", "ended with signal SIGSEGV"),
        ("exits in reset", "ended with exit code 3"),
    ],
)
def test_a_process_that_dies_costs_one_episode(
    process_pool: ProcessPool, kind: str, found: str
) -> None:
    _, bad, *others = played(process_pool, troubled({1: kind}))
    lost = bad[-1]
    assert isinstance(lost, Lost)
    assert found in lost.error
    assert lost.stage == kind[-len(lost.stage) :]
    if kind.startswith("crashes"):
        assert "in step" in lost.traceback, "faulthandler says where"
        assert "0x0" not in lost.traceback
    assert [len(answers) for answers in others] == [9, 9]


@pytest.mark.slow
def test_a_simulator_that_hangs_costs_one_episode_and_says_where() -> None:
    with ProcessPool(2, time_limit_s=8.0) as pool:  # which starting a process has to meet, too
        good, bad, *others = played(pool, troubled({1: "hangs in step"}))
    lost = bad[-1]
    assert isinstance(lost, Lost)
    assert lost.error == "no answer within 8 s"
    assert "_trouble" in lost.traceback
    assert [len(answers) for answers in (good, *others)] == [9, 9, 9]


def test_what_closing_a_broken_simulator_raises_is_told_with_the_loss() -> None:
    with LocalPool() as pool:
        (bad,) = played(pool, troubled({0: "raises in step", 1: "close"}, [0]))
    assert isinstance(bad[-1], Lost)
    assert "and in closing it:" in bad[-1].traceback
    assert "it does not close" in bad[-1].traceback


def test_the_same_loss_is_told_in_the_same_words(process_pool: ProcessPool) -> None:
    first = played(process_pool, troubled({0: "crashes in step"}, [0]))
    assert played(process_pool, troubled({0: "crashes in step"}, [0]))[0][-1] == first[0][-1]


@pytest.mark.parametrize("in_processes", [False, True])
def test_an_environment_that_cannot_be_made_is_refused(in_processes: bool) -> None:
    with (
        ProcessPool() if in_processes else LocalPool() as pool,
        pytest.raises(UserError, match="did you mean 'pick'") as caught,
    ):
        played(pool, seeded_suite(TABLETOP, {"task": "pik"}, [0]))
    assert len(caught.value.faults) == 1


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    program = textwrap.dedent(
        f"""
        import time
        from eval_envs.episodes import seeded_suite
        from eval_envs.pool import ProcessPool
        pool = ProcessPool(2)
        pool.begin(0, *seeded_suite({TROUBLED!r}, {{}}, [0]))
        args = {{"trouble": {{"0": "hangs in reset"}}, "child": {str(tmp_path / "child")!r}}}
        pool.begin(1, *seeded_suite({TROUBLED!r}, args, [0]))
        for place, _ in pool.answers():
            pids = [worker._process.pid for worker in pool._workers.values()]
            print(*pids, flush=True)
            time.sleep(3600)
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
            time.sleep(0.05)
        pids.append(int((tmp_path / "child").read_text()))
        process.send_signal(signal.SIGKILL)
    until = time.monotonic() + 30
    while any(_is_alive(pid) for pid in pids):
        assert time.monotonic() < until, "a process outlived its evaluation"
        time.sleep(0.05)


def test_what_a_simulator_has_started_ends_with_it(tmp_path: Path) -> None:
    child = tmp_path / "child"
    with ProcessPool() as pool:
        (answers,) = played(pool, troubled({0: "is killed in step"}, [0], child=str(child)))
    assert isinstance(answers[-1], Lost)
    until = time.monotonic() + 30
    while _is_alive(int(child.read_text())):
        assert time.monotonic() < until, "a child outlived its simulator"
        time.sleep(0.05)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (lambda: LocalPool(0), "Give a positive number"),
        (lambda: ProcessPool(0), "Give a positive number"),
        (lambda: ProcessPool(time_limit_s=0.0), "Give the seconds that an answer may take"),
        (lambda: ProcessPool(time_limit_s=float("nan")), "Give the seconds"),
        (lambda: ProcessPool(python=Path("/no/python")), "Name one, e.g."),
        (lambda: ProcessPool(python=ROOT), "found a folder; expected a Python interpreter"),
        (lambda: seeded_suite(POINT, {}, []), "Give a different seed to every episode"),
        (lambda: seeded_suite(POINT, {}, [1, 1]), "Give a different seed to every episode"),
        (
            lambda: seeded_suite(POINT, {"size": (1, 2)}, [1]),
            r"env_args\.size: found \(1, 2\); expected what JSON can hold",
        ),
        (
            lambda: seeded_suite(POINT, {"size": float("inf")}, [1]),
            r"env_args: found \{'size': inf\}; expected finite numbers",
        ),
        (lambda: require_distinct([]), "Give it episodes"),
        (
            lambda: require_distinct(
                [*seeded_suite(POINT, {}, [1]), *seeded_suite(POINT, {}, [1], {"task": "again"})]
            ),
            r"place 1: found the episode of place 0 again \(seed 1 of .*\)",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_a_remedy(make: Any, remedy: str) -> None:
    with pytest.raises(UserError, match=remedy):
        make()


def test_an_interpreter_that_cannot_run_our_packages_is_quoted(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'no module named numpy' >&2\nexit 1\n")
    broken.chmod(0o755)
    with ProcessPool(python=broken) as pool:
        pool.begin(0, *seeded_suite(POINT, {}, [0]))
        ((_, lost),) = pool.answers()
    assert lost == Lost("make", "a process that ended with exit code 1", "no module named numpy")
