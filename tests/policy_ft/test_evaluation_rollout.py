"""The evaluation loop: a record a seed whatever shares the batch; the expert succeeds in it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as replaced
from typing import Any

import gymnasium
import numpy as np
import pytest

from data_tools.conventions import Conventions
from data_tools.episode import Observation
from eval_envs.episodes import seeded_suite
from eval_envs.making import make_env
from eval_envs.pool import LocalPool
from eval_envs.tabletop.env import TabletopEnv
from eval_envs.tabletop.expert import expert_action
from policy_ft.data.noise import rollout_noise
from policy_ft.errors import UserError
from policy_ft.evaluation.report import Video
from policy_ft.evaluation.results import EvaluationResult, compare_results
from policy_ft.evaluation.rollout import evaluate
from policy_ft.evaluation.videos import choose_episodes, film
from policy_ft.execution.executor import RecedingHorizon
from policy_ft.models.solvers import SampleRequest

ENV = "eval_envs:Tabletop-v0"
SMALL = {"task": "reach+pick", "image_size": 16}


def conventions() -> Conventions:
    env = make_env(ENV, SMALL)
    env.close()
    return env.unwrapped.conventions  # type: ignore[attr-defined]


class ShowExpert(gymnasium.ObservationWrapper):
    """Puts the action of an expert where the state was."""

    def __init__(
        self, env: gymnasium.Env, choose: Callable[[Any], Any] = lambda task: task
    ) -> None:
        super().__init__(env)
        self._choose = choose

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        inner = self.env.unwrapped
        action = expert_action(inner.table_state, self._choose(inner.task))
        return {**observation, "state": action}


@dataclass
class Control:
    """Executes the state it is shown, or the noise it is given; keeps what it saw."""

    conventions: Conventions = field(default_factory=conventions)
    chunk_shape: tuple[int, int] = (4, 4)
    follows: str = "noise"
    calls: list[tuple[list[Observation], np.ndarray, int]] = field(default_factory=list)

    def act(self, observations: Sequence[Observation], request: SampleRequest) -> list[np.ndarray]:
        noise = request.noise
        self.calls.append((list(observations), noise, request.solver.num_steps))
        if self.follows == "noise":
            return [np.clip(each, -1, 1) for each in noise]
        return [np.tile(each.state, (4, 1)) for each in observations]


def run(policy: Control, seeds: Sequence[int] = range(5), **changes: Any) -> EvaluationResult:
    settings = {"num_sampling_steps": 10, **changes}
    executor = RecedingHorizon(settings.pop("replan_steps", 3))
    env_args = {**SMALL, **settings.pop("env_args", {})}
    suite = seeded_suite(settings.pop("env_id", ENV), env_args, seeds)
    with LocalPool(settings.pop("num_envs", 2), settings.pop("wrappers", ())) as pool:
        return evaluate(policy, suite, pool=pool, executor=executor, **settings)


def filmed(result: EvaluationResult, num_each: int = 1) -> list[Video]:
    with LocalPool() as pool:
        return film(result, pool, num_each)


@pytest.mark.parametrize("family", ["reach", "push", "pick", "place", "stack"])
def test_expert_succeeds_through_the_evaluation_loop(family: str) -> None:
    result = run(
        Control(follows="state"),
        range(40),
        num_envs=8,
        replan_steps=1,
        wrappers=[ShowExpert],
        env_args={"task": family},
    )
    assert result.success.success_rate >= 0.975
    assert result.success_any.success_rate >= result.success.success_rate
    assert result.success_final == result.success  # the environment ends an episode at success


def test_success_on_another_object_counts_only_as_success_any() -> None:
    def another(task: Any) -> Any:
        return replaced(task, target=(task.target + 1) % 3)

    result = run(
        Control(follows="state"),
        range(20),
        replan_steps=1,
        wrappers=[lambda env: ShowExpert(env, another)],
        env_args={"task": "pick"},
    )
    assert result.success.success_rate == 0
    assert result.success_any.success_rate >= 0.9


def test_episodes_do_not_depend_on_what_shares_their_batch() -> None:
    alone = run(Control(), range(7), num_envs=1)
    for num_envs in (2, 3, 9):
        together = run(Control(), range(7), num_envs=num_envs)
        assert together.episodes == alone.episodes
        for ours, theirs in zip(together.actions, alone.actions, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert run(Control(), [4], num_envs=3).episodes == (alone.episodes[4],)


def test_every_episode_has_its_own_chunk_count_and_noise() -> None:
    policy = Control()
    result = run(policy, [3, 11, 8], num_envs=2)
    drawn = [tuple(noise.ravel()) for _, batch, _ in policy.calls for noise in batch]
    expected = [
        tuple(rollout_noise(episode.seed, index, (4, 4)).ravel())
        for episode in result.episodes
        for index in range(-(-episode.num_steps // 3))
    ]
    assert sorted(drawn) == sorted(expected)
    assert len(set(drawn)) == len(drawn)


def test_episodes_are_divided_among_environments_before_the_run() -> None:
    seeds_of: dict[int, list[int]] = {}

    class Spy(gymnasium.Wrapper):
        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            seeds_of.setdefault(id(self), []).append(seed)
            return super().reset(seed=seed, options=options)

    run(Control(), range(7), num_envs=3, wrappers=[Spy])
    assert list(seeds_of.values()) == [[0, 3, 6], [1, 4], [2, 5]]


def test_images_are_rendered_only_when_the_policy_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    observe = TabletopEnv.observe
    monkeypatch.setattr(TabletopEnv, "observe", lambda env: (looks.append(1), observe(env))[1])
    policy = Control()
    result = run(policy, range(3), env_args={"task": "pick"})
    num_chunks = sum(len(observations) for observations, _, _ in policy.calls)
    assert len(looks) == num_chunks
    assert sum(episode.num_steps for episode in result.episodes) > 2 * len(looks)


def test_success_with_any_object_counts_whenever_it_happened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An environment that judges each moment for itself, and only the sixth is good."""
    judge = TabletopEnv._judge
    monkeypatch.setattr(
        TabletopEnv, "_judge", lambda env: {**judge(env), "success_any": env._steps == 6}
    )
    (episode,) = run(Control(), [1], env_args={"task": "pick"}).episodes
    assert episode.num_steps > 9
    assert episode.success_any


