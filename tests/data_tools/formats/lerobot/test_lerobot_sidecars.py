"""A sidecar beside a LeRobot folder says what one beside an HDF5 file says, in the same words."""

import math
from pathlib import Path

import numpy as np
import pytest

from data_tools.errors import UserError
from data_tools.formats.lerobot import open_lerobot
from data_tools.formats.lerobot.sources import Sources
from tests.data_tools.formats.lerobot.changes import change_info, read_info, sidecar

ROOT = Path(__file__).resolve().parents[4]
FRONT = "observation.images.front"


def test_one_value_stands_for_all_columns(make_folder):
    folder = make_folder()
    sidecar(
        folder,
        state={"units": "rad", "frame": "robot_base"},
        action={"references": "absolute", "units": "rad", "low": -1, "high": 1.5},
    )
    conventions = open_lerobot(folder).conventions
    assert conventions.state.units == ("rad",) * 3
    assert conventions.state.frame == "robot_base"
    assert conventions.action.references == ("absolute",) * 2
    assert conventions.action.units == ("rad",) * 2
    assert (conventions.action.low, conventions.action.high) == ((-1, -1), (1.5, 1.5))
    sidecar(folder, action={"references": ["absolute", "delta"]})
    conventions = open_lerobot(folder).conventions
    assert conventions.action.references == ("absolute", "delta")
    assert conventions.action.low == (-math.inf,) * 2


def test_lists_of_another_length_are_told_by_the_number_of_columns(make_folder):
    folder = make_folder()
    sidecar(folder, state={"names": ["x", "y"]}, action={"units": ["m"], "low": [0, 0, 0]})
    with pytest.raises(UserError) as caught:
        open_lerobot(folder)
    names, low, units = caught.value.faults
    assert "state.names: found 2 entries; expected 3, one a column" in names
    assert "action.units: found 1 entries; expected 2, one a column" in units
    assert "action.low: found 3 entries; expected 2" in low


def test_a_key_of_layout_at_the_top_is_told_where_it_belongs(make_folder):
    folder = make_folder()
    sidecar(folder, clock="frame_index")
    with pytest.raises(UserError, match=r"the key 'clock'.*`layout: \{clock: \.\.\.\}`"):
        open_lerobot(folder)


def test_a_star_speaks_for_every_camera_before_those_that_are_named(make_folder, true_frame):
    folder = make_folder()
    features = read_info(folder)["features"]
    features["observation.images.wrist"] = features[FRONT]
    change_info(folder, features=features)
    layout = {"images": {"front": FRONT, "wrist": FRONT}}
    cameras = [
        {"name": "*", "orientation": "flipped_vertical"},
        {"name": "wrist", "orientation": "upright", "source": "webcam"},
    ]
    sidecar(folder, layout=layout, cameras=cameras)
    episode = open_lerobot(folder)[0]
    np.testing.assert_array_equal(episode.image("front", 3), true_frame(0, 3)[::-1])
    np.testing.assert_array_equal(episode.image("wrist", 3), true_frame(0, 3))


@pytest.mark.parametrize("layout", ["lerobot_v3.0", "robomimic", 3, None, ["state"]])
def test_a_layout_that_is_no_mapping_is_told_with_the_keys_it_may_have(make_folder, layout):
    folder = make_folder()
    sidecar(folder, layout=layout)
    with pytest.raises(UserError, match=r"layout: found .*'state', 'action', 'images'.*leave it"):
        open_lerobot(folder)


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ({"stat": ["observation.state"]}, "did you mean 'state'"),
        ({"state": "observation.state"}, "a list"),
        ({"state": [3]}, "a text"),
        ({"clock": "timestamps"}, "'timestamp' or 'frame_index'"),
        ({"tolerance_s": 0}, "above 0"),
        ({"tolerance_s": True}, "a number"),
        ({"tolerance_s": math.inf}, "finite"),
        ({"instruction": {"text": " "}}, "a sentence"),
        ({"images": {"front": "observation.images.frnt"}}, "did you mean"),
        ({"several_tasks": "often"}, "true or false"),
    ],
)
def test_a_mistake_below_layout_is_told_in_our_words(make_folder, layout, words):
    folder = make_folder()
    sidecar(folder, layout=layout)
    with pytest.raises(UserError) as caught:
        open_lerobot(folder)
    (fault,) = caught.value.faults
    assert words in fault
    assert "conventions.yaml" in fault
    assert "Input should" not in fault


def test_every_key_of_a_sidecar_is_in_the_page_about_layouts():
    page = (ROOT / "docs/data-layouts.md").read_text(encoding="utf-8")
    section = page.partition("## LeRobot folders")[2].partition("\n## ")[0]
    for key in Sources.model_fields:
        assert f"* `{key}`: " in section
