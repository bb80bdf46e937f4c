"""Files that keep MuJoCo's states beside the observations are checked to the bit."""

import h5py
import numpy as np
import pytest

from data_tools.doctor.examination import validate
from data_tools.formats.reader import open_dataset
from tests.data_tools.fixtures import libero

STEPS = 40


@pytest.fixture
def recorded(tmp_path):
    """LIBERO as its writer leaves it: row t has the simulator before action t, and o_{t+1}."""
    path = libero.write(tmp_path / "demos.hdf5", steps=STEPS)
    rng = np.random.default_rng(5)
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values():
            states = np.cumsum(rng.normal(0.0, 0.01, (STEPS + 1, 40)), axis=0)
            demo["states"][...] = states[:-1]
            demo["obs/gripper_states"][...] = states[1:, 8:10]
            demo["obs/ee_states"][...] = np.cumsum(rng.normal(0.0, 0.01, (STEPS, 6)), axis=0)
    return path


def shifts(path):
    return [each for each in validate(open_dataset(path)) if each.rule == "shifted_observations"]


def test_the_readers_pairing_is_the_simulators(recorded):
    episode = open_dataset(recorded)[0]
    with h5py.File(recorded) as file:
        stored = file["data/demo_0/states"][1:]
    np.testing.assert_array_equal(episode.simulator_states(), stored.astype(np.float32))
    assert shifts(recorded) == []


def test_rows_paired_as_they_lie_are_one_step_off(recorded):
    sidecar = recorded.with_name(f"{recorded.name}.conventions.yaml")
    sidecar.write_text("layout: {preset: libero, action_shift: 0}\n")
    (finding,) = shifts(recorded)
    assert "a shift of +1 steps in 2 of 2 episodes" in finding.value


@pytest.mark.parametrize("states", [None, np.zeros((3, 40)), np.zeros(STEPS)])
def test_states_that_are_not_there_or_do_not_fit_are_no_evidence(recorded, states):
    with h5py.File(recorded, "r+") as file:
        for demo in file["data"].values():
            del demo["states"]
            if states is not None:
                demo["states"] = states
    assert open_dataset(recorded)[0].simulator_states() is None
    assert shifts(recorded) == []
