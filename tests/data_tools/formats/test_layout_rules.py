"""Rows, facts, masks and sidecars: what a layout says is done, and told."""

import json

import h5py
import numpy as np
import pytest
import yaml

from data_tools.errors import UserError
from data_tools.formats.keep_files import keep_steps
from data_tools.formats.reader import open_dataset
from tests.data_tools.fixtures import (
    agibot,
    d4rl,
    droid,
    isaaclab,
    libero,
    maniskill,
    mimicgen,
    mobile_aloha,
    native,
    robocasa,
    robomimic,
    robomind,
)
from tests.data_tools.fixtures.contents import state_rows


def declare(path, **content):
    """The folder's sidecar."""
    folder = path if path.is_dir() else path.parent
    (folder / "conventions.yaml").write_text(yaml.safe_dump(content))


@pytest.fixture
def lift(tmp_path):
    path = robomimic.write(tmp_path / "lift.hdf5", episodes=3)
    declare(path, layout={"preset": "robomimic", "instruction": {"text": "lift the cube"}})
    return path


def edit(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


def test_a_filter_key_chooses_episodes(lift):
    assert [episode.name[-6:] for episode in open_dataset(lift, mask="train")] == [
        "demo_0",
        "demo_1",
    ]
    assert [episode.name[-6:] for episode in open_dataset(lift, mask="valid")] == ["demo_2"]
    with pytest.raises(UserError, match=r"\['train', 'valid'\]; expected 'trainn'.*mean 'train'"):
        open_dataset(lift, mask="trainn")
    edit(lift, lambda file: file.move("data/demo_1", "data/demo_9"))
    with pytest.raises(UserError, match=r"1 names without an episode, first 'demo_1'.*Make the fi"):
        open_dataset(lift, mask="train")


def test_a_keep_file_leaves_the_steps_and_moves_the_starts(lift, tmp_path):
    dataset = open_dataset(lift)
    kept = [np.array([0, 1, 1, 0, 0, 1], bool), np.zeros(6, bool), np.ones(6, bool)]
    path = tmp_path / "keep.json"
    path.write_text(keep_steps(dataset, kept, rule="by hand").model_dump_json())
    chosen = open_dataset(lift, keep=path)
    assert [episode.name[-6:] for episode in chosen] == ["demo_0", "demo_2"]
    np.testing.assert_array_equal(chosen[0].starts(), [1, 2, 5])
    assert chosen[0].num_steps == 6
    np.testing.assert_array_equal(chosen[0].actions(), dataset[0].actions())
    np.testing.assert_array_equal(chosen[1].starts(), dataset[2].starts())
    assert chosen.fingerprint != dataset.fingerprint
    with pytest.raises(UserError, match="Make the keep-file again for this dataset"):
        open_dataset(lift, mask="train", keep=path)


def test_what_was_done_to_rows_is_told_with_its_number(tmp_path):
    dataset = open_dataset(libero.write(tmp_path / "a_demo.hdf5"))
    assert dataset.inspected.rules == (
        "the observation in row t is paired with the action in row t + 1 (10 rows)",
    )
    rows = open_dataset(droid.write(tmp_path / "droid")).inspected.rules
    assert rows == ("rows marked by observation/timestamp/skip_action are left out (2 rows)",)
    path = d4rl.write(tmp_path / "hopper.hdf5")
    assert "rows after the last marked end are left out (2 rows)" in (
        open_dataset(path, allow_undeclared=True).inspected.rules
    )
    path = maniskill.write(tmp_path / "pick.h5")
    assert open_dataset(path, allow_undeclared=True).inspected.rules == (
        "the observation after the last action is dropped (2 rows)",
    )


def test_rows_that_differ_by_more_than_the_layout_allows_are_refused_with_both_lengths(tmp_path):
    path = robomind.write(tmp_path / "robomind", episodes=1)
    (file,) = path.rglob("*.hdf5")

    def shorten(opened, rows):
        del opened["puppet/joint_position"]
        opened["puppet/joint_position"] = state_rows(rows, 8, 0)

    edit(file, lambda opened: shorten(opened, 4))
    dataset = open_dataset(path, allow_undeclared=True)
    assert dataset[0].num_steps == 4
    (warning,) = dataset.inspected.warnings
    assert (warning.rule, warning.value[:10]) == ("trimmed_rows", "6 actions,")
    edit(file, lambda opened: shorten(opened, 3))
    with pytest.raises(UserError, match=r"6 actions and 3 states; expected as many of each"):
        open_dataset(path, allow_undeclared=True)


def test_one_observation_more_is_allowed_only_where_the_layout_says_so(lift):
    def lengthen(file):
        del file["data/demo_1/obs/robot0_eef_pos"], file["data/demo_1/obs/robot0_eef_quat"]
        del file["data/demo_1/obs/robot0_gripper_qpos"]
        for name, width in (("eef_pos", 3), ("eef_quat", 4), ("gripper_qpos", 2)):
            file[f"data/demo_1/obs/robot0_{name}"] = state_rows(7, width, 1)

    edit(lift, lengthen)
    with pytest.raises(UserError, match=r"demo_1: found 6 actions and 7 states"):
        open_dataset(lift)


def test_commanded_rows_of_agibot_may_be_stored_alone_and_must_fit(tmp_path):
    path = agibot.write(tmp_path / "agibot", episodes=1)
    whole = open_dataset(path, allow_undeclared=True)[0].actions()
    (file,) = path.rglob("*.h5")

    def compress(opened):
        rows = opened["action/joint/position"][1:]
        del opened["action/joint/position"]
        opened["action/joint/position"] = rows

    edit(file, compress)
    dataset = open_dataset(path, allow_undeclared=True)
    np.testing.assert_array_equal(dataset[0].actions(), whole)
    (rule,) = dataset.inspected.rules
    assert rule == "rows without action/joint/position are taken from state/joint/position (1 rows)"
    del dataset
    edit(file, lambda opened: opened["action/joint/index"].write_direct(np.full(5, 6)))
    with pytest.raises(UserError, match=r"row numbers below the 6 rows.*corrupt: leave it out"):
        open_dataset(path, allow_undeclared=True)


def test_times_are_seconds_since_the_first_step_whatever_the_clock(tmp_path):
    (episode, _) = open_dataset(droid.write(tmp_path / "droid"))
    np.testing.assert_allclose(episode.times(), np.array([0, 1, 3, 4, 5]) * 0.067, atol=1e-9)
    (episode, _) = open_dataset(agibot.write(tmp_path / "agi"), allow_undeclared=True)
    np.testing.assert_allclose(episode.times(), np.arange(6) * 0.033333333, atol=1e-12)
    assert open_dataset(libero.write(tmp_path / "x.hdf5"))[0].times() is None


def test_facts_come_from_wherever_the_layout_keeps_them(tmp_path):
    mimic = open_dataset(mimicgen.write(tmp_path / "m.hdf5"), allow_undeclared=True)
    assert [episode.attributes["source_demo"] for episode in mimic] == [3, 4]
    assert [episode.is_success for episode in mimic] == [True, True]
    skill = open_dataset(maniskill.write(tmp_path / "pick.h5"), allow_undeclared=True)
    assert skill[1].attributes == {
        "seed": 71,
        "control_mode": "pd_ee_delta_pose",
        "task": "PickCube-v1",
    }
    raw = open_dataset(droid.write(tmp_path / "droid"))
    assert [episode.is_success for episode in raw] == [False, True]
    assert raw[0].attributes == {"source": "AUTOLab", "operator": "0d4edc62", "scene": 5}
    kitchen = open_dataset(robocasa.write(tmp_path / "c.hdf5"))
    assert kitchen[0].attributes == {"scene": 4}
    isaac = open_dataset(isaaclab.write(tmp_path / "i.hdf5"), allow_undeclared=True)
    assert [episode.attributes["seed"] for episode in isaac] == [40, 41]


def test_the_order_of_quaternions_follows_isaac_labs_format_version(tmp_path):
    names = {}
    for version in (None, 0, 1):
        path = isaaclab.write(tmp_path / f"{version}.hdf5", format_version=version)
        state = open_dataset(path, allow_undeclared=True).conventions.state
        names[version] = state.names[12:16]
    assert names[None] == names[0] == ("eef_qw", "eef_qx", "eef_qy", "eef_qz")
    assert names[1] == ("eef_qx", "eef_qy", "eef_qz", "eef_qw")


def test_the_rate_of_the_file_goes_before_the_layouts(lift):
    with h5py.File(lift, "r+") as file:
        kwargs = {**robomimic.ENV_ARGS["env_kwargs"], "control_freq": 10}
        changed = {**robomimic.ENV_ARGS, "env_kwargs": kwargs}
        file["data"].attrs["env_args"] = json.dumps(changed)
    assert open_dataset(lift).conventions.control_hz == 10


def test_a_sidecar_overrides_any_part_of_a_preset(lift):
    declare(
        lift,
        layout={
            "preset": "robomimic",
            "instruction": {"text": "lift it"},
            "state": ["object", {"dataset": "robot0_eef_pos", "columns": [2], "scale": [1000.0]}],
        },
        cameras=[{"name": "*", "source": "a render"}, {"name": "agentview", "color_order": "bgr"}],
        action={"units": "m"},
        control_hz=5,
    )
    dataset = open_dataset(lift)
    conventions = dataset.conventions
    assert conventions.state.names == (*(f"object_{i}" for i in range(10)), "robot0_eef_pos")
    np.testing.assert_allclose(dataset[0].state()[:, 10], 1000 * state_rows(6, 9, 0)[:, 2])
    assert [camera.source for camera in conventions.cameras] == ["a render"] * 2
    assert conventions.action.units == ("m",) * 7
    assert conventions.control_hz == 5
    swapped = dataset[0].image("agentview", 0)[:, :, ::-1]
    with h5py.File(lift) as file:
        np.testing.assert_array_equal(swapped, file["data/demo_0/obs/agentview_image"][0])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"layout": "robomimc"}, r"layout: found 'robomimc'.*did you mean 'robomimic'"),
        ({"layout": 3}, r"layout: found 3; expected one of .*Correct it"),
        ({"layout": {"preset": "robomimic", "imges": {}}}, r"layout.imges: .*mean 'images'"),
        ({"control_hz": "fast"}, r"control_hz: found 'fast'"),
        ({"contrl_hz": 3}, r"contrl_hz: .*did you mean 'control_hz'"),
        (
            {"layout": {"preset": "robomimic", "success": {"path_pattern": "a(b"}}},
            r"no regular expression",
        ),
        (
            {"layout": {"preset": "robomimic", "actions": {"dataset": "actions", "columns": [9]}}},
            r"7 columns; expected the columns \[9\]. Correct the layout's columns",
        ),
    ],
)
def test_a_wrong_override_is_told_with_its_remedy(lift, content, words):
    declare(lift, **content)
    with pytest.raises(UserError, match=words):
        open_dataset(lift)


