"""Mistakes that people make in sidecars: each is told at its place, and none passes in silence."""

import h5py
import pytest
import yaml
from pydantic import ValidationError

from data_tools.conventions import Conventions, GripperSpec
from data_tools.errors import UserError
from data_tools.formats.layouts.layout import Layout, Source
from data_tools.formats.mapping.mapping import LinearMap
from data_tools.formats.reader import open_dataset
from tests.data_tools.fixtures import d4rl, robomimic

STATE = {"dataset": "robot0_gripper_qpos"}


@pytest.fixture
def lift(tmp_path):
    """Opens a file of three episodes whose sidecar has these lines more."""
    path = robomimic.write(tmp_path / "lift.hdf5", episodes=3)

    def opened(layout=None, **declared):
        said = {"preset": "robomimic", "instruction": {"text": "lift"}, **(layout or {})}
        text = yaml.safe_dump({"layout": said, **declared})
        path.with_name("lift.hdf5.conventions.yaml").write_text(text)
        return open_dataset(path)

    opened.path = path
    return opened


def faults_of(call, *args, **kwargs):
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    return caught.value.faults


def empty_places(dataset):
    return [w for w in dataset.inspected.warnings if w.rule == "empty_place"]


def test_a_boolean_is_no_rate(lift):
    (fault,) = faults_of(lift, control_hz=True)
    assert "control_hz: found True; expected a number (YAML reads yes" in fault


def test_a_boolean_for_all_columns_is_told_once(lift):
    low, high = faults_of(lift, action={"low": False, "high": True})
    assert "action.low: found False; expected another value, or a list (YAML reads" in low
    assert "action.high: found True" in high


@pytest.mark.parametrize(
    "make",
    [
        lambda: GripperSpec(column="a", open_value=True, closed_value=0),
        lambda: Layout.model_validate({"times": {"dataset": "t", "unit_s": True}}),
        lambda: Source(dataset="a", scale=(1.0, True)),
        lambda: LinearMap(kind="linear", column="a", scale=True),
    ],
)
def test_a_boolean_is_no_number_in_any_declaration(make):
    with pytest.raises(ValidationError, match="a number"):
        make()


def test_numbers_in_words_and_fields_of_booleans_are_taken_as_before(lift):
    stored = lift(control_hz="2e1").conventions
    assert stored.control_hz == 20
    again = stored.model_copy(
        update={"action": stored.action.model_copy(update={"low": (float("-inf"),) * 7})}
    )
    assert Conventions.model_validate(again.model_dump(mode="json")) == again
    assert Conventions.model_validate_json(again.model_dump_json()) == again
    assert Source.model_validate({"dataset": "a", "is_optional": True}).is_optional


@pytest.mark.parametrize("rate", [1e300, 20_000_000, float("inf")])
def test_a_rate_beyond_any_robot_is_refused(lift, rate):
    (fault,) = faults_of(lift, control_hz=rate)
    assert "expected at most 10000 control steps per second" in fault


def test_the_highest_rate_is_allowed(lift):
    assert lift(control_hz=10_000).conventions.control_hz == 10_000


def test_a_pattern_of_names_that_is_none(lift):
    (fault,) = faults_of(lift, {"episode_names": "(a"})
    assert (
        "layout.episode_names: found '(a'; expected a pattern, and this is no regular expression"
        in fault
    )


def test_one_unit_stands_for_all_columns_of_a_source(lift):
    assert lift({"state": [{**STATE, "units": "mm"}]}).conventions.state.units == ("mm", "mm")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"columns": [0, 0]}, "columns: found [0, 0]; expected each column once"),
        ({"scale": [0.0, 1.0]}, "scale: found [0.0, 1.0]; expected finite factors other than 0"),
        ({"scale": [float("nan"), 1.0]}, "expected finite factors other than 0"),
        ({"scale": [float("inf"), 1.0]}, "expected finite factors other than 0"),
        ({"scale": [True, 1.0]}, "scale.0: found True; expected a number"),
        ({"unit": "m"}, "did you mean 'units'?"),
    ],
)
def test_a_fault_inside_a_source_is_the_only_one(lift, source, told):
    (fault,) = faults_of(lift, {"state": [{**STATE, **source}]})
    assert "layout.state.0." in fault
    assert told in fault


def test_no_source_at_all(lift):
    (fault,) = faults_of(lift, {"state": []})
    assert "layout.state: found []; expected at least one dataset" in fault


def test_a_shift_beyond_any_pairing(lift):
    (fault,) = faults_of(lift, {"action_shift": 1001})
    assert "layout.action_shift: found 1001" in fault
    assert "1000" in fault


def test_ends_belong_to_rows(lift, tmp_path):
    (fault,) = faults_of(lift, {"ends": ["dones"]})
    assert "layout.ends: found ['dones']; expected none with episodes: groups" in fault
    assert Layout(episodes="rows", ends=("dones",)).ends == ("dones",)


