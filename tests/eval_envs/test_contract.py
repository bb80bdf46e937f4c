from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from data_tools.errors import UserError
from eval_envs.contract import ChunkStep, check_env
from eval_envs.perturb import BlankImages
from eval_envs.tabletop.env import TabletopEnv

ENV_ID = "eval_envs:Tabletop-v0"


@pytest.fixture
def env() -> Iterator[gymnasium.Env]:
    made = gymnasium.make(ENV_ID, task="pick", image_size=16)
    yield made
    made.close()


def expert_chunk(env: gymnasium.Env, rows: int) -> np.ndarray:
    return np.tile(env.unwrapped.expert_action(), (rows, 1))


def test_a_chunk_equals_its_steps_one_by_one(env: gymnasium.Env) -> None:
    chunked = ChunkStep(env, chunk_length=4)
    chunk = np.random.default_rng(0).uniform(-1, 1, (4, 4)).astype(np.float32)
    chunked.reset(seed=3)
    observation, reward, terminated, truncated, info = chunked.step(chunk)
    env.reset(seed=3)
    rewards = []
    for action in chunk:
        expected, one, *ends, last = env.step(action)
        rewards.append(one)
    assert np.array_equal(observation["state"], expected["state"])
    assert np.array_equal(observation["images"]["front"], expected["images"]["front"])
    assert (reward, terminated, truncated) == (sum(rewards), *ends)
    assert info["steps_taken"] == 4
    assert info["elapsed_steps"] == last["elapsed_steps"]


