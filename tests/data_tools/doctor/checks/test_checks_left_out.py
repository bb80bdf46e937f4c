"""What a pattern meets and nothing reads is told, and so are successes that nothing rewarded."""

import h5py
import numpy as np
import pytest
import yaml

from data_tools.doctor.examination import validate
from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset
from data_tools.rewrite.convert import convert
from data_tools.rules import CAMERA_NOT_READ, COLUMN_NOT_READ
from tests.data_tools.fixtures import maniskill, minari, robomimic

GRASPED = np.array([False, True, True, False, True, True, False])


def opened(path):
    return open_dataset(path, allow_undeclared=True)


def told(dataset):
    """Rule and place below the episode of each warning about what is not read."""
    rules = {CAMERA_NOT_READ.name, COLUMN_NOT_READ.name}
    warnings = dataset.inspected.warnings
    return {(w.rule, w.where.partition("_0/")[2]): w.value for w in warnings if w.rule in rules}


def with_extra(path, **extra):
    with h5py.File(path, "r+") as file:
        for traj in file.values():
            for name, array in extra.items():
                traj[f"obs/extra/{name}"] = array
    return path


def with_layout(path, **layout):
    declared = {"layout": {"preset": "maniskill", "instruction": {"text": "pick it up"}, **layout}}
    declared |= {"control_hz": 20, "action": {"references": "delta", "grippers": []}}
    path.with_name(f"{path.name}.conventions.yaml").write_text(yaml.safe_dump(declared))
    return path


def test_columns_that_no_pattern_takes_are_told_by_name_and_type(tmp_path):
    extra = {"is_grasped": GRASPED, "pose": np.zeros((7, 4, 4)), "note": ["a"] * 7}
    dataset = opened(with_extra(maniskill.write(tmp_path / "a.h5"), **extra))
    assert told(dataset) == {
        ("column_not_read", "obs/extra/is_grasped"): "bool[7]",
        ("column_not_read", "obs/extra/pose"): "float64[7, 4, 4]",
        ("column_not_read", "obs/extra/note"): "text[7]",
    }
    assert "column_not_read" in {finding.rule for finding in validate(dataset)}


def test_what_the_fixtures_hold_is_all_read(tmp_path):
    assert told(opened(maniskill.write(tmp_path / "a.h5"))) == {}
    assert told(opened(minari.write(tmp_path / "minari"))) == {}


def test_a_boolean_that_a_sidecar_names_is_read_as_0_and_1(tmp_path):
    path = with_extra(maniskill.write(tmp_path / "a.h5"), is_grasped=GRASPED)
    state = ["obs/agent/*", {"dataset": "obs/extra/is_grasped", "is_optional": True}]
    dataset = open_dataset(with_layout(path, state=state))
    assert told(dataset) == {}
    assert dataset.conventions.state.names[-1] == "is_grasped"
    assert dataset[0].state()[:, -1].tolist() == [0, 1, 1, 0, 1, 1]
    convert(dataset, tmp_path / "new.hdf5", to="native")
    np.testing.assert_array_equal(
        open_dataset(tmp_path / "new.hdf5")[0].state(), dataset[0].state()
    )


def test_a_clock_of_booleans_is_still_no_clock(tmp_path):
    path = with_extra(maniskill.write(tmp_path / "a.h5"), is_grasped=GRASPED)
    times = {"dataset": "obs/extra/is_grasped", "unit_s": 1.0}
    with pytest.raises(UserError, match=r"is_grasped: found bool\[7\]; expected numbers"):
        open_dataset(with_layout(path, times=times))


@pytest.mark.parametrize(
    ("frames", "value"),
    [
        (np.zeros((7, 24, 32), np.uint8), "uint8[7, 24, 32]"),
        (np.zeros((7, 24, 32, 3), np.float32), "float32[7, 24, 32, 3]"),
    ],
)
def test_frames_of_another_form_than_cameras_have_are_told(tmp_path, frames, value):
    folder = minari.write(tmp_path / "minari")
    with h5py.File(folder / "data/main_data.hdf5", "r+") as file:
        for group in file.values():
            group["observations/grey"] = frames
            group["observations/pose"] = np.zeros((7, 4, 4))
    assert told(opened(folder)) == {
        ("camera_not_read", "observations/grey"): value,
        ("column_not_read", "observations/pose"): "float64[7, 4, 4]",
    }


def test_successes_that_only_the_end_of_the_recording_marks_are_told(tmp_path):
    path = robomimic.write(tmp_path / "a.hdf5", episodes=3)
    clean = [finding.rule for finding in validate(opened(path))]
    assert "success_without_reward" not in clean
    with h5py.File(path, "r+") as file:
        file["data/demo_1/rewards"][...] = 0
    (found,) = (f for f in validate(opened(path)) if f.rule == "success_without_reward")
    assert found.value.startswith("a last reward of 0 in 1 of 3 successes, first ")
    assert found.value.endswith("demo_1")


def test_a_sidecar_takes_success_from_the_rewards(tmp_path):
    path = robomimic.write(tmp_path / "a.hdf5")
    with h5py.File(path, "r+") as file:
        file["data/demo_1/rewards"][...] = 0
    layout = {"preset": "robomimic", "success": {"dataset": "rewards"}}
    path.with_name("a.hdf5.conventions.yaml").write_text(yaml.safe_dump({"layout": layout}))
    assert [episode.is_success for episode in opened(path)] == [True, False]
    rules = {finding.rule for finding in validate(opened(path))}
    assert "failed_episodes" in rules
    assert "success_without_reward" not in rules


def test_no_rewards_say_nothing_about_successes(tmp_path):
    path = robomimic.write(tmp_path / "a.hdf5")
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values():
            del demo["rewards"]
    assert "success_without_reward" not in {finding.rule for finding in validate(opened(path))}