def test_an_environment_without_is_success_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = TabletopEnv._judge

    def silent(env: TabletopEnv) -> dict[str, Any]:
        return {key: value for key, value in judge(env).items() if key != "is_success"}

    monkeypatch.setattr(TabletopEnv, "_judge", silent)
    with pytest.raises(UserError, match="Report whether the goal is met at reset"):
        run(Control(), [1])


def test_policy_sees_its_own_cameras_only() -> None:
    declared = conventions()
    one = declared.model_copy(update={"cameras": declared.cameras[1:]})
    policy = Control(conventions=one)
    run(policy, [0])
    assert {tuple(seen.images) for batch, _, _ in policy.calls for seen in batch} == {("wrist",)}


def test_records_hold_what_happened_and_survive_json() -> None:
    seen = []
    policy = Control()
    result = run(policy, [5, 2], on_episode=seen.append, num_sampling_steps=7)
    assert result.seeds == (5, 2)
    assert sorted(seen, key=lambda each: each.seed) == sorted(
        result.episodes, key=lambda each: each.seed
    )
    assert {num_steps for _, _, num_steps in policy.calls} == {7}
    for episode, actions in zip(result.episodes, result.actions, strict=True):
        assert actions.shape == (episode.num_steps, 4)
        assert episode.rewards == (0.0,) * episode.num_steps or episode.success
        assert sum(episode.rewards) == episode.success
        assert (episode.env_id, episode.env_args) == (ENV, SMALL)
        assert episode.target in episode.instruction
    summary = json.loads(json.dumps(result.summary()))
    again = EvaluationResult.model_validate(summary["evaluation"])
    assert (again.episodes, again.success) == (result.episodes, result.success)
    assert {key: summary[key] for key in ("success_rate", "n")} == {
        "success_rate": result.success.success_rate,
        "n": 2,
    }


