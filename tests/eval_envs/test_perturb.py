import gymnasium
import numpy as np
import pytest

from data_tools.errors import UserError
from eval_envs.contract import ChunkStep
from eval_envs.perturb import BlankImages, SwappedInstruction

ENV_ID = "eval_envs:Tabletop-v0"


def test_blank_images_carry_nothing_and_keep_their_shape() -> None:
    env = BlankImages(ChunkStep(gymnasium.make(ENV_ID, task="pick", image_size=16), 2))
    first, _ = env.reset(seed=0)
    second, *_ = env.step(np.ones((2, 4), np.float32))
    for observation in (first, second):
        assert observation in env.observation_space
        assert all(np.ptp(image) == 0 for image in observation["images"].values())
    assert not np.array_equal(first["state"], second["state"])
    env.close()


def test_swapped_instruction_names_another_block_and_the_goal_stays() -> None:
    env = SwappedInstruction(ChunkStep(gymnasium.make(ENV_ID, task="reach", image_size=8), 1))
    for seed in range(10):
        observation, info = env.reset(seed=seed)
        assert info["target"] not in observation["instruction"]
        assert info["others"][0] in observation["instruction"]
        is_over = False
        while not is_over:
            action = env.unwrapped.expert_action()[None]
            observation, _, terminated, truncated, info = env.step(action)
            assert info["target"] not in observation["instruction"]
            is_over = terminated or truncated
        assert info["is_success"]
    env.close()


def test_swapping_needs_another_block() -> None:
    env = SwappedInstruction(gymnasium.make(ENV_ID, task="reach", num_blocks=1, image_size=8))
    with pytest.raises(UserError, match="more than one of them"):
        env.reset(seed=0)
    env.close()
