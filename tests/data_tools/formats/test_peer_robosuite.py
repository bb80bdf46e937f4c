"""robosuite records, robomimic renders; what we read is what MuJoCo itself says of each state."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset

pytestmark = [
    pytest.mark.slow,  # about fifteen seconds: the simulator is built four times
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("robosuite", "robomimic")),
        reason="robosuite or robomimic is not installed: make simulators installs robosuite",
    ),
]
PROGRAM = Path(__file__).with_name("robosuite_program.py")
# The script names no controller, and so no file says that it is robosuite's own, OSC_POSE.
SIDECAR = """
layout: {preset: robomimic, instruction: {text: lift the cube}}
action:
  names: [dx, dy, dz, drx, dry, drz, gripper]
  references: [delta, delta, delta, delta, delta, delta, absolute]
  rotation: axis_angle
  grippers: [{column: gripper, open_value: -1, closed_value: 1}]
"""
GRIPPER = 6


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("robosuite")
    made = subprocess.run(
        [sys.executable, PROGRAM, folder],
        env={**os.environ, "MUJOCO_GL": "egl"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr[-2000:]
    (folder / "image.hdf5.conventions.yaml").write_text(SIDECAR)
    return folder


@pytest.fixture(scope="module")
def truth(recorded):
    with np.load(recorded / "truth.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def dataset(recorded):
    return open_dataset(recorded / "image.hdf5")


def names(dataset):
    return [episode.name.rpartition("/")[2] for episode in dataset]


def with_gripper(dataset, command):
    """Name of the one demonstration with this gripper command: robosuite numbers them anyhow."""
    (name,) = [
        name
        for name, episode in zip(names(dataset), dataset, strict=True)
        if (episode.actions()[:, GRIPPER] == command).all()
    ]
    return name


def test_what_robosuite_gathers_has_no_observations_and_is_refused_with_the_way_on(recorded):
    with pytest.raises(UserError) as caught:
        open_dataset(recorded / "raw.hdf5")
    (told,) = caught.value.faults
    assert "robosuite demonstration without observations" in told
    assert "convert_robosuite.py" in told
    assert "dataset_states_to_obs.py" in told


def test_what_the_file_does_not_say_is_asked_for(recorded, tmp_path):
    path = tmp_path / "image.hdf5"
    shutil.copy(recorded / "image.hdf5", path)
    (told,) = open_dataset(path, allow_undeclared=True).inspected.undeclared
    for place in ("layout.instruction", "action.references", "action.grippers", "action.rotation"):
        assert place in told
    assert "control_hz" not in told


def test_what_robomimic_has_only_named_is_still_refused(recorded):
    with pytest.raises(UserError, match=r"states without observations.*dataset_states_to_obs"):
        open_dataset(recorded / "demo.hdf5")


def test_poses_and_fingers_are_those_of_the_simulator(dataset, truth):
    assert names(dataset) == ["demo_1", "demo_2"]
    assert dataset.conventions.state.names[3:7] == ("eef_qx", "eef_qy", "eef_qz", "eef_qw")
    for name, episode in zip(names(dataset), dataset, strict=True):
        expected = truth[f"{name}/state"]
        found = episode.state()
        np.testing.assert_allclose(found[:, :3], expected[:, :3], atol=1e-6)
        np.testing.assert_allclose(found[:, 7:], expected[:, 7:], atol=1e-6)
        sign = np.sign((found[:, 3:7] * expected[:, 3:7]).sum(axis=1, keepdims=True))
        np.testing.assert_allclose(found[:, 3:7], sign * expected[:, 3:7], atol=1e-6)


@pytest.mark.parametrize("camera", ["agentview", "robot0_eye_in_hand"])
def test_frames_are_upright_and_rgb(dataset, truth, camera):
    for name, episode in zip(names(dataset), dataset, strict=True):
        for step, rendered in enumerate(truth[f"{name}/{camera}"].astype(int)):
            found = episode.image(camera, step)

            def error(other, found=found):
                return abs(found - other).mean()

            nearest_wrong = min(
                error(rendered[::-1]), error(rendered[:, ::-1]), error(rendered[..., ::-1])
            )
            assert error(rendered) < 0.2 * nearest_wrong, (name, step)


def test_actions_are_the_numbers_given_and_mean_what_is_declared(dataset, truth):
    with h5py.File(dataset.inspected.files[0]) as file:
        for name, episode in zip(names(dataset), dataset, strict=True):
            given = file[f"data/{name}/actions"][()].astype(np.float32)
            np.testing.assert_array_equal(episode.actions(), given)
    (gripper,) = dataset.conventions.action.grippers
    assert dataset.conventions.action.references[0] == "delta"
    for command, moved in ((gripper.open_value, 0), (gripper.closed_value, 2)):
        path = truth[f"{with_gripper(dataset, command)}/state"]
        travel = path[-1, :3] - path[0, :3]
        assert np.argmax(abs(travel)) == moved
        assert travel[moved] > 0.01
        widths = path[:, 7] - path[:, 8]
        assert (widths[-1] > widths[0]) == (command == gripper.open_value)


def test_success_is_what_the_environment_says(dataset):
    """The operator kept both demonstrations; the cube was lifted in the one that closes alone."""
    (gripper,) = dataset.conventions.action.grippers
    found = dict(zip(names(dataset), [episode.is_success for episode in dataset], strict=True))
    assert found[with_gripper(dataset, gripper.open_value)] is False
    assert found[with_gripper(dataset, gripper.closed_value)] is True


def test_the_rate_is_that_of_the_environment_and_the_split_of_robomimic_is_a_filter_key(recorded):
    chosen = open_dataset(recorded / "image.hdf5", mask="train")
    assert chosen.conventions.control_hz == 20
    with h5py.File(recorded / "image.hdf5") as file:
        assert [n.encode() for n in names(chosen)] == sorted(file["mask/train"][()])
