"""A column that is another one again is told where the two are sure to be different quantities."""

import h5py
import numpy as np
import pytest
import yaml

from data_tools.doctor.examination import validate
from data_tools.formats.reader import open_dataset


def with_copy(source, target, factor=1.0, noise=0.0):
    rng = np.random.default_rng(0)

    def changed(array):
        array = array.copy()
        array[:, target] = factor * array[:, source] + rng.normal(0, noise, len(array))
        return array

    return changed


def joints(robot, **names_and_units):
    return robot("joints").declare("state", **names_and_units)


UNITS = ("rad",) * 6 + ("1",)


@pytest.mark.parametrize("noise", [0.0, 1e-7])
@pytest.mark.parametrize(
    ("target", "state"),
    [
        (2, {}),
        (2, {"names": ("waist", "shoulder", "elbow", "roll", "bend", "turn", "gripper")}),
        (2, {"names": ("left_j", "b", "right_j", "d", "e", "f", "gripper")}),
        (2, {"names": ("eef_x", "eef_y", "eef_z", "d", "e", "f", "g"), "units": ("m",) * 7}),
        (2, {"names": ("position", *"bcdefg"), "units": ("rad", "rad", "rad/s", *UNITS[3:])}),
        (6, {}),
    ],
)
def test_a_state_column_that_is_another_quantity_again_is_told(robot, noise, target, state):
    copied = joints(robot, **state).change_all(states=with_copy(0, target, noise=noise))
    found = [each for each in validate(copied) if each.rule == "copied_column"]
    names = copied.conventions.state.names
    assert [f"{names[target]!r} is {names[0]!r}" in each.value for each in found] == [True]
    assert not {"copied_column"} & {each.rule for each in validate(joints(robot, **state))}


def test_a_length_that_is_a_multiple_of_an_angle_is_told_with_the_factor(robot):
    metres = joints(robot, units=("rad", "rad", "m", "rad", "rad", "rad", "1"))
    metres = metres.change_all(states=with_copy(0, 2, factor=0.3))
    (found,) = [each for each in validate(metres) if each.rule == "copied_column"]
    assert "'joint_2' is 'joint_0' times 0.3" in found.value


@pytest.mark.parametrize(
    ("factor", "noise", "state"),
    [
        # joints that a mechanism couples
        (0.5, 0.0, {}),
        # one joint under the names of two recorders
        (1.0, 0.0, {"names": ("joint_3", "b", "panda_joint3", "d", "e", "f", "gripper")}),
        # one place under two names
        (1.0, 0.0, {"names": ("eef_x", "b", "tcp_x", "d", "e", "f", "g"), "units": ("m",) * 7}),
        # the fingers of one gripper
        (1.0, 0.0, {"names": ("left_finger", "b", "right_finger", "d", "e", "f", "gripper")}),
        # two sensors
        (1.0, 1e-3, {}),
    ],
)
def test_what_may_be_one_quantity_twice_or_two_alike_is_no_finding(robot, factor, noise, state):
    copied = joints(robot, **state).change_all(states=with_copy(0, 2, factor=factor, noise=noise))
    assert "copied_column" not in {each.rule for each in validate(copied)}


def test_an_action_column_that_is_another_again_is_told_where_their_joints_move_apart(robot):
    copied = robot("joints").change_all(commands=with_copy(0, 2))
    found = [each for each in validate(copied) if each.rule == "copied_column"]
    assert ["of the actions 'joint_2' is 'joint_0'" in each.value for each in found] == [True]
    # a script that moves two joints alike
    alike = copied.change_all(states=with_copy(0, 2, noise=1e-3))
    assert "copied_column" not in {each.rule for each in validate(alike)}


def test_switches_that_turn_together_are_no_copies(robot):
    def switched(array):
        array = array.copy()
        array[:, 1] = array[:, 2] = np.round(array[:, 0])
        return array

    assert "copied_column" not in {
        each.rule for each in validate(robot("joints").change_all(states=switched))
    }


def test_a_file_whose_grippers_are_its_joints_again_is_told(tmp_path):
    """As a public recording of a real arm has them."""
    path = tmp_path / "lift.hdf5"
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = '{"env_name": "Lift", "type": 2}'
        for number in range(3):
            q = np.cumsum(np.random.default_rng(number).normal(0, 0.02, (60, 7)), axis=0)
            demo = data.create_group(f"demo_{number}")
            demo["actions"] = np.concatenate([q[1:], q[-1:]])
            demo["obs/joint_pos"] = demo["obs/gripper_pos"] = q
            demo["initial_state/articulation/robot/joint_position"] = q[:1]
    layout = {"preset": "isaaclab_wxyz", "instruction": {"text": "lift the cube"}}
    declared = {"layout": layout, "control_hz": 20}
    declared |= {"action": {"references": "absolute", "units": "rad", "grippers": []}}
    declared |= {"state": {"units": ["rad"] * 7 + ["m"] * 7}}
    path.with_name("lift.hdf5.conventions.yaml").write_text(yaml.safe_dump(declared))
    (found,) = [each for each in validate(open_dataset(path)) if each.rule == "copied_column"]
    assert "'gripper_pos_0' is 'joint_pos_0'" in found.value
    assert "and 3 more" in found.value