def test_a_chunk_renders_once(env: gymnasium.Env, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    observe = TabletopEnv.observe
    monkeypatch.setattr(TabletopEnv, "observe", lambda self: looks.append(1) or observe(self))
    chunked = ChunkStep(env, chunk_length=5)
    chunked.reset(seed=0)
    looks.clear()
    chunked.step(np.zeros((5, 4), np.float32))
    assert len(looks) == 1


def test_the_end_of_an_episode_is_rendered_only_on_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = []
    observe = TabletopEnv.observe
    monkeypatch.setattr(TabletopEnv, "observe", lambda self: looks.append(1) or observe(self))
    ends = {}
    for look_at_end in (True, False):
        made = gymnasium.make(ENV_ID, task="reach", image_size=16)
        env = ChunkStep(made, chunk_length=20, look_at_end=look_at_end)
        env.reset(seed=0)
        before, *_ = env.step(np.tile(np.float32([1, 0, 0, 0]), (20, 1)))
        looks.clear()
        end, *_, truncated, info = env.step(np.tile(np.float32([-1, 0, 0, 0]), (20, 1)))
        assert truncated
        assert len(looks) == look_at_end
        assert np.array_equal(end["state"], before["state"]) is not look_at_end
        ends[look_at_end] = info
        env.close()
    assert ends[True] == ends[False]


def test_success_with_any_object_is_kept_over_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that judges each moment for itself."""
    judge = TabletopEnv._judge
    monkeypatch.setattr(
        TabletopEnv, "_judge", lambda self: {**judge(self), "success_any": self._steps == 2}
    )
    env = ChunkStep(gymnasium.make(ENV_ID, task="pick", image_size=8), chunk_length=4)
    env.reset(seed=0)
    assert env.step(np.zeros((4, 4), np.float32))[-1]["success_any"]
    assert not env.step(np.zeros((4, 4), np.float32))[-1]["success_any"]
    env.close()


def test_success_with_any_object_is_success_where_nothing_else_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judge = TabletopEnv._judge

    def plain(self: TabletopEnv) -> dict[str, Any]:
        info = {**judge(self), "is_success": self._steps == 1}
        del info["success_any"]
        return info

    monkeypatch.setattr(TabletopEnv, "_judge", plain)
    env = ChunkStep(
        gymnasium.make(ENV_ID, task="pick", image_size=8, terminate_on_success=False), 2
    )
    assert env.reset(seed=0)[1]["success_any"] is False
    assert env.step(np.zeros((2, 4), np.float32))[-1]["success_any"] is True
    env.close()


def test_a_chunk_stops_where_the_episode_ends() -> None:
    env = ChunkStep(gymnasium.make(ENV_ID, task="reach", image_size=16), chunk_length=100)
    _, info = env.reset(seed=0)
    assert (info["steps_taken"], info["is_success_final"]) == (0, False)
    _, _, terminated, truncated, info = env.step(np.zeros((100, 4), np.float32))
    assert (info["steps_taken"], terminated, truncated) == (25, False, True)
    env.close()


def test_success_within_a_chunk_is_not_lost() -> None:
    """Reach the block, then move away within one chunk: reached, but not at its end."""
    made = gymnasium.make(ENV_ID, task="reach", image_size=16, terminate_on_success=False)
    env = ChunkStep(made, chunk_length=12)
    env.reset(seed=0)
    actions, is_there = [], False
    while not is_there:
        actions.append(env.unwrapped.expert_action())
        is_there = env.unwrapped.advance(actions[-1])[-1]["is_success"]
    env.reset(seed=0)
    away = [np.array([0, 0, 1, -1], np.float32)] * 3
    _, reward, *_, info = env.step(np.stack(actions + away))
    assert (info["is_success"], info["is_success_final"]) == (True, False)
    assert info["success_any"]
    assert reward >= 1.0
    env.close()


def test_a_shorter_chunk_is_taken_as_it_is(env: gymnasium.Env) -> None:
    chunked = ChunkStep(env, chunk_length=8)
    chunked.reset(seed=0)
    assert chunked.step(np.zeros((3, 4), np.float32))[-1]["steps_taken"] == 3


@pytest.mark.parametrize("shape", [(0, 4), (9, 4), (8, 3), (4,)])
def test_a_chunk_of_the_wrong_shape_is_refused(env: gymnasium.Env, shape: tuple) -> None:
    chunked = ChunkStep(env, chunk_length=8)
    chunked.reset(seed=0)
    with pytest.raises(UserError, match="one row per action"):
        chunked.step(np.zeros(shape, np.float32))


def test_a_chunk_length_below_one_is_refused(env: gymnasium.Env) -> None:
    with pytest.raises(UserError, match="actions to execute per look"):
        ChunkStep(env, chunk_length=0)


def test_a_wrapper_that_would_be_bypassed_is_refused(env: gymnasium.Env) -> None:
    with pytest.raises(UserError, match="Wrap ChunkStep in them"):
        ChunkStep(BlankImages(env), chunk_length=2)


def test_an_environment_that_always_looks_is_chunked_too() -> None:
    env = ChunkStep(Broken(), chunk_length=3)
    env.reset(seed=0)
    assert env.step(np.zeros((3, 4), np.float32))[-1]["steps_taken"] == 3


def test_the_expert_succeeds_through_the_evaluation_loop() -> None:
    """First control: a vector of chunked environments, driven as a rollout drives them."""
    episodes, successes = 24, 0
    vector = SyncVectorEnv(
        [
            lambda: ChunkStep(gymnasium.make(ENV_ID, task="reach+pick+place", image_size=8), 2)
            for _ in range(4)
        ]
    )
    for start in range(0, episodes, 4):
        vector.reset(seed=list(range(start, start + 4)))
        is_over = np.zeros(4, bool)
        while not is_over.all():
            chunks = np.stack([expert_chunk(env, 2) for env in vector.envs])
            chunks[:, 1, :3] = 0.0  # the expert is asked before every motion
            _, _, terminated, truncated, info = vector.step(chunks)
            successes += int((info["is_success"] & ~is_over).sum())
            is_over |= terminated | truncated
    vector.close()
    assert successes / episodes >= 0.95


def test_a_policy_that_is_given_the_target_reaches_it() -> None:
    """Second control: observation, target position, open-loop chunks; no expert code."""
    env = ChunkStep(gymnasium.make(ENV_ID, task="reach", image_size=8), chunk_length=4)
    successes = 0
    for seed in range(30):
        observation, info = env.reset(seed=seed)
        is_over = False
        while not is_over:
            table = env.unwrapped.table_state
            goal = table.blocks[env.unwrapped.task.target] + (0.0, 0.0, 0.045)
            chunk = np.zeros((4, 4), np.float32)
            left = goal - observation["state"][:3]
            for row in chunk:
                row[:] = (*np.clip(left / 0.04, -1, 1), -1.0)
                left = left - 0.04 * row[:3]
            observation, _, terminated, truncated, info = env.step(chunk)
            is_over = terminated or truncated
        successes += info["is_success"]
    env.close()
    assert successes / 30 >= 0.95


class Broken(TabletopEnv):
    """Breaks the contract in the ways the tests name; looks at every step."""

    advance = None  # type: ignore[assignment]

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        reward, terminated, truncated, info = TabletopEnv.advance(self, action)
        return self.observe(), reward, terminated, truncated, info


def test_faults_of_an_environment_are_named_all_at_once() -> None:
    class Silent(TabletopEnv):
        def observe(self) -> dict[str, Any]:
            observation = super().observe()
            return {
                **observation,
                "instruction": "",
                "state": observation["state"] + noise.normal(),
            }

        def _judge(self) -> dict[str, Any]:
            return {**super()._judge(), "success_any": "perhaps"}

    noise = np.random.default_rng(0)
    env = Silent("pick", image_size=16)
    env.action_space = gymnasium.spaces.Box(-2.0, 2.0, (4,), np.float32)
    with pytest.raises(UserError) as caught:
        check_env(env)
    text = "\n".join(caught.value.faults)
    for remedy in (
        "Let space and declaration agree",
        "Say what is to be done",
        "Report it at reset and at every step",
        "Draw everything random from self.np_random",
    ):
        assert remedy in text


def test_an_environment_that_declares_nothing_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        check_env(gymnasium.make("CartPole-v1"))
    text = str(caught.value)
    assert "Declare cameras, state and actions" in text
    assert "Declare after how many control steps" in text
    assert "Return images, state and instruction" in text


def test_looking_that_changes_the_episode_is_found() -> None:
    class Meddler(TabletopEnv):
        def observe(self) -> dict[str, Any]:
            self._scene.data.qvel[0] += 0.5
            return super().observe()

    with pytest.raises(UserError, match="let observe change nothing"):
        check_env(Meddler("pick", image_size=16))