def test_a_named_camera_that_is_nowhere(lift):
    images = {"front": "agentview_imag", "wrist": "nope", "side": {"video": "{stem}.mp4"}}
    front, side, wrist = faults_of(lift, {"images": images})
    assert "layout.images.front: found 'agentview_imag', and no frames there" in front
    assert "did you mean 'obs/agentview_image'?" in front
    assert "layout.images.wrist: found 'nope', and no frames there" in wrist
    assert "obs/robot0_eye_in_hand_image" in wrist
    assert "layout.images.side: found no file like '{stem}.mp4'; expected a video" in side


def test_a_named_camera_where_numbers_are(lift):
    (fault,) = faults_of(lift, {"images": {"front": "robot0_eef_pos"}})
    assert "found 'robot0_eef_pos', and no frames there" in fault


def test_a_pattern_of_cameras_that_fits_none(lift):
    found = lift({"images": {"front": "agentview_image", "*": "*_picture"}})
    (warning,) = empty_places(found)
    assert warning.value == "layout.images, *: *_picture"
    assert found.conventions.camera_names == ("front",)


@pytest.mark.parametrize(
    ("layout", "value"),
    [
        ({"success": {"attribute": "nope"}}, "layout.success {'attribute': 'nope'}"),
        ({"success": {"text": "perhaps"}}, "layout.success {'text': 'perhaps'}"),
        (
            {"times": {"dataset": "nope", "unit_s": 0.001}},
            "layout.times {'dataset': 'nope', 'unit_s': 0.001}",
        ),
        ({"rate": {"attribute": "nope"}}, "layout.rate {'attribute': 'nope'}"),
        ({"simulator_states": "nope"}, "layout.simulator_states 'nope'"),
        ({"attributes": {"seed": {"dataset": "s"}}}, "layout.attributes.seed {'dataset': 's'}"),
    ],
)
def test_a_place_that_fits_no_episode(lift, layout, value):
    (warning,) = empty_places(lift(layout, control_hz=20))
    assert (warning.where, warning.value) == (str(lift.path), value)
    assert "remove the key" in warning.remedy


def test_a_place_that_one_episode_has_is_not_empty(lift):
    with h5py.File(lift.path, "r+") as file:
        file["data/demo_1"].attrs["won"] = True
    assert empty_places(lift({"success": {"attribute": "won"}})) == []


def test_what_a_preset_has_room_for_may_be_empty(lift):
    with h5py.File(lift.path, "r+") as file:
        for demo in file["data"].values():
            for name in ("dones", "rewards", "states"):
                del demo[name]
    found = lift()
    assert found[0].is_success is None
    assert empty_places(found) == []


def test_whole_declarations_tell_empty_places_too(lift, tmp_path):
    stored = lift().conventions.model_dump(mode="json")
    lift.path.with_name("lift.hdf5.conventions.yaml").write_text(
        yaml.safe_dump(
            {
                **stored,
                "layout": {
                    "instruction": {"text": "lift"},
                    "state": [
                        *("robot0_eef_pos", "robot0_eef_quat"),
                        "robot0_gripper_qpos",
                    ],
                    "success": {"attribute": "nope"},
                },
            }
        )
    )
    (warning,) = empty_places(open_dataset(lift.path))
    assert warning.value == "layout.success {'attribute': 'nope'}"


def test_rows_keep_their_ends(tmp_path):
    path = d4rl.write(tmp_path / "rows.hdf5")
    (tmp_path / "conventions.yaml").write_text("layout: {preset: d4rl, ends: [nowhere]}\n")
    faults = faults_of(open_dataset, path)
    assert any("layout.ends" in fault for fault in faults)


@pytest.mark.parametrize(
    ("place", "at", "told"),
    [
        ({"text": ""}, "0.text", "a sentence, and this one is empty"),
        ({"text": "  "}, "0.text", "a sentence, and this one is empty"),
        ({"file": "/etc/hostname"}, "0.file", "has the keys `file` and, for an entry of it, `key`"),
        ({"file": "a.json", "kye": "b"}, "0.kye", "did you mean 'key'?"),
        ({"attrs": "a"}, "0", "one of the keys text, attribute, dataset, file, path_pattern"),
        ({"text": "a", "attribute": "b"}, "0", "a mapping with one of the keys text,"),
        ("lift", "0", "a mapping with one of the keys text, attribute, dataset"),
        (
            {"path_pattern": "(a"},
            "0.path_pattern",
            "expected a pattern, and this is no regular expression",
        ),
    ],
)
def test_a_place_is_judged_as_what_its_key_says(lift, place, at, told):
    (fault,) = faults_of(lift, {"instruction": place})
    assert f"layout.instruction.{at}: found" in fault
    assert told in fault


def test_frames_are_a_dataset_or_a_video(lift):
    name, video = faults_of(lift, {"images": {"front": 5, "side": {"video": "/a.mp4"}}})
    assert "layout.images.front: found 5" in name
    assert "layout.images.side.video: found '/a.mp4'; expected a path from" in video
