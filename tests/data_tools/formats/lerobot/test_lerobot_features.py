"""Features, and names of their columns and axes, in every form that converters write them."""

import numpy as np
import pyarrow as pa
import pytest

from data_tools.errors import UserError
from data_tools.formats.lerobot import open_lerobot
from tests.data_tools.formats.lerobot.changes import (
    change_features,
    change_info,
    change_tables,
    read_info,
    sidecar,
)

FRONT = "observation.images.front"
XYZ = ("x", "y", "opening")


@pytest.mark.parametrize(
    "names",
    [
        ["x", "y", "opening"],
        [["x", "y", "opening"]],  # openpi's ALOHA converter, Unitree's
        [["x", "y"], ["opening"]],
        {"motors": ["x", "y", "opening"]},  # LeRobot v2.0, DROID ("axes")
        {"arm": ["x", "y"], "gripper": ["opening"]},
        {"arm": {"pose": ["x", "y"]}, "gripper": "opening"},
        {"y": 1, "opening": 2, "x": 0},
        {"arm": {"x": 0, "y": 1}, "gripper": {"opening": 0}},
        {"0": "x", "2": "opening", "1": "y"},
    ],
)
def test_names_of_columns_are_read_however_they_are_nested(make_folder, names):
    folder = make_folder()
    change_features(folder, **{"observation.state": {"names": names}})
    dataset = open_lerobot(folder)
    assert dataset.conventions.state.names == XYZ
    assert not [each for each in dataset.inspected.warnings if each.rule == "names_not_read"]


@pytest.mark.parametrize("names", [None, [], {}, ["state"], ["actions"], {"axes": None}])
def test_columns_without_names_are_numbered_and_nothing_is_lost(make_folder, names):
    """One name for a vector, as openpi's LIBERO converter writes it, is no column's."""
    folder = make_folder()
    change_features(folder, **{"observation.state": {"names": names}})
    dataset = open_lerobot(folder)
    assert dataset.conventions.state.names == ("state_0", "state_1", "state_2")
    assert not [each for each in dataset.inspected.warnings if each.rule == "names_not_read"]


@pytest.mark.parametrize(
    "names",
    [
        ["x", "y"],
        [["x", "y", "opening", "more"]],
        {"left": [0, 7], "right": [7, 14]},
        {"x": 0, "y": 5, "opening": 2},
        {"arm": {"x": 0, "y": 2}, "gripper": {"opening": 1}},  # not in the columns' order
        [{"name": True}, "y", "x"],
        ["x", None, "y", 1.5],
        [[[[[[[[[["x", "y", "opening"]]]]]]]]]],
    ],
)
def test_names_that_cannot_be_read_are_told_and_the_sidecar_can_give_them(make_folder, names):
    folder = make_folder()
    change_features(folder, **{"observation.state": {"names": names}})
    dataset = open_lerobot(folder)
    (told,) = [each for each in dataset.inspected.warnings if each.rule == "names_not_read"]
    assert str(names)[:20] in told.value
    assert "state.names" in told.remedy
    sidecar(folder, state={"names": list(XYZ)})
    mended = open_lerobot(folder)
    assert mended.conventions.state.names == XYZ
    assert not [each for each in mended.inspected.warnings if each.rule == "names_not_read"]


@pytest.mark.parametrize(
    ("names", "read", "is_told"),
    [
        ({"left": ["x", "grip"], "right": ["grip"]}, ("left.x", "left.grip", "right.grip"), False),
        ({"motors": ["x", "grip", "grip"]}, ("x", "grip_1", "grip_2"), True),  # some of LIBERO's
    ],
)
def test_names_that_are_there_twice_are_told_apart(make_folder, names, read, is_told):
    folder = make_folder()
    change_features(folder, **{"observation.state": {"names": names}})
    dataset = open_lerobot(folder)
    assert dataset.conventions.state.names == read
    told = [each for each in dataset.inspected.warnings if each.rule == "names_not_read"]
    assert bool(told) == is_told


