"""Records with robosuite, renders with robomimic, and says what MuJoCo itself makes of it.

python robosuite_program.py FOLDER leaves there raw.hdf5, as robosuite's collection script gathers
it; image.hdf5, which robomimic's scripts make of it; and truth.npz, from MuJoCo alone. No line of
these projects is replaced, only what they import beside the writing: compilers, windows, training.
"""

import json
import os
import runpy
import shutil
import sys
import types
from pathlib import Path

import h5py
import mujoco
import numpy as np

CAMERAS = ("agentview", "robot0_eye_in_hand")
HEIGHT, WIDTH = 36, 48
MADE_WITH = {"robots": "Panda", "control_freq": 20, "hard_reset": False}
STEPS = 6


def stand_in(name, **members):
    module = types.ModuleType(name)
    vars(module).update(members)
    sys.modules[name] = module


def compiled(**_):
    return lambda function: function


def imports():
    stand_in("numba", jit=compiled)
    stand_in("cv2")
    stand_in("mujoco_py")
    stand_in("egl_probe", get_available_devices=lambda: [])
    stand_in("robomimic.algo", algo_factory=None, RolloutPolicy=None)
    stand_in("robomimic.config", config_factory=None)


def collect(folder):
    """Two demonstrations: dx with an opening gripper, dz with a closing one and a lifted cube."""
    import robosuite
    from robosuite.scripts.collect_human_demonstrations import gather_demonstrations_as_hdf5
    from robosuite.wrappers import DataCollectionWrapper

    env = robosuite.make(
        "Lift", **MADE_WITH, has_renderer=False, has_offscreen_renderer=False, use_camera_obs=False
    )
    wrapper = DataCollectionWrapper(env, str(folder / "steps"))
    for column, grip in ((0, -1.0), (2, 1.0)):
        wrapper.reset()
        action = np.zeros(7)
        action[[column, 6]] = 1, grip
        for step in range(STEPS):
            if grip > 0 and step == STEPS - 2:
                place = env.sim.data.get_joint_qpos(env.cube.joints[0])
                place[2] += 0.3
                env.sim.data.set_joint_qpos(env.cube.joints[0], place)
            wrapper.step(action)
        wrapper.successful = True  # the operator keeps it
    wrapper.close()
    gather_demonstrations_as_hdf5(str(folder / "steps"), str(folder), json.dumps(MADE_WITH))
    shutil.copy(folder / "demo.hdf5", folder / "raw.hdf5")


def run_script(name, *arguments):
    sys.argv = [name, *map(str, arguments)]
    runpy.run_module(name, run_name="__main__")


def render(folder):
    raw = folder / "demo.hdf5"
    run_script("robomimic.scripts.conversion.convert_robosuite", "--dataset", raw)
    sizes = ("--camera_height", HEIGHT, "--camera_width", WIDTH)
    made = ("--output_name", "image.hdf5", "--done_mode", 0, "--camera_names", *CAMERAS, *sizes)
    run_script("robomimic.scripts.dataset_states_to_obs", "--dataset", raw, *made)


def truth(folder):
    """Poses, finger joints and upright frames of each recorded state."""
    found = {}
    looks = mujoco.MjvOption()
    looks.geomgroup[0] = 0  # bodies as they look, not as they collide
    with h5py.File(folder / "raw.hdf5") as file:
        for name, demo in file["data"].items():
            model = mujoco.MjModel.from_xml_string(demo.attrs["model_file"])
            data = mujoco.MjData(model)
            rows = []
            pictures = {camera: [] for camera in CAMERAS}
            with mujoco.Renderer(model, HEIGHT, WIDTH) as renderer:
                for state in demo["states"]:
                    data.qpos[:] = state[1 : 1 + model.nq]
                    mujoco.mj_forward(model, data)
                    turn = np.roll(data.body("robot0_right_hand").xquat, -1)  # x, y, z, w
                    fingers = [
                        data.joint(f"gripper0_right_finger_joint{n}").qpos[0] for n in (1, 2)
                    ]
                    rows.append([*data.site("gripper0_right_grip_site").xpos, *turn, *fingers])
                    for camera, frames in pictures.items():
                        renderer.update_scene(data, camera=camera, scene_option=looks)
                        frames.append(renderer.render())
            found[f"{name}/state"] = np.array(rows)
            found |= {f"{name}/{camera}": np.array(made) for camera, made in pictures.items()}
    np.savez(folder / "truth.npz", **found)


if __name__ == "__main__":
    into = Path(sys.argv[1])
    os.makedirs(into, exist_ok=True)
    imports()
    collect(into)
    render(into)
    truth(into)
