"""An evaluation may be killed at any moment, and a simulator die: the records are the same."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_tools.conventions import Conventions
from data_tools.episode import Observation
from eval_envs.episodes import EpisodeSpec, seeded_suite
from eval_envs.pool import LocalPool, ProcessPool
from policy_ft.errors import UserError
from policy_ft.evaluation.episode_log import EpisodeLog
from policy_ft.evaluation.results import EpisodeRecord, EvaluationResult
from policy_ft.evaluation.rollout import evaluate
from policy_ft.execution.executor import RecedingHorizon
from policy_ft.models.solvers import SampleRequest
from tests.eval_envs.troubled_world import ENV as TROUBLED
from tests.policy_ft.point_world import CONVENTIONS
from tests.policy_ft.point_world import ENV as POINT

CONDITIONS = {"weights_sha256": "abc", "replan_steps": 3}


@dataclass
class Wanderer:
    """Moves the point as its noise says."""

    conventions: Conventions = CONVENTIONS
    chunk_shape: tuple[int, int] = (4, 2)
    calls: int = 0

    def act(self, observations: Sequence[Observation], request: SampleRequest) -> list[np.ndarray]:
        self.calls += 1
        return list(np.clip(request.noise, -1, 1))


def suite(
    seeds: Sequence[int] = range(6), trouble: dict[int | str, str] | None = None, **args: Any
) -> tuple[EpisodeSpec, ...]:
    named = {str(seed): kind for seed, kind in (trouble or {}).items()}
    return seeded_suite(TROUBLED, {"trouble": named, **args}, seeds, {"task": "point"})


def run(
    folder: Path | None,
    episodes: Sequence[EpisodeSpec],
    *,
    pool: LocalPool | ProcessPool | None = None,
    conditions: dict[str, Any] = CONDITIONS,
    **options: Any,
) -> EvaluationResult:
    with ExitStack() as stack:
        played_in = stack.enter_context(pool or LocalPool(2))
        log = None if folder is None else stack.enter_context(EpisodeLog(folder, conditions))
        policy = options.pop("policy", Wanderer())
        steps = {"executor": RecedingHorizon(3), "num_sampling_steps": 1}
        return evaluate(policy, episodes, pool=played_in, log=log, **steps, **options)


def written(folder: Path) -> bytes:
    return (folder / "episodes.jsonl").read_bytes()


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    run(tmp_path / "whole", suite())
    return written(tmp_path / "whole")


def test_a_line_holds_what_was_run_and_what_came_of_it(tmp_path: Path) -> None:
    result = run(tmp_path, suite())
    lines = written(tmp_path).splitlines()
    assert tuple(map(EpisodeRecord.model_validate_json, lines)) == result.episodes
    first = json.loads(lines[0])
    assert first["env_args"] == {"trouble": {}}
    assert first["tags"] == {"task": "point"}
    assert len(first["rewards"]) == first["num_steps"] == 40
    assert max(first["rewards"]) < 0
    assert first["lost"] is None
    assert [json.loads(line)["seed"] for line in lines] == list(range(6))
    assert run(None, suite()).episodes == result.episodes


def test_a_line_is_on_the_disk_as_soon_as_its_episode_ends(tmp_path: Path) -> None:
    seen = []

    def look(record: EpisodeRecord) -> None:
        seen.append(record.seed)
        assert [json.loads(line)["seed"] for line in written(tmp_path).splitlines()] == seen

    run(tmp_path, suite(), on_episode=look)
    assert sorted(seen) == list(range(6))


def test_an_evaluation_cut_off_at_any_byte_ends_in_the_same_file(
    whole: bytes, tmp_path: Path
) -> None:
    for cut in (0, 1, *range(100, len(whole), 331), len(whole) - 1, len(whole)):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / "evaluation.json").write_text(json.dumps(CONDITIONS))
        (folder / "episodes.jsonl").write_bytes(whole[:cut])
        known: list[EpisodeRecord] = []
        policy = Wanderer()
        run(folder, suite(), policy=policy, on_episode=known.append)
        assert written(folder) == whole
        assert sorted(record.seed for record in known) == list(range(6))
        assert policy.calls == 0 or cut < len(whole)


def test_the_order_in_which_episodes_end_does_not_matter(whole: bytes, tmp_path: Path) -> None:
    for num_envs in (1, 3, 7):
        run(tmp_path / str(num_envs), suite(), pool=LocalPool(num_envs))
        assert written(tmp_path / str(num_envs)) == whole


def test_lines_of_other_ranks_are_joined_and_not_run_again(whole: bytes, tmp_path: Path) -> None:
    lines = whole.splitlines(keepends=True)
    (tmp_path / "evaluation.json").write_text(json.dumps(CONDITIONS))
    (tmp_path / "episodes.jsonl").write_bytes(b"".join(lines[::2]))
    (tmp_path / "episodes.rank1.jsonl").write_bytes(lines[1] + lines[3] + lines[5][:40])
    policy = Wanderer()
    run(tmp_path, suite(), policy=policy)
    assert written(tmp_path) == whole
    assert policy.calls == 14, "one episode of 40 steps, three at a time"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".lock",
        "episodes.jsonl",
        "evaluation.json",
        "whole",
    ]


def test_a_suite_may_grow(whole: bytes, tmp_path: Path) -> None:
    run(tmp_path, suite(range(2)))
    run(tmp_path, suite())
    assert written(tmp_path) == whole


def test_a_suite_may_be_of_several_environments(whole: bytes, tmp_path: Path) -> None:
    others = seeded_suite(POINT, {}, range(3))
    mixed = [*suite(range(2)), *others, *suite(range(2, 6))]
    result = run(tmp_path / "mixed", mixed, pool=ProcessPool(2))
    lines = written(tmp_path / "mixed").splitlines(keepends=True)
    assert b"".join([*lines[:2], *lines[5:]]) == whole
    assert [episode.env_id for episode in result.episodes[2:5]] == [POINT] * 3
    assert result.episodes[2:5] == run(None, others).episodes


REFUSED = {
    "other conditions": (
        {"conditions": {**CONDITIONS, "replan_steps": 2}},
        r"replan_steps: found 3; expected 2, as is asked for now. Choose another directory",
    ),
    "a condition more": (
        {"conditions": {**CONDITIONS, "precision": "bf16"}},
        r"precision: found None; expected 'bf16'",
    ),
    "other episodes": (
        {"episodes": suite(range(3, 12))},
        r"found 3 episodes that are not asked for now, the first of seed 0 in .*Choose another",
    ),
    "another environment": (
        {"episodes": suite(trouble={99: "hangs in step"})},
        r"found 6 episodes that are not asked for now",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_another_evaluation_in_the_directory_is_refused(
    name: str, whole: bytes, tmp_path: Path
) -> None:
    changes, words = REFUSED[name]
    with pytest.raises(UserError, match=words):
        run(tmp_path / "whole", **{"episodes": suite(), **changes})
    assert written(tmp_path / "whole") == whole


def test_a_directory_that_a_mistake_left_behind_is_used(whole: bytes, tmp_path: Path) -> None:
    options: dict[str, Any] = {"executor": RecedingHorizon(5), "num_sampling_steps": 1}
    with (
        EpisodeLog(tmp_path, {"replan_steps": 5}) as log,
        LocalPool() as pool,
        pytest.raises(UserError, match="Set replan_steps to at most 4"),
    ):
        evaluate(Wanderer(), suite(), pool=pool, log=log, **options)
    run(tmp_path, suite())
    assert written(tmp_path) == whole


def test_a_damaged_line_is_refused_and_its_removal_runs_the_episode_again(
    whole: bytes, tmp_path: Path
) -> None:
    lines = whole.splitlines(keepends=True)
    path = tmp_path / "whole" / "episodes.jsonl"
    damaged = lines[1].replace(b'"seed":1', b'"seed":-1')
    path.write_bytes(b"".join([lines[0], damaged, *lines[2:]]))
    with pytest.raises(UserError, match=r"episodes.jsonl:2: .*Remove the line; its episode is"):
        run(tmp_path / "whole", suite())
    path.write_bytes(b"".join([lines[0], *lines[2:]]))
    run(tmp_path / "whole", suite())
    assert written(tmp_path / "whole") == whole


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    def another(record: EpisodeRecord) -> None:
        with pytest.raises(UserError, match="found another evaluation at work there"):
            run(tmp_path, suite())

    run(tmp_path, suite(range(1)), on_episode=another)


def test_episodes_without_conditions_are_refused(whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "whole" / "evaluation.json").unlink()
    with pytest.raises(UserError, match=r"evaluation\.json: found no such file"):
        run(tmp_path / "whole", suite())


def test_a_place_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="Choose another directory"):
        run(tmp_path / "file", suite())


@pytest.mark.parametrize("kind", ["raises in reset", "raises in step", "is killed in step"])
def test_a_lost_episode_is_recorded_and_costs_no_other(
    kind: str, whole: bytes, tmp_path: Path
) -> None:
    pool = ProcessPool(2) if kind.startswith("is") else LocalPool(2)
    result = run(tmp_path / "lost", suite(trouble={2: kind}), pool=pool)
    (lost,) = result.lost
    assert lost.seed == 2
    assert lost.lost is not None
    assert lost.lost.stage == kind.rpartition(" ")[2]
    assert not lost.success
    assert lost.num_steps == len(lost.rewards) == {"reset": 0, "step": 3}[lost.lost.stage]
    assert result.success.n == 6
    assert result.summary()["num_lost"] == 1
    others = [json.loads(line) for line in whole.splitlines()]
    found = [json.loads(line) for line in written(tmp_path / "lost").splitlines()]
    for place in (0, 1, 3, 4, 5):
        assert {**found[place], "env_args": {}} == {**others[place], "env_args": {}}
    policy = Wanderer()
    again = run(tmp_path / "lost", suite(trouble={2: kind}), policy=policy)
    assert policy.calls == 0, "what was lost stays so"
    assert again.episodes == result.episodes


def test_a_simulator_that_cannot_be_made_stops_the_evaluation(tmp_path: Path) -> None:
    words = "RuntimeError: the make of .*Mend the simulator's installation"
    for pool in (LocalPool(), ProcessPool()):
        with pytest.raises(UserError, match=words) as told:
            run(tmp_path, suite(trouble={"make": "raises in make"}), pool=pool)
        assert "troubled_world.py" in str(told.value)


def test_a_suite_of_which_every_episode_is_lost_is_no_result(tmp_path: Path) -> None:
    trouble: dict[int | str, str] = {seed: "raises in step" for seed in range(2)}
    with pytest.raises(UserError, match="found all 2 episodes lost, the first as: RuntimeError"):
        run(tmp_path, suite(range(2), trouble))
    assert len(written(tmp_path).splitlines()) == 2