def test_a_caller_may_name_the_layout(tmp_path):
    path = robomimic.write(tmp_path / "lift.hdf5")
    with pytest.raises(UserError, match=r"did you mean 'robomimic'"):
        open_dataset(path, layout="robomimik")
    dataset = open_dataset(path, layout="mimicgen", allow_undeclared=True)
    assert dataset.inspected.layouts == ("mimicgen",)
    assert dataset.inspected.evidence[0] == "the caller names the layout mimicgen"


def test_a_folders_sidecar_speaks_for_folders_below_it_up_to_the_one_that_was_named(tmp_path):
    path = robomind.write(tmp_path / "all" / "robomind")
    said = {
        "cameras": [{"name": "*", "color_order": "rgb", "orientation": "upright"}],
        "state": {"units": "rad"},
        "action": {"units": "rad", "grippers": []},
        "control_hz": 20,
    }
    declare(tmp_path / "all", **said)
    assert len(open_dataset(tmp_path / "all")) == 2
    with pytest.raises(UserError, match="nothing that tells"):
        open_dataset(path)


def test_a_native_file_keeps_its_clock(tmp_path):
    path = native.write(tmp_path / "push.hdf5", episodes=1)
    assert open_dataset(path)[0].times() is None
    edit(path, lambda file: file["data/demo_0"].create_dataset("times", data=np.arange(6) / 10))
    np.testing.assert_allclose(open_dataset(path)[0].times(), np.arange(6) / 10)


def test_depth_beside_cameras_is_no_camera(tmp_path):
    dataset = open_dataset(mobile_aloha.write(tmp_path / "m"), allow_undeclared=True)
    assert "cam_high_depth" not in dataset.conventions.camera_names
