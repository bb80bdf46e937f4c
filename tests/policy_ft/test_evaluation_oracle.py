"""The oracle-state control: a small net that is told where the target is solves the task.

If this control failed, the harness would be broken or the expert not a function of the state; no
policy that must find the target in pixels could then be blamed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

from data_tools.conventions import Conventions
from data_tools.episode import Observation
from eval_envs.disturbance import Disturbance
from eval_envs.episodes import seeded_suite
from eval_envs.making import make_env
from eval_envs.pool import LocalPool
from policy_ft.evaluation.rollout import evaluate
from policy_ft.execution.executor import RecedingHorizon
from policy_ft.models.solvers import SampleRequest

ENV = "eval_envs:Tabletop-v0"


def oracle_state(env: Any) -> np.ndarray:
    """float32[5]: from gripper to target, gripper height and opening, in units of 5 cm."""
    table, target = env.table_state, env.task.target
    way = table.blocks[target] - table.gripper
    return np.array([*way, table.gripper[2], table.opening], np.float32) / 0.05


class ShowTarget(gymnasium.ObservationWrapper):
    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        return {**observation, "state": oracle_state(self.env.unwrapped)}


@dataclass
class OraclePolicy:
    net: nn.Module
    conventions: Conventions
    chunk_shape: tuple[int, int] = (1, 4)

    def act(self, observations: Sequence[Observation], request: SampleRequest) -> list[np.ndarray]:
        with torch.inference_mode():
            actions = self.net(torch.from_numpy(np.stack([each.state for each in observations])))
        return list(actions.clamp(-1, 1).numpy()[:, None])


def demonstrations(env: Any, num_episodes: int) -> tuple[torch.Tensor, torch.Tensor]:
    states, actions = [], []
    for seed in range(num_episodes):
        env.reset(seed=seed)
        random, is_over = np.random.default_rng(seed), False
        disturbance = Disturbance(random, env.conventions.action, strength=1.0)
        while not is_over:
            action = env.expert_action()
            states.append(oracle_state(env))
            actions.append(action)
            _, terminated, truncated, _ = env.advance(disturbance(action))
            is_over = terminated or truncated
    return torch.from_numpy(np.stack(states)), torch.from_numpy(np.stack(actions))


def cloned(states: torch.Tensor, actions: torch.Tensor) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 96), nn.GELU(), nn.Linear(96, 96), nn.GELU(), nn.Linear(96, 4))
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    steps = 2500
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(steps):
        batch = torch.randint(len(states), (256,))
        loss = nn.functional.smooth_l1_loss(net(states[batch]), actions[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net


@pytest.mark.slow
@pytest.mark.parametrize(("task", "least"), [("reach", 0.95), ("pick", 0.9)])
def test_policy_that_is_told_the_targets_position_succeeds(task: str, least: float) -> None:
    settings = {"task": task, "image_size": 8, "cameras": ["front"]}
    env = make_env(ENV, settings).unwrapped
    policy = OraclePolicy(cloned(*demonstrations(env, 300)), env.conventions)
    env.close()
    suite = seeded_suite(ENV, settings, range(10_000, 10_050))
    with LocalPool(10, [ShowTarget]) as pool:
        result = evaluate(
            policy, suite, pool=pool, executor=RecedingHorizon(1), num_sampling_steps=1
        )
    assert result.success.success_rate >= least
