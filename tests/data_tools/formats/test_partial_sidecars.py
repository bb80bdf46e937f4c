"""A sidecar may say a part of what a file declares, and many files in one trouble are told once."""

import pickle

import h5py
import numpy as np
import pytest
import yaml

from data_tools.errors import UserError
from data_tools.formats.layouts.detect import detect
from data_tools.formats.reader import open_dataset
from tests.data_tools.fixtures import maniskill


def declare(path, **declared):
    path.with_name(f"{path.name}.conventions.yaml").write_text(yaml.safe_dump(declared))


@pytest.fixture
def stored(demos):
    return open_dataset(demos).conventions


def test_a_part_goes_over_what_the_file_declares(demos, stored):
    before = open_dataset(demos)[0].image("front", 0)
    with h5py.File(demos, "r+") as file:
        for demo in file["data"].values():
            del demo["obs/front_image"].attrs["orientation"]
    declare(demos, cameras=[{"name": "front", "orientation": "rotated_180"}])
    dataset = open_dataset(demos)
    assert dataset.conventions == stored  # as delivered: upright
    np.testing.assert_array_equal(dataset[0].image("front", 0), before[::-1, ::-1])
    assert [w.rule for w in dataset.inspected.warnings] == ["corrected_conventions"]


def test_parts_of_the_state_and_every_camera_may_be_said(demos, stored):
    declare(demos, state={"frame": "table"}, cameras=[{"name": "*", "source": "a phone"}])
    found = open_dataset(demos).conventions
    assert found.state == stored.state.model_copy(update={"frame": "table"})
    assert {camera.source for camera in found.cameras} == {"a phone"}
    assert (found.action, found.control_hz) == (stored.action, stored.control_hz)


def test_a_whole_declaration_replaces_what_the_file_declares(demos, stored):
    whole = stored.model_dump(mode="json")
    declare(demos, **whole | {"cameras": [], "layout": "native"})
    assert open_dataset(demos).conventions.camera_names == ()


def test_a_part_alone_is_told_in_one_sentence_beside_its_other_faults(demos):
    with h5py.File(demos, "r+") as file:
        del file["data"].attrs["conventions"]
    declare(demos, cameras=[{"name": "front", "orientaton": "upright"}], layout="native")
    with pytest.raises(UserError) as caught:
        open_dataset(demos)
    lacking, misspelt = caught.value.faults
    assert "found no cameras.0.height, cameras.0.width, state, action" in lacking
    assert "Write them" in lacking
    assert "did you mean 'orientation'?" in misspelt


def test_a_part_beside_a_declaration_that_nobody_can_read_is_not_enough(demos):
    with h5py.File(demos, "r+") as file:
        file["data"].attrs["conventions"] = "{}"
    declare(demos, control_hz=20)
    with pytest.raises(UserError, match=r"found no cameras, state, action; expected each"):
        open_dataset(demos)


def unknown(folder, count):
    for number in range(count):
        path = folder / f"run_{number}" / "take.hdf5"
        path.parent.mkdir(parents=True)
        with h5py.File(path, "w") as file:
            file["joints"] = np.zeros(3)
    return folder


def test_files_of_one_unknown_layout_are_told_once_with_their_number(tmp_path):
    folder = unknown(tmp_path / "lab", 30)
    with pytest.raises(UserError) as caught:
        open_dataset(folder)
    (told,) = caught.value.faults
    first = folder / "run_0" / "take.hdf5"
    assert told.startswith(f"{first} and 29 more files below {folder}: found no conventions")
    assert f"Write {folder / 'conventions.yaml'}, for all files below {folder}" in told


def test_an_unknown_file_alone_is_told_its_own_sidecar(tmp_path):
    folder = unknown(tmp_path / "lab", 1)
    with pytest.raises(UserError, match=r"Write take\.hdf5\.conventions\.yaml beside it"):
        open_dataset(folder)


def test_files_in_different_troubles_are_told_apart(tmp_path):
    folder = unknown(tmp_path / "lab", 2)
    for number in range(3):
        maniskill.write_unrendered(folder / f"run_{number % 2}" / f"traj_{number}.h5")
    with pytest.raises(UserError) as caught:
        open_dataset(folder)
    joined = "\n".join(caught.value.faults)
    assert len(caught.value.faults) == 2
    assert "and 1 more files below" in joined
    assert "and 2 more files below" in joined
    assert "replay_trajectory --traj-path <this file> --obs-mode rgb --save-traj" in joined


def test_the_fault_of_an_unknown_file_goes_to_another_process(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file, pytest.raises(UserError) as caught:
        detect(file, tmp_path / "a.hdf5")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.file) == (str(caught.value), caught.value.file)
