import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from data_tools.errors import UserError
from eval_envs.contract import ChunkStep, check_env, to_observation
from eval_envs.tabletop.env import TabletopEnv
from eval_envs.tabletop.layout import BASE_COLORS

ENV_ID = "eval_envs:Tabletop-v0"


@pytest.fixture(scope="module")
def env() -> Iterator[TabletopEnv]:
    made = TabletopEnv("reach+push+pick+place+stack")
    yield made
    made.close()


def play(env: TabletopEnv, seed: int, steps: int = 12) -> list[dict]:
    seen = [env.reset(seed=seed)[0]]
    for _ in range(steps):
        seen.append(env.step(env.expert_action())[0])
    return seen


def same(first: list[dict], second: list[dict]) -> bool:
    return all(
        a["instruction"] == b["instruction"]
        and np.array_equal(a["state"], b["state"])
        and all(np.array_equal(a["images"][name], b["images"][name]) for name in a["images"])
        for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("task", ["reach", "stack"])
def test_keeps_the_contract_and_gymnasiums(task: str) -> None:
    check_env(gymnasium.make(ENV_ID, task=task, render_mode="rgb_array"))


def test_same_seed_same_bits_whatever_happened_before(env: TabletopEnv) -> None:
    first = play(env, seed=5)
    play(env, seed=6)
    assert same(first, play(env, seed=5))
    assert not same(first, play(env, seed=6))


def test_another_instance_gives_the_same_bits(env: TabletopEnv) -> None:
    other = TabletopEnv("reach+push+pick+place+stack")
    assert same(play(env, seed=5), play(other, seed=5))
    other.close()


def test_looking_does_not_change_the_episode(env: TabletopEnv) -> None:
    env.reset(seed=3)
    for _ in range(8):
        env.advance(env.expert_action())
    unseen = env.observe()
    assert same([unseen], [play(env, seed=3, steps=8)[-1]])


def test_observation_holds_what_the_conventions_declare(env: TabletopEnv) -> None:
    observation = to_observation(env.reset(seed=0)[0])
    assert list(observation.images) == list(env.conventions.camera_names) == ["front", "wrist"]
    assert observation.state.shape == (len(env.conventions.state.names),)
    np.testing.assert_allclose(observation.state[:3], env.table_state.gripper, atol=1e-6)
    assert observation.state[3] == pytest.approx(0.08, abs=1e-6)


def test_gripper_sign_is_the_declared_one(env: TabletopEnv) -> None:
    gripper = env.conventions.action.grippers[0]
    env.reset(seed=0)
    for _ in range(4):
        env.advance(np.array([0, 0, 0, gripper.closed_value], np.float32))
    assert env.table_state.opening < 0.002
    for _ in range(4):
        env.advance(np.array([0, 0, 0, gripper.open_value], np.float32))
    assert env.table_state.opening > 0.078


def test_one_step_moves_by_the_commanded_displacement(env: TabletopEnv) -> None:
    # a command of 0.5 is 0.5 x 4 cm = 2 cm, reached within one step of 0.1 s to 1 mm
    env.reset(seed=1)
    before = env.table_state.gripper
    env.advance(np.array([0.5, -0.5, 0.5, -1], np.float32))
    np.testing.assert_allclose(env.table_state.gripper - before, [0.02, -0.02, 0.02], atol=1e-3)


def test_state_of_a_resting_gripper_stays(env: TabletopEnv) -> None:
    env.reset(seed=1)
    before = env.table_state.gripper
    for _ in range(20):
        env.advance(np.array([0, 0, 0, -1], np.float32))
    np.testing.assert_allclose(env.table_state.gripper, before, atol=5e-4)


def test_blocks_of_an_episode_have_different_colors_and_the_sentence_names_the_target() -> None:
    env = TabletopEnv("pick", num_blocks=4, cameras=("front",), image_size=8)
    for seed in range(30):
        observation, info = env.reset(seed=seed)
        assert info["target"] in observation["instruction"]
        colors = {name.split()[0] for name in (info["target"], *info["others"])}
        assert colors == set(BASE_COLORS)
    env.close()


def test_held_back_color_is_commanded_among_base_colors() -> None:
    env = TabletopEnv("pick", colors=("purple",), cameras=("front",), image_size=8)
    for seed in range(10):
        _, info = env.reset(seed=seed)
        assert info["target"].startswith("purple")
        assert all(name.split()[0] in BASE_COLORS for name in info["others"])
    env.close()


def test_every_paraphrase_and_family_occurs(env: TabletopEnv) -> None:
    seen = [env.reset(seed=seed) for seed in range(60)]
    assert {info["family"] for _, info in seen} == {"reach", "push", "pick", "place", "stack"}
    assert len({observation["instruction"].split()[0] for observation, _ in seen}) > 8


def test_instruction_can_be_replaced() -> None:
    env = TabletopEnv("pick", instruction="do nothing", cameras=("front",), image_size=8)
    assert env.reset(seed=0)[0]["instruction"] == "do nothing"
    env.close()


def test_success_on_another_block_counts_as_any_only() -> None:
    env = TabletopEnv("reach", cameras=("front",), image_size=8)
    env.reset(seed=0)
    wrong = (env.task.target + 1) % 3
    for _ in range(25):
        state = env.table_state
        goal = state.blocks[wrong] + (0.0, 0.0, 0.05)
        action = np.append(np.clip((goal - state.gripper) / 0.04, -1, 1), -1)
        _, terminated, truncated, info = env.advance(action.astype(np.float32))
    assert (info["is_success"], info["success_any"]) == (False, True)
    assert (terminated, truncated) == (False, True)
    env.close()


def test_success_ends_the_episode_unless_told_otherwise() -> None:
    for ends in (True, False):
        env = TabletopEnv("reach", cameras=("front",), image_size=8, terminate_on_success=ends)
        env.reset(seed=0)
        for _ in range(env.max_episode_steps):
            reward, terminated, truncated, info = env.advance(env.expert_action())
            if terminated or truncated:
                break
        assert (terminated, truncated) == (ends, not ends)
        assert reward == 1.0
        assert info["is_success"]
        env.close()


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"task": "stak"}, "did you mean 'stack'?"),
        ({"task": ""}, "Choose one of them"),
        ({"cameras": ("front", "wirst")}, "did you mean 'wrist'?"),
        ({"cameras": ()}, "Name each once"),
        ({"colors": ("red", "red")}, "Name each once"),
        ({"colors": ("violet",)}, "Choose one of them"),
        ({"scene_colors": ("red", "green")}, "Add colours, or lower num_blocks"),
        ({"shapes": ("cubes",)}, "did you mean 'cube'?"),
        ({"num_blocks": 5}, "Choose a number in between"),
        ({"task": "stack", "num_blocks": 1}, "Raise num_blocks"),
        ({"image_size": 128}, "Choose a size in between"),
        ({"render_mode": "human"}, "Choose one of them"),
    ],
)
def test_a_setting_that_cannot_be_honoured_is_refused(settings: dict, remedy: str) -> None:
    with pytest.raises(UserError, match=remedy.replace("?", r"\?")):
        TabletopEnv(**settings)


