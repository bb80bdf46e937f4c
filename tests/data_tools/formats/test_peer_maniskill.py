"""What ManiSkill's own recorder writes is read as the environment gave it."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset
from tests.data_tools.fixtures import maniskill

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mani_skill") is None,
    reason="mani_skill is not installed: make simulators installs it",
)
PROGRAM = Path(__file__).with_name("maniskill_program.py")
SIDECAR = {
    "layout": {"preset": "maniskill", "instruction": {"text": "pick up the cube"}},
    "action": {"references": "delta", "grippers": []},
    "control_hz": 20,
}
PARTS = ("qpos", "qvel", "goal_pos", "tcp_pose")  # is_grasped is a boolean


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """Records two episodes of 6 and 4 steps: the file, and what the environment gave."""

    def make(mode):
        folder = tmp_path_factory.mktemp(mode)
        command = [sys.executable, PROGRAM, folder, mode]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr[-2000:]
        (folder / "trajectory.h5.conventions.yaml").write_text(yaml.safe_dump(SIDECAR))
        with np.load(folder / "truth.npz") as arrays:
            return folder / "trajectory.h5", dict(arrays)

    return make


@pytest.fixture(scope="module")
def pictured(record):
    return record("rgb")


def test_numbers_are_those_the_environment_gave(pictured):
    path, truth = pictured
    dataset = open_dataset(path)
    names = dataset.conventions.state.names
    columns = {part: [i for i, name in enumerate(names) if name.startswith(part)] for part in PARTS}
    assert sum(map(len, columns.values())) == len(names) == 9 + 9 + 3 + 7
    assert [episode.num_steps for episode in dataset] == [6, 4]
    for number, episode in enumerate(dataset):
        for part, chosen in columns.items():
            expected = truth[f"{number}/{part}"].astype(np.float32)
            np.testing.assert_array_equal(episode.state()[:, chosen], expected)
        np.testing.assert_array_equal(episode.actions(), truth[f"{number}/actions"])


def test_a_boolean_is_told_and_read_where_the_sidecar_names_it(pictured, tmp_path):
    path, truth = pictured
    warnings = open_dataset(path).inspected.warnings
    (left_out,) = (warning for warning in warnings if warning.rule == "column_not_read")
    assert left_out.where.endswith("traj_0/obs/extra/is_grasped")
    shutil.copytree(path.parent, tmp_path / "named")
    named = tmp_path / "named" / path.name
    layout = SIDECAR["layout"] | {"state": ["obs/agent/*", "obs/extra/is_grasped"]}
    sidecar = yaml.safe_dump(SIDECAR | {"layout": layout})
    named.with_name(f"{path.name}.conventions.yaml").write_text(sidecar)
    for number, episode in enumerate(open_dataset(named)):
        np.testing.assert_array_equal(episode.state()[:, 18:], truth[f"{number}/is_grasped"])


def test_frames_are_those_the_environment_gave(pictured):
    path, truth = pictured
    for number, episode in enumerate(open_dataset(path)):
        for step, frame in enumerate(truth[f"{number}/frames"]):
            np.testing.assert_array_equal(episode.image("base_camera", step), frame)


def test_success_and_what_the_json_beside_the_file_says(pictured):
    episodes = list(open_dataset(pictured[0]))
    assert [episode.is_success for episode in episodes] == [True, False]
    assert [episode.attributes["seed"] for episode in episodes] == [70, 71]
    assert {episode.attributes["control_mode"] for episode in episodes} == {"pd_ee_delta_pose"}
    assert {episode.attributes["task"] for episode in episodes} == {"PickCube-v1"}


def test_a_recording_of_states_alone_is_read(record):
    path, truth = record("state")
    dataset = open_dataset(path)
    assert dataset.conventions.cameras == ()
    for number, episode in enumerate(dataset):
        np.testing.assert_array_equal(episode.state(), truth[f"{number}/state"])


def test_a_recording_without_observations_is_refused(record):
    path, _ = record("none")
    words = r"trajectories without observations.*mani_skill\.trajectory\.replay_trajectory .*rgb"
    (path.parent / f"{path.name}.conventions.yaml").unlink()  # it names the layout with pictures
    with pytest.raises(UserError, match=words) as caught:
        open_dataset(path)
    assert len(caught.value.faults) == 1


def test_our_fixture_has_the_shape_of_the_real_thing(pictured, tmp_path):
    """What both have is of one kind; the recorder's other entries leave what is read as it is."""

    def kinds(path):
        found = {}
        with h5py.File(path) as file:
            file["traj_0"].visititems(
                lambda name, item: found.update(
                    {name: (item.dtype.kind, item.ndim, item.shape[0])}
                    if isinstance(item, h5py.Dataset)
                    else {}
                )
            )
        return found

    real, ours = kinds(pictured[0]), kinds(maniskill.write(tmp_path / "ours.h5"))
    only_ours = set(ours) - set(real)
    assert only_ours == set()
    assert {name: real[name] for name in ours} == ours
