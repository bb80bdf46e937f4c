"""Two declarations that differ in any field are never taken for one another."""

import pytest

from data_tools.conventions import ActionSpec, CameraSpec, Conventions, StateSpec, compare

# A value of each field that is not the fixture's, and that fits beside the fixture's others.
OTHER = {
    "camera": {
        "color_order": "bgr",
        "orientation": "rotated_180",
        "source": "camera model 7",
    },
    "state": {
        "names": ("x", "y", "width"),
        "units": ("m", "m", "mm"),
        "frame": "world",
    },
    "action": {
        "names": ("dx", "dz", "gripper"),
        "units": ("1", "m", "1"),
        "references": ("delta", "velocity", "absolute"),
        "low": (-1.0, -2.0, -1.0),
        "high": (1.0, 2.0, 1.0),
        "frame": "robot_base",
        "rotation": "quat_wxyz",
        "grippers": (),
    },
}
SIZES = {"name", "height", "width"}  # a name says which camera; frames are resized


def changed(conventions, part, field):
    changes = {field: OTHER[part][field]}
    if part == "camera":
        first, *others = conventions.cameras
        return conventions.model_copy(
            update={"cameras": (first.model_copy(update=changes), *others)}
        )
    return conventions.model_copy(
        update={part: getattr(conventions, part).model_copy(update=changes)}
    )


def differences(found, expected):
    return [each.where for each in compare(found, expected, found_name="ours", expected_name="it")]


def test_every_field_there_is_has_another_value_here():
    models = {"camera": CameraSpec, "state": StateSpec, "action": ActionSpec}
    for part, model in models.items():
        assert set(OTHER[part]) == set(model.model_fields) - (
            SIZES if part == "camera" else set()
        ), part
    assert set(Conventions.model_fields) == {"cameras", "state", "action", "control_hz"}


@pytest.mark.parametrize(
    ("part", "field"), [(part, field) for part, fields in OTHER.items() for field in fields]
)
def test_a_difference_in_any_field_is_told_and_nothing_else(conventions, part, field):
    other = changed(conventions, part, field)
    where = f"camera 'front' {field}" if part == "camera" else f"{part} {field}"
    assert differences(other, conventions) == [f"ours, {where}"]
    assert differences(conventions, other) == [f"ours, {where}"]


def test_declarations_that_are_the_same_have_no_difference(conventions):
    assert differences(conventions, conventions) == []


@pytest.mark.parametrize("hz", [20.0, None])
def test_a_difference_in_the_rate_is_told(conventions, hz):
    other = conventions.model_copy(update={"control_hz": hz})
    assert differences(other, conventions) == ["ours, control_hz"]