def test_all_faulty_settings_are_named_at_once() -> None:
    with pytest.raises(UserError) as caught:
        TabletopEnv("jump", image_size=7, num_blocks=0)
    assert len(caught.value.faults) == 3


@pytest.mark.parametrize("action", [[0, 0, np.nan, 0], [0, 0, 0], [[0, 0, 0, 0]]])
def test_an_action_that_is_not_four_finite_numbers_is_refused(
    env: TabletopEnv, action: list
) -> None:
    env.reset(seed=0)
    with pytest.raises(UserError, match="Give dx, dy, dz and the gripper"):
        env.step(np.array(action, np.float32))


def test_a_step_before_the_first_reset_is_refused() -> None:
    with pytest.raises(gymnasium.error.ResetNeeded, match="Call reset"):
        TabletopEnv("pick").advance(np.zeros(4, np.float32))


def make_chunked() -> gymnasium.Env:
    return ChunkStep(gymnasium.make(ENV_ID, task="pick+stack", image_size=16), chunk_length=3)


@pytest.mark.parametrize(
    "kind",
    [SyncVectorEnv, partial(AsyncVectorEnv, context="spawn", shared_memory=False)],
    ids=["sync", "async"],
)
def test_vector_environments_give_the_bits_of_single_ones(kind: type) -> None:
    vector = kind([make_chunked, make_chunked])
    observations, infos = vector.reset(seed=[4, 9])
    vector.action_space.seed(0)
    actions = vector.action_space.sample()
    observations, _, _, _, infos = vector.step(actions)
    for index, seed in enumerate((4, 9)):
        single = make_chunked()
        single.reset(seed=seed)
        expected, _, _, _, info = single.step(actions[index])
        for name, image in expected["images"].items():
            assert np.array_equal(observations["images"][name][index], image)
        assert np.array_equal(observations["state"][index], expected["state"])
        assert observations["instruction"][index] == expected["instruction"]
        assert infos["steps_taken"][index] == info["steps_taken"] == 3
        assert infos["target"][index] == info["target"]
        single.close()
    vector.close()


def run_python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )


def test_importing_the_package_loads_neither_mujoco_nor_torch() -> None:
    code = "import sys, eval_envs; print({'mujoco', 'torch', 'OpenGL'} & set(sys.modules))"
    assert run_python(code).stdout.strip() == "set()"


def test_making_an_environment_loads_no_torch() -> None:
    code = (
        "import sys, gymnasium; env = gymnasium.make('eval_envs:Tabletop-v0'); env.reset(seed=0);"
        "print('torch' in sys.modules)"
    )
    result = run_python(code)
    assert (result.stdout.strip(), result.stderr) == ("False", "")


def test_missing_opengl_names_the_packages_to_install() -> None:
    code = "import gymnasium; gymnasium.make('eval_envs:Tabletop-v0')"
    assert "apt-get install libegl1 libgl1-mesa-dri" in run_python(code, MUJOCO_GL="none").stderr
