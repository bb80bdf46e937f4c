"""--fix: what is safe is mended in a new file, bit for bit the rest, and nothing is guessed."""

from dataclasses import replace

import numpy as np
import pytest

from data_tools.doctor.examination import validate
from data_tools.doctor.repairs.repair import repair
from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset


def flipped(state):
    state = state.copy()
    state[60:, 3:7] *= -1
    return state


@pytest.fixture
def broken(robot):
    dataset = robot("delta_ee")
    dataset = dataset.change(0, states=lambda s: s * ([1.0] * 3 + [-1.0] * 4 + [1.0]))
    dataset = dataset.change(2, states=flipped).change(4, instruction=" lift the  cup\n")
    again = replace(dataset.episodes[1], name="arm.hdf5:data/demo_99")
    return replace(dataset, episodes=[*dataset.episodes, again])


def test_safe_repairs_leave_no_finding_and_everything_else_as_it_was(tmp_path, robot, broken):
    findings = validate(broken)
    assert {finding.rule for finding in findings} == {
        "quaternion_flip",
        "quaternion_hemisphere",
        "instruction_spaces",
        "duplicate_episode",
    }
    repairs = repair(broken, tmp_path / "out.hdf5", findings)
    assert {each.rule for each in repairs} == {finding.rule for finding in findings}
    assert "left out; it is arm.hdf5:data/demo_1 again" in str(repairs[-1])
    mended = open_dataset(tmp_path / "out.hdf5")
    assert validate(mended) == []
    clean = robot("delta_ee")
    assert len(mended) == len(clean)
    for index in range(len(clean)):
        np.testing.assert_array_equal(mended[index].state(), clean[index].state())
        np.testing.assert_array_equal(mended[index].actions(), clean[index].actions())
    assert [mended[i].instruction for i in (3, 4)] == [clean[3].instruction, "lift the cup"]


def test_targets_that_are_quaternions_take_one_sign_too(tmp_path, robot):
    dataset = robot("delta_ee")
    names = ("eef_x", "eef_y", "eef_z", "eef_qx", "eef_qy", "eef_qz", "eef_qw")
    dataset = dataset.declare(
        "action",
        names=names,
        units=("m",) * 3 + ("1",) * 4,
        references=("absolute",) * 7,
        low=(-np.inf,) * 7,
        high=(np.inf,) * 7,
        rotation="quat_xyzw",
        grippers=(),
    )
    episodes = [
        replace(each, commands=np.concatenate([each.states[1:, :7], each.states[-1:, :7]]))
        for each in dataset.episodes
    ]
    clean = replace(dataset, episodes=episodes)
    assert validate(clean) == []
    broken = clean.change(2, commands=flipped)
    findings = validate(broken)
    assert [finding.rule for finding in findings] == ["quaternion_flip"]
    repair(broken, tmp_path / "out.hdf5", findings)
    mended = open_dataset(tmp_path / "out.hdf5")
    np.testing.assert_array_equal(mended[2].actions(), clean[2].actions())


def test_twins_with_other_pictures_or_another_success_stay(tmp_path, robot):
    dataset = robot("delta_ee")
    twin = replace(dataset.episodes[1], name="arm.hdf5:data/demo_99")
    for other in (replace(twin, is_success=None), replace(twin, frames=darker(twin.frames))):
        both = replace(dataset, episodes=[*dataset.episodes, other])
        assert repair(both, tmp_path / "out.hdf5", validate(both)) == []
        assert not (tmp_path / "out.hdf5").exists()


def darker(frames):
    return {camera: [each - each // 8 for each in pictures] for camera, pictures in frames.items()}


def test_nothing_to_repair_makes_no_file(tmp_path, robot):
    assert repair(robot("delta_ee"), tmp_path / "out.hdf5", []) == []
    assert not (tmp_path / "out.hdf5").exists()


def test_what_no_file_may_hold_is_refused_with_its_place(tmp_path, broken):
    broken = broken.set("states", 3, 7, 1, np.nan)
    with pytest.raises(UserError, match=r"demo_3, step 7: found state 'eef_y' = nan"):
        repair(broken, tmp_path / "out.hdf5", validate(broken))
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_never_replaced(tmp_path, broken):
    (tmp_path / "out.hdf5").write_text("precious")
    with pytest.raises(UserError, match="Choose another name"):
        repair(broken, tmp_path / "out.hdf5", validate(broken))
    assert (tmp_path / "out.hdf5").read_text() == "precious"
