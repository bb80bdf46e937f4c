"""A preset states what files of its kind bear out or hold, and asks for the rest."""

import json

import h5py
import numpy as np
import pytest

from data_tools.doctor.examination import validate
from data_tools.formats.layouts.preset import presets
from data_tools.formats.layouts.undeclared import left_open
from data_tools.formats.reader import open_dataset
from tests.data_tools.fixtures import aloha, isaaclab, libero, maniskill, robomimic
from tests.data_tools.layout_cases import CASES, written

OSC = {"type": "OSC_POSE", "control_delta": True}
NEWER = {"type": "BASIC", "body_parts": {"right": {"type": "OSC_POSE", "input_type": "delta"}}}
MOVES = ("dx", "dy", "dz", "drx", "dry", "drz", "gripper")
ALOHAS = [case for case in CASES if "aloha" in case.layout]


def lift(tmp_path, **said):
    """A robomimic file whose env_args say this."""
    path = robomimic.write(tmp_path / "lift.hdf5")
    with h5py.File(path, "r+") as file:
        file["data"].attrs["env_args"] = json.dumps({"env_name": "Lift", **said})
    return open_dataset(path, allow_undeclared=True)


def asked(dataset):
    """The lines that are to be written."""
    return dataset.inspected.undeclared[0].partition(":\nlayout")[2]


def test_a_rate_that_the_file_does_not_hold_is_asked_for(tmp_path):
    dataset = lift(tmp_path, type=1, env_kwargs={"controller_configs": OSC})
    assert dataset.conventions.control_hz is None
    assert "\ncontrol_hz: <control steps per second>" in asked(dataset)
    findings = validate(dataset)
    told = [finding for finding in findings if finding.rule == "undeclared"]
    assert any("holds no env_kwargs.control_freq" in finding.value for finding in told)


def test_a_rate_that_the_file_holds_is_read(tmp_path):
    dataset = lift(tmp_path, type=1, env_kwargs={"control_freq": 80, "controller_configs": OSC})
    assert dataset.conventions.control_hz == 80
    assert "control_hz" not in asked(dataset)


@pytest.mark.parametrize("kind", [2, 3, 4])
def test_what_robosuite_does_is_said_of_its_own_files_alone(tmp_path, kind):
    dataset = lift(tmp_path, type=kind, env_kwargs={"control_freq": 20})
    assert {camera.source for camera in dataset.conventions.cameras} == {"unknown"}
    assert {camera.orientation for camera in dataset.conventions.cameras} == {"unknown"}
    assert dataset.conventions.state.frame == "unknown"
    assert '\n  - {name: "*", orientation: <' in asked(dataset)
    assert "color_order: <rgb | bgr>" in asked(dataset)


@pytest.mark.parametrize("config", [OSC, NEWER], ids=["robosuite 1.4", "robosuite 1.5"])
def test_the_controller_that_the_file_names_tells_what_actions_are(tmp_path, config):
    dataset = lift(tmp_path, type=1, env_kwargs={"control_freq": 20, "controller_configs": config})
    action = dataset.conventions.action
    assert action.names == MOVES
    assert action.references == ("delta",) * 6 + ("absolute",)
    assert "action" not in asked(dataset)
    assert any("'OSC_POSE'" in sentence for sentence in dataset.inspected.evidence)


@pytest.mark.parametrize(
    "config",
    [
        {"type": "JOINT_POSITION", "control_delta": True},
        {"type": "OSC_POSE", "control_delta": False},
        {"type": "BASIC", "body_parts": {"right": {"type": "OSC_POSE", "input_type": "absolute"}}},
        {},
    ],
)
def test_another_controller_leaves_the_actions_to_a_person(tmp_path, config):
    dataset = lift(tmp_path, type=1, env_kwargs={"control_freq": 20, "controller_configs": config})
    action = dataset.conventions.action
    assert set(action.references) == {"unknown"}
    assert action.grippers == ()
    for place in ("references", "rotation", "grippers"):
        assert f"\n  {place}: " in asked(dataset)


def test_targets_in_a_file_that_says_displacements_are_no_legal_actions(tmp_path):
    # as a known project writes them over `actions`, and leaves env_args as they were
    path = robomimic.write(tmp_path / "lift.hdf5")
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values():
            demo["actions"][:, 3:6] = [np.pi, 0.1, 0.0]  # a hand that points down, as a vector
    findings = validate(open_dataset(path, allow_undeclared=True))
    assert "action_out_of_range" in {each.rule for each in findings if each.severity == "error"}


def test_the_unit_of_fingers_that_are_no_pair_is_asked_for(tmp_path):
    path = robomimic.write(tmp_path / "lift.hdf5")
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values():
            steps = len(demo["actions"])
            del demo["obs/robot0_gripper_qpos"]
            demo["obs/robot0_gripper_qpos"] = np.zeros((steps, 6))
    dataset = open_dataset(path, allow_undeclared=True)
    assert dataset.conventions.state.units[7:] == ("unknown",) * 6
    assert "\nstate:\n  units: <" in asked(dataset)


