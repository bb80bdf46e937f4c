"""A point that is to reach a goal: a Gymnasium environment without a camera, and its expert."""

from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
import yaml

from data_tools.conventions import ActionSpec, Conventions, StateSpec
from policy_ft.config.run import RunConfig

ENV = "tests.policy_ft.point_world:Point-v0"
SENTENCE = "reach the goal"
CONVENTIONS = Conventions(
    cameras=(),
    state=StateSpec(names=("x", "y", "goal_x", "goal_y"), units=("m",) * 4, frame="world"),
    action=ActionSpec(
        names=("vx", "vy"),
        units=("m/s", "m/s"),
        references=("velocity", "velocity"),
        low=(-1, -1),
        high=(1, 1),
        frame="world",
    ),
    control_hz=10,
)
STEP_S, REACHED_M = 0.1, 0.05


class Point(gymnasium.Env[dict[str, Any], np.ndarray]):
    """It moves as it is told; observations hold no images at all."""

    conventions = CONVENTIONS
    max_episode_steps = 40

    def __init__(self) -> None:
        box = gymnasium.spaces.Box
        self.observation_space = gymnasium.spaces.Dict(
            {
                "state": box(-10.0, 10.0, (4,), np.float32),
                "instruction": gymnasium.spaces.Text(64, charset="acehlgrot "),
            }
        )
        self.action_space = box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._place, self._goal = self.np_random.uniform(-0.5, 0.5, (2, 2))
        self._steps = 0
        return self._seen(), self._info()

    def step(self, action):
        self._place = self._place + STEP_S * np.clip(action, -1.0, 1.0)
        self._steps += 1
        info = self._info()
        is_late = self._steps >= self.max_episode_steps
        return self._seen(), 0.0, info["is_success"], is_late, info

    def _seen(self) -> dict[str, Any]:
        state = np.concatenate([self._place, self._goal]).astype(np.float32)
        return {"state": state, "instruction": SENTENCE}

    def _info(self) -> dict[str, Any]:
        return {"is_success": bool(np.linalg.norm(self._place - self._goal) < REACHED_M)}


gymnasium.register(id="Point-v0", entry_point=Point)


def demonstrations(num_episodes: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """float32[t, 4] and float32[t, 2] of each episode: states and the expert's velocities."""
    rng, env, shown = np.random.default_rng(0), Point(), []
    for seed in range(num_episodes):
        observation, _ = env.reset(seed=seed)
        states, actions = [], []
        for _ in range(24):
            state = observation["state"]
            action = np.clip(3 * (state[2:] - state[:2]) + 0.05 * rng.normal(size=2), -1, 1)
            states.append(state)
            actions.append(action.astype(np.float32))
            observation = env.step(action)[0]
        shown.append((np.array(states), np.array(actions)))
    return shown


def write_d4rl(path: Path, num_episodes: int = 12) -> Path:
    """The demonstrations in D4RL's flat arrays, and beside them what no file tells."""
    shown = demonstrations(num_episodes)
    lengths = [len(states) for states, _ in shown]
    ends = np.isin(np.arange(sum(lengths)), np.cumsum(lengths) - 1)
    with h5py.File(path, "w") as file:
        file["observations"] = np.concatenate([states for states, _ in shown])
        file["actions"] = np.concatenate([actions for _, actions in shown])
        file["rewards"] = np.zeros(len(ends), np.float32)
        file["terminals"], file["timeouts"] = np.zeros_like(ends), ends
    declare(path.with_name(f"{path.name}.conventions.yaml"), "d4rl")
    return path


def write_minari(folder: Path, num_episodes: int = 6) -> Path:
    """The demonstrations as Minari lays them out."""
    path = folder / "point/data/main_data.hdf5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        for number, (states, actions) in enumerate(demonstrations(num_episodes)):
            group = file.create_group(f"episode_{number}")
            group["observations"] = np.concatenate([states, states[-1:]])
            group["actions"] = actions
            group["rewards"] = np.zeros(len(actions))
            group["terminations"] = np.zeros(len(actions), bool)
            group["truncations"] = np.arange(len(actions)) == len(actions) - 1
    declare(path.with_name(f"{path.name}.conventions.yaml"), "minari")
    return path


def declare(path: Path, preset: str) -> None:
    said = CONVENTIONS.model_dump(mode="json", exclude={"cameras"})
    said["layout"] = {"preset": preset, "instruction": {"text": SENTENCE}}
    path.write_text(yaml.safe_dump(said), encoding="utf-8")


def without_images(folder: Path) -> RunConfig:
    """The shipped recipe, smaller and on the demonstrations of a point.

    It has no kinks, as towers with ReLU have: rounding never switches a gradient on or off.
    """
    values = yaml.safe_load((Path(__file__).parents[2] / "configs/state_only.yaml").read_text())
    values["policy"]["model"] |= {"state_dim": 4, "action_dim": 2, "action_horizon": 4}
    data = write_d4rl(folder / "point.hdf5")
    values |= {"output_dir": str(folder / "one states"), "validation": {"every": 3}}
    values["data"] = {"path": str(data), "num_workers": 0, "validation_fraction": 0.2}
    values["training"] = {"steps": 6, "batch_size": 12, "log_every": 1, "num_threads": 1}
    values["training"] |= {"precision": "fp32", "deterministic": True, "save_every": 3}
    rollouts = {"env": ENV, "episodes": 3, "num_envs": 1, "every": 6}
    values["evaluation"] = {**rollouts, "replan_steps": 4, "seed": 7}
    return RunConfig.model_validate(values)
