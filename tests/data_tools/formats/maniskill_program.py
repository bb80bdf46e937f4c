"""Records two episodes with ManiSkill's own RecordEpisode, without its simulator.

python maniskill_program.py FOLDER MODE leaves there trajectory.h5 and its .json, and truth.npz. The
writer, its array helpers and its JSON are ManiSkill's; SAPIEN and what needs it are stood in for.
MODE is rgb, state or none: ManiSkill's obs_mode.
"""

import importlib.util
import sys
import types
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch

STEPS = (6, 4)
SEEDS = (70, 71)


class SimulatorEnv(gym.Env):
    """Stands where ManiSkill's base class does, so that its recorder finds what it asks for."""

    num_envs, gpu_sim_enabled, control_mode = 1, False, "pd_ee_delta_pose"
    single_action_space = action_space = gym.spaces.Box(-1, 1, (8,), np.float32)

    def __init__(self, mode):
        self.mode, self.rng, self._episode_seed = mode, np.random.default_rng(0), np.zeros(1, int)
        self.spec = gym.envs.registration.EnvSpec(
            "PickCube-v1", entry_point="elsewhere:PickCube", kwargs={"obs_mode": mode}
        )

    def reset(self, *, seed=None, options=None):
        self._episode_seed = np.array([seed])
        self.num_steps = 0
        return self.observed(), {"reconfigure": False}

    def step(self, action):
        self.num_steps += 1
        is_success = torch.tensor([self.num_steps == STEPS[0]])
        no = torch.zeros(1, dtype=torch.bool)
        return self.observed(), torch.ones(1), no, no.clone(), {"success": is_success, "fail": no}

    def observed(self):
        """Tensors of a batch of one, as SAPIEN on a CPU gives them."""
        if self.mode == "none":
            return {}
        if self.mode == "state":
            return self.floats(42)
        frame = np.arange(32)[None, :, None] * 5 + np.arange(24)[:, None, None] * self.num_steps
        frame = (frame + np.array([0, 9, 30])).clip(0, 255).astype(np.uint8)
        pictures = {
            "rgb": torch.from_numpy(frame)[None],
            "depth": torch.full((1, 24, 32, 1), 1000 + self.num_steps, dtype=torch.int16),
        }
        return {
            "agent": {"qpos": self.floats(9), "qvel": self.floats(9)},
            "extra": {
                "tcp_pose": self.floats(7),
                "is_grasped": torch.tensor([self.num_steps > 2]),
                "goal_pos": self.floats(3),
            },
            "sensor_param": {"base_camera": {"intrinsic_cv": torch.eye(3)[None]}},
            "sensor_data": {"base_camera": pictures},
        }

    def floats(self, width):
        return torch.from_numpy(self.rng.normal(size=(1, width)).astype(np.float32))

    def get_state_dict(self):
        return {"actors": {"cube": self.floats(13)}, "articulations": {"panda": self.floats(31)}}


def module(name, **members):
    made = types.ModuleType(name)
    made.__path__ = []  # a package, too
    vars(made).update(members)
    sys.modules[name] = made
    return made


def recorder():
    """RecordEpisode, of ManiSkill's own file."""
    (home,) = importlib.util.find_spec("mani_skill").submodule_search_locations
    module("sapien")
    sys.modules["sapien"].physx = module("sapien.physx", is_gpu_enabled=lambda: False)
    module("mani_skill", get_commit_info=lambda: {}).__path__ = [home]
    module("mani_skill.envs")
    module("mani_skill.envs.sapien_env", BaseEnv=SimulatorEnv)
    module("mani_skill.utils").__path__ = [f"{home}/utils"]
    module("mani_skill.utils.structs")
    module("mani_skill.utils.structs.types", Array=torch.Tensor, Device=str)
    wide = {"find_max_episode_steps_value": lambda _: 50}
    sys.modules["mani_skill.utils"].gym_utils = module("mani_skill.utils.gym_utils", **wide)
    same = {"is_state_dict_consistent": lambda _: True}
    sys.modules["mani_skill.utils"].sapien_utils = module("mani_skill.utils.sapien_utils", **same)
    drawn = dict.fromkeys(("images_to_video", "put_info_on_image", "tile_images"))
    module("mani_skill.utils.visualization")
    module("mani_skill.utils.visualization.misc", **drawn)
    wrappers = module("mani_skill.utils.wrappers", CPUGymWrapper=type("CPUGymWrapper", (), {}))
    wrappers.__path__ = [f"{home}/utils/wrappers"]
    from mani_skill.utils.wrappers.record import RecordEpisode

    return RecordEpisode


def record(folder, mode):
    env = SimulatorEnv(mode)
    recorded = recorder()(env, str(folder), trajectory_name="trajectory", save_video=False)
    truth = {}
    for number, (seed, num_steps) in enumerate(zip(SEEDS, STEPS, strict=True)):
        seen, _ = recorded.reset(seed=seed)
        rows = [seen]
        actions = env.rng.uniform(-1, 1, (num_steps, 8)).astype(np.float32)
        for action in actions:
            rows.append(recorded.step(torch.from_numpy(action)[None])[0])
        truth[f"{number}/actions"] = actions
        if mode == "rgb":
            parts = ("agent", "qpos"), ("agent", "qvel")
            parts += tuple(("extra", name) for name in rows[0]["extra"])
            for group, name in parts:
                values = [np.atleast_1d(row[group][name][0].numpy()) for row in rows[:-1]]
                truth[f"{number}/{name}"] = np.array(values)
            frames = [row["sensor_data"]["base_camera"]["rgb"][0].numpy() for row in rows[:-1]]
            truth[f"{number}/frames"] = np.array(frames)
        elif mode == "state":
            truth[f"{number}/state"] = np.array([row[0].numpy() for row in rows[:-1]])
    recorded.close()
    np.savez(folder / "truth.npz", **truth)


if __name__ == "__main__":
    record(Path(sys.argv[1]), sys.argv[2])