def test_joints_with_fingers_among_them_are_not_all_in_radians(tmp_path):
    dataset = open_dataset(isaaclab.write(tmp_path / "stack.hdf5"), allow_undeclared=True)
    units = dataset.conventions.state.units
    assert units[:9] == ("unknown",) * 9
    assert units[9:16] == ("m",) * 3 + ("1",) * 4
    assert units[16:] == ("unknown",) * 2
    assert "\nstate:\n  units: <" in asked(dataset)


@pytest.mark.parametrize(
    ("convention", "orientation"), [("opengl", "flipped_vertical"), ("opencv", "upright")]
)
def test_the_way_up_of_a_libero_file_is_the_one_it_says(tmp_path, convention, orientation):
    path = libero.write(tmp_path / "open_the_drawer_demo.hdf5")
    with h5py.File(path, "r+") as file:
        file["data"].attrs["macros_image_convention"] = convention
    stored = open_dataset(path)[0].stored_frames("agentview")
    assert stored.camera.orientation == orientation


def test_the_way_up_of_a_libero_file_that_does_not_say_is_asked_for(tmp_path):
    path = libero.write(tmp_path / "open_the_drawer_demo.hdf5")
    with h5py.File(path, "r+") as file:
        del file["data"].attrs["macros_image_convention"]
    assert "orientation: <" in asked(open_dataset(path, allow_undeclared=True))


@pytest.mark.parametrize("case", ALOHAS, ids=lambda case: case.layout)
def test_what_is_usual_is_proposed_and_the_lines_declare_it(case, tmp_path):
    path = written(case, tmp_path)
    left = open_dataset(path, allow_undeclared=True)
    assert left.conventions.control_hz is None
    assert left.conventions.action.grippers == ()
    lines = "layout" + asked(left).replace("<the task as a sentence>", "do it")
    assert "<" not in lines
    path.joinpath("conventions.yaml").write_text(lines)
    proposed = open_dataset(path)
    path.joinpath("conventions.yaml").write_text(case.sidecar)
    assert proposed.conventions == open_dataset(path).conventions
    assert proposed[0].instruction == "do it"


def test_what_is_usual_is_not_proposed_for_a_robot_of_other_columns(tmp_path):
    path = aloha.write(tmp_path / "demos", episodes=1)
    with h5py.File(path / "episode_0.hdf5", "r+") as file:
        for name in ("observations/qpos", "action"):
            rows = file[name][:, :7]
            del file[name]
            file[name] = rows
    dataset = open_dataset(path, allow_undeclared=True)
    assert dataset.conventions.state.names == tuple(f"qpos_{i}" for i in range(7))
    assert "names" not in asked(dataset)
    for place in ("units", "references", "grippers"):
        assert f"\n  {place}: " in asked(dataset)
    assert "\ncontrol_hz: 50" in asked(dataset)


def test_a_rate_that_a_recorder_of_alohas_tree_wrote_is_read(tmp_path):
    path = aloha.write(tmp_path / "demos", episodes=1)
    with h5py.File(path / "episode_0.hdf5", "r+") as file:
        file.attrs["fps"] = 30
    dataset = open_dataset(path, allow_undeclared=True)
    assert dataset.conventions.control_hz == 30
    assert "control_hz" not in asked(dataset)


def test_a_rate_in_the_json_beside_a_maniskill_file_is_read(tmp_path):
    path = maniskill.write(tmp_path / "pick.h5")
    assert "\ncontrol_hz: <" in asked(open_dataset(path, allow_undeclared=True))
    described = json.loads(path.with_suffix(".json").read_text())
    described["env_info"]["env_kwargs"]["sim_config"] = {"control_freq": 100}
    path.with_suffix(".json").write_text(json.dumps(described))
    dataset = open_dataset(path, allow_undeclared=True)
    assert dataset.conventions.control_hz == 100
    assert "control_hz" not in asked(dataset)


def test_every_place_that_a_preset_leaves_open_is_asked_for(tmp_path):
    for case in CASES:
        if case.layout == "native":
            continue
        dataset = open_dataset(written(case, tmp_path / case.layout), allow_undeclared=True)
        told = "".join(dataset.inspected.undeclared)
        preset = presets()[case.layout]
        for place in left_open(preset, preset.conventions):
            part, _, field = place.rpartition(".")
            conventions = dataset.conventions.model_dump()
            is_known = {
                "control_hz": conventions["control_hz"] is not None,
                "orientation": all(c["orientation"] != "unknown" for c in conventions["cameras"]),
                "color_order": any(c["source"] == "robosuite" for c in conventions["cameras"]),
                "references": "unknown" not in conventions["action"]["references"],
                "rotation": conventions["action"]["rotation"] != "unknown",
                "grippers": conventions["action"]["grippers"] != (),
            }.get(field, True)
            needs_cameras = part.startswith("cameras") and not case.cameras
            assert is_known or needs_cameras or f"{place}: " in told, (case.layout, place)