def test_columns_of_several_features_have_names_of_their_own(make_folder, true_numbers):
    folder = make_folder("v2.1")
    change_features(folder, action={"names": ["x", "y"]})
    sidecar(folder, layout={"state": ["observation.state", "action"]})
    dataset = open_lerobot(folder)
    assert dataset.conventions.state.names == ("x_0", "y_1", "opening", "x_3", "y_4")
    state, actions = true_numbers(2)
    np.testing.assert_array_equal(dataset[2].state(), np.hstack([state, actions]))


AXES = ["channels", "height", "width"]


@pytest.mark.parametrize("axes", [AXES, [AXES]])
@pytest.mark.parametrize("mode", ["image", "video"])
def test_sizes_of_images_may_come_channels_first(make_folder, true_frame, mode, axes):
    folder = make_folder("v2.1", mode)
    change_features(folder, **{FRONT: {"shape": [3, 48, 64], "names": axes}})
    frame = open_lerobot(folder)[1].image("front", 2).astype(int)
    assert np.abs(frame - true_frame(1, 2)).mean() < 4


@pytest.mark.parametrize(
    "feature",
    [{"dtype": None}, {"shape": None}, {"shape": "[3]"}, {"shape": [0]}, {"shape": [2.0]}],
)
def test_features_that_are_not_used_may_be_of_any_form(make_folder, feature):
    folder = make_folder()
    features = read_info(folder)["features"]
    features["language_events"] = {"dtype": "language", "shape": [1], "names": None} | feature
    features["observation/effort"] = {"dtype": "float32", "shape": [7, 2]}
    change_info(folder, features=features)
    assert len(open_lerobot(folder)) == 3


@pytest.mark.parametrize("kind", [{"shape": [3, 2]}, {"shape": "3"}, {"dtype": "string"}])
def test_a_feature_that_is_used_is_a_vector_of_numbers(make_folder, kind):
    folder = make_folder()
    change_features(folder, **{"observation.state": kind})
    with pytest.raises(UserError, match=r"expected a vector of numbers.*Choose another feature"):
        open_lerobot(folder)
    sidecar(folder, layout={"state": ["action"]})
    assert open_lerobot(folder)[0].state().shape == (7, 2)


@pytest.mark.parametrize("kind", ["float64", "float16", "int64", "bool"])
def test_numbers_of_every_kind_are_read(make_folder, true_numbers, kind):
    folder = make_folder("v2.1")

    def change(table):
        place = table.column_names.index("action")
        values = np.array(table["action"].to_pylist()).astype(kind)
        column = pa.array(list(values))
        return table.set_column(place, "action", column)

    change_tables(folder, change)
    change_features(folder, action={"dtype": kind})
    found = open_lerobot(folder)[1].actions()
    np.testing.assert_array_equal(found, true_numbers(1)[1].astype(kind).astype(np.float32))


def test_single_numbers_are_vectors_of_one_column(make_folder):
    folder = make_folder("v2.1")

    def change(table):
        first = np.array(table["action"].to_pylist(), np.float32)[:, 0]
        return table.set_column(table.column_names.index("action"), "action", pa.array(first))

    change_tables(folder, change)
    for shape in ([1], []):
        change_features(folder, action={"shape": shape, "names": ["grip"]})
        assert open_lerobot(folder)[0].actions().shape == (7, 1)


def test_depth_in_three_channels_is_no_camera_unless_it_is_named(make_folder):
    folder = make_folder("v2.1", "video")
    change_features(folder, **{FRONT: {"info": {"video.is_depth_map": True}}})
    assert open_lerobot(folder).conventions.camera_names == ()
    sidecar(folder, layout={"images": {"front": FRONT}})
    assert open_lerobot(folder).conventions.camera_names == ("front",)


def test_features_that_are_alike_as_cameras_are_told_apart_by_the_line_that_is_told(make_folder):
    folder = make_folder()
    features = read_info(folder)["features"]
    features["observation.front"] = features[FRONT]
    change_info(folder, features=features)
    change_tables(folder, lambda table: table.append_column("observation.front", table[FRONT]))
    with pytest.raises(UserError, match="one name a camera") as caught:
        open_lerobot(folder)
    (folder / "conventions.yaml").write_text(str(caught.value).split("`")[1])
    names = ("observation_images_front", "observation_front")
    assert open_lerobot(folder).conventions.camera_names == names
