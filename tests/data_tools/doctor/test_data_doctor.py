import h5py
import numpy as np
import pytest

from data_tools.doctor.examination import validate
from data_tools.finite import nonfinite_values
from data_tools.formats.reader import open_dataset
from data_tools.writer import EpisodeWriter


def _rules(path):
    return {finding.rule for finding in validate(open_dataset(path))}


def _write(path, conventions, *episodes):
    with EpisodeWriter(path, conventions) as writer:
        for episode in episodes:
            writer.add(**episode)


def test_a_clean_dataset_has_no_findings(demos):
    assert validate(open_dataset(demos)) == []


def test_nan_written_by_others_is_found_with_its_place(demos):
    with h5py.File(demos, "r+") as file:
        file["data/demo_3/actions"][7, 1] = np.nan
        file["data/demo_5/obs/state"][2, 0] = np.inf
    dataset = open_dataset(demos)
    first, second = (f for f in validate(dataset) if f.rule == "not_finite")
    assert (first.severity, first.where, first.step) == ("error", f"{demos}:data/demo_3", 7)
    assert "action 'dy' = nan" in first.value
    assert (second.step, "state 'x' = inf" in second.value) == (2, True)
    faults = nonfinite_values(dataset)
    assert len(faults) == 2
    assert "demo_3 actions, step 7, column 'dy': found nan" in faults[0]
    assert nonfinite_values(dataset, [0, 1, 2]) == []


def _jump(array):
    array = array.copy()
    array[4, 2] = 60.0
    return array


def _still(array):
    array = array.copy()
    array[:, 1] = 0.25
    return array


@pytest.mark.parametrize(
    ("changes", "rule", "words"),
    [
        (lambda e: {"actions": e["actions"] * 3}, "action_out_of_range", "Correct the declared"),
        (lambda e: {"instruction": "Test."}, "instruction", "what the robot was asked"),
        (lambda e: {"instruction": "ab"}, "instruction", "2 characters"),
        (lambda e: {"success": False}, "no_success", "Check the success attribute"),
        (lambda e: {"state": _still(e["state"])}, "near_constant_column", "'y' stays near 0.25"),
        (lambda e: {"state": _jump(e["state"])}, "outlier", "glitch of the sensor"),
    ],
)
def test_a_fault_in_numbers_or_words_is_found(
    tmp_path, conventions, make_episode, changes, rule, words
):
    episode = make_episode(num_steps=200)
    _write(tmp_path / "a.hdf5", conventions, episode | changes(episode))
    (finding,) = {f.rule: f for f in validate(open_dataset(tmp_path / "a.hdf5"))}.values()
    assert finding.rule == rule
    assert words in str(finding)


def test_an_action_a_rounding_error_beyond_its_range_is_not_a_finding(
    tmp_path, conventions, make_episode
):
    episode = make_episode()
    _write(
        tmp_path / "a.hdf5",
        conventions,
        episode | {"actions": np.sign(episode["actions"]) * 1.0001},
    )
    assert "action_out_of_range" not in _rules(tmp_path / "a.hdf5")


def test_a_short_episode_is_found(tmp_path, conventions, make_episode):
    _write(tmp_path / "a.hdf5", conventions, make_episode(num_steps=1))
    assert "short_episode" in _rules(tmp_path / "a.hdf5")
    _write(tmp_path / "b.hdf5", conventions, make_episode(num_steps=2))
    assert "short_episode" not in _rules(tmp_path / "b.hdf5")


def test_duplicate_episodes_are_found_across_other_attributes(tmp_path, conventions, make_episode):
    twin = make_episode(1) | {"attributes": {"seed": 99}}
    _write(tmp_path / "a.hdf5", conventions, make_episode(0), make_episode(1), twin)
    (finding,) = validate(open_dataset(tmp_path / "a.hdf5"))
    assert (finding.rule, finding.where[-6:]) == ("duplicate_episode", "demo_2")
    assert "demo_1" in finding.value


def _uniform(value):
    return np.full((20, 24, 24, 3), value, np.uint8)


@pytest.mark.parametrize(
    ("wrist", "rules"),
    [
        (_uniform(2), {"black_frame", "frozen_camera"}),
        (_uniform(254), {"white_frame", "frozen_camera"}),
        (_uniform(120), {"frozen_camera"}),
    ],
)
def test_useless_pictures_are_found(tmp_path, conventions, make_episode, wrist, rules):
    episode = make_episode()
    episode["images"] = episode["images"] | {"wrist": wrist}
    _write(tmp_path / "a.hdf5", conventions, episode)
    assert _rules(tmp_path / "a.hdf5") == rules


def test_a_camera_that_stands_still_with_the_robot_is_not_frozen(
    tmp_path, conventions, make_episode
):
    episode = make_episode(state=np.zeros((20, 3)))
    episode["images"] = episode["images"] | {"wrist": _uniform(120)}
    _write(tmp_path / "a.hdf5", conventions, episode)
    assert "frozen_camera" not in _rules(tmp_path / "a.hdf5")


def test_two_cameras_with_the_same_pictures_are_found(tmp_path, conventions, make_episode):
    same_size = conventions.cameras[0].model_copy(update={"name": "side"})
    twins = conventions.model_copy(update={"cameras": (conventions.cameras[0], same_size)})
    frames = make_episode()["images"]["front"]
    _write(tmp_path / "a.hdf5", twins, make_episode(images={"front": frames, "side": frames}))
    assert _rules(tmp_path / "a.hdf5") == {"duplicated_camera"}


def test_a_frame_that_does_not_decode_is_found_and_the_rest_still_checked(demos):
    with h5py.File(demos, "r+") as file:
        file["data/demo_2/obs/front_image"][0] = 0
        file["data/demo_9/actions"][0, 0] = 5.0
    findings = validate(open_dataset(demos))
    assert [(f.rule, f.severity, f.step) for f in findings] == [
        ("undecodable_frame", "error", 0),
        ("action_out_of_range", "error", 0),
    ]