def test_families_partition_the_episodes() -> None:
    result = run(Control(), range(9))
    families = result.by_family()
    assert set(families) == {"reach", "pick"}
    assert sorted(seed for part in families.values() for seed in part.seeds) == list(range(9))
    for family, part in families.items():
        assert {episode.family for episode in part.episodes} == {family}
        assert len(part.actions) == len(part.episodes)


def test_rollout_noise_is_standard_normal_and_a_function_of_seed_and_chunk() -> None:
    draws = np.stack(
        [rollout_noise(seed, chunk, (8, 4)) for seed in range(40) for chunk in range(5)]
    )
    assert draws.dtype == np.float32
    assert abs(draws.mean()) < 0.05
    assert abs(draws.std() - 1) < 0.03
    assert len(np.unique(draws[:, 0, 0])) == 200
    np.testing.assert_array_equal(rollout_noise(3, 1, (8, 4)), rollout_noise(3, 1, (8, 4)))


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"env_id": "eval_envs:Tabeltop-v0"}, "Write the id as 'module:Name-v0'"),
        ({"env_id": "no_such_module:Thing-v0"}, "Write the id as 'module:Name-v0'"),
        ({"env_args": {"task": "pik"}}, "Did you mean 'pick'"),
        ({"env_args": {"imagesize": 16}}, "give the settings that it takes"),
        ({"seeds": []}, "Give a different seed to every episode"),
        ({"seeds": [1, 1]}, "Give a different seed to every episode"),
        ({"seeds": [-1]}, "Give a different seed to every episode"),
        ({"num_envs": 0}, "Give a positive number"),
        ({"replan_steps": 5}, "Set replan_steps to at most 4"),
    ],
)
def test_unusable_settings_are_refused_with_a_remedy(changes: dict[str, Any], remedy: str) -> None:
    with pytest.raises(UserError) as caught:
        run(Control(), **changes)
    assert remedy.lower() in str(caught.value).lower()


def test_policy_and_environment_that_disagree_are_refused_before_the_run() -> None:
    declared = conventions()
    policy = Control(conventions=declared.model_copy(update={"control_hz": 5.0}))
    with pytest.raises(UserError, match=r"control_hz: found 10\.0; expected 5\.0"):
        run(policy)
    assert policy.calls == []


def test_evaluations_of_different_episodes_are_not_compared() -> None:
    first, second = run(Control(), range(3)), run(Control(), range(1, 4))
    with pytest.raises(UserError, match="Evaluate both policies in the same environment"):
        compare_results(first, second)
    assert compare_results(first, first).difference == 0


def test_films_show_the_first_successes_and_failures() -> None:
    expert = run(
        Control(follows="state"), range(3), replan_steps=1, wrappers=[ShowExpert], num_envs=3
    )
    failures = run(Control(), range(10, 13), env_args={"task": "pick"})
    assert choose_episodes(expert, 2) == [0, 1]
    (video,) = filmed(expert)
    assert video.is_success
    assert "seed 0" in video.caption
    (video,) = filmed(failures)
    assert not video.is_success


def test_film_that_ends_otherwise_is_refused() -> None:
    result = run(Control(), [0], env_args={"task": "pick"})
    (episode,) = result.episodes
    forged = result.model_copy(update={"episodes": (episode.model_copy(update={"success": True}),)})
    with pytest.raises(UserError, match="Evaluate without videos"):
        filmed(forged)


def test_an_environment_with_images_of_another_size_is_refused_before_the_run() -> None:
    policy = Control()
    with pytest.raises(UserError, match=r"camera 'front': found 32 x 32 pixels; expected 16 x 16"):
        run(policy, env_args={"image_size": 32})
    assert policy.calls == []
