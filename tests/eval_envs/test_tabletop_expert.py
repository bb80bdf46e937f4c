from dataclasses import replace

import numpy as np
import pytest

from eval_envs.disturbance import Disturbance
from eval_envs.tabletop.env import TabletopEnv
from eval_envs.tabletop.expert import expert_action
from eval_envs.tabletop.scene import TableState
from eval_envs.tabletop.tasks import FAMILIES, Task


def success_rate(family: str, episodes: int, noise: float) -> float:
    env = TabletopEnv(family, cameras=("front",), image_size=8)
    successes = 0
    for seed in range(episodes):
        env.reset(seed=seed)
        disturb = Disturbance(np.random.default_rng(seed), env.conventions.action, noise)
        is_over = False
        while not is_over:
            _, terminated, truncated, info = env.advance(disturb(env.expert_action()))
            is_over = terminated or truncated
        successes += info["is_success"]
    env.close()
    return successes / episodes


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_expert_reaches_the_goal_in_98_percent_of_episodes(family: str) -> None:
    assert success_rate(family, episodes=200, noise=0.0) >= 0.98


@pytest.mark.parametrize("family", FAMILIES)
def test_expert_recovers_from_most_mistakes(family: str) -> None:
    assert success_rate(family, episodes=40, noise=1.0) >= 0.85


def test_four_blocks_do_not_block_the_expert() -> None:
    env = TabletopEnv("stack", num_blocks=4, cameras=("front",), image_size=8)
    for seed in range(20):
        env.reset(seed=seed)
        is_over = False
        while not is_over:
            _, terminated, truncated, _ = env.advance(env.expert_action())
            is_over = terminated or truncated
        assert terminated
    env.close()


@pytest.fixture
def state() -> TableState:
    return TableState(
        gripper=np.array([0.0, 0.0, 0.12]),
        opening=0.08,
        blocks=np.array([[0.1, 0.0, 0.02], [-0.1, 0.1, 0.02]]),
        half_sizes=np.full((2, 3), 0.02),
        zone=np.array([0.0, -0.1]),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_expert_depends_on_nothing_but_the_state(family: str, state: TableState) -> None:
    task = Task(family, 0, 1)
    before = state.blocks.copy()
    actions = [expert_action(state, task) for _ in range(3)]
    assert np.array_equal(actions[0], actions[1])
    assert np.array_equal(actions[1], actions[2])
    assert np.array_equal(state.blocks, before)
    assert actions[0].dtype == np.float32
    assert np.abs(actions[0]).max() <= 1.0


def test_expert_closes_around_the_block_and_lifts_once_it_is_held(state: TableState) -> None:
    around = replace(state, gripper=np.array([0.1, 0.0, 0.02]))
    np.testing.assert_allclose(expert_action(around, Task("pick", 0)), [0, 0, 0, 1], atol=1e-6)
    held = replace(around, opening=0.04)
    np.testing.assert_allclose(expert_action(held, Task("pick", 0)), [0, 0, 1, 1], atol=1e-6)


def test_expert_reopens_after_closing_on_nothing(state: TableState) -> None:
    beside = replace(state, gripper=np.array([0.06, 0.0, 0.02]), opening=0.0)
    action = expert_action(beside, Task("pick", 0))
    assert action[3] == -1.0
    assert action[2] > 0.0


def test_expert_drops_a_block_that_was_not_asked_for(state: TableState) -> None:
    wrong = replace(state, gripper=np.array([-0.1, 0.1, 0.02]), opening=0.04)
    assert expert_action(wrong, Task("pick", 0))[3] == -1.0


def test_expert_realigns_when_the_block_left_the_line(state: TableState) -> None:
    # behind the block and low: it pushes; 3 cm beside the line it rises first
    ahead = (state.zone - state.blocks[0, :2]) / np.linalg.norm(state.zone - state.blocks[0, :2])
    behind = state.blocks[0, :2] - 0.05 * ahead
    pushing = replace(state, gripper=np.array([*behind, 0.022]), opening=0.0)
    assert expert_action(pushing, Task("push", 0))[:2] @ ahead > 0.4
    beside = behind + 0.03 * np.array([-ahead[1], ahead[0]])
    off_line = replace(pushing, gripper=np.array([*beside, 0.022]))
    assert expert_action(off_line, Task("push", 0))[2] > 0.3


def test_unknown_family_is_refused(state: TableState) -> None:
    with pytest.raises(ValueError, match="Name a family"):
        expert_action(state, Task("juggle", 0))


def test_blocks_are_held_by_friction() -> None:
    """The same commands that lift a block lift nothing when everything is slippery."""
    heights = []
    for friction in (1.5, 0.001):
        env = TabletopEnv("pick", cameras=("front",), image_size=8, shapes=("cube",))
        env.reset(seed=0)
        env._scene.model.geom_friction[:, 0] = friction
        for _ in range(20):
            env.advance(env.expert_action())
        heights.append(env.table_state.blocks[env.task.target, 2])
        env.close()
    assert heights[0] > 0.07
    assert heights[1] < 0.03


@pytest.mark.parametrize("family", ["push", "place"])
def test_nothing_is_teleported(family: str) -> None:
    """No block moves faster than the gripper can: 4 cm a step, plus what it slides on."""
    env = TabletopEnv(family, cameras=("front",), image_size=8)
    for seed in range(10):
        env.reset(seed=seed)
        blocks, is_over = env.table_state.blocks, False
        while not is_over:
            _, terminated, truncated, _ = env.advance(env.expert_action())
            moved = np.linalg.norm(env.table_state.blocks - blocks, axis=1).max()
            assert moved < 0.08
            blocks, is_over = env.table_state.blocks, terminated or truncated
    env.close()
