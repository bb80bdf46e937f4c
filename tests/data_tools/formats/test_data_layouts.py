import json

import h5py
import numpy as np
import pytest
import yaml

from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset
from data_tools.writer import EpisodeWriter
from tests.data_tools.fixtures.robomimic import ENV_ARGS

DECLARED = {
    "cameras": [{"name": "front", "height": 6, "width": 8}],
    "state": {"names": ["x", "y", "z", "opening"], "units": ["m", "m", "m", "m"]},
    "action": {
        "names": ["dx", "dy"],
        "units": ["1", "1"],
        "references": ["delta", "delta"],
        "low": [-1.0, -1.0],
        "high": [1.0, 1.0],
    },
    "control_hz": 20.0,
    "layout": {
        "state": ["robot0_eef_pos", "robot0_gripper_qpos"],
        "images": {"front": "agentview_image"},
        "instruction": {"text": "lift the cube"},
    },
}


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, size=(5, 6, 8, 3)).astype(np.uint8)


@pytest.fixture
def robomimic_file(tmp_path, frames):
    """A robomimic file as its own tools write it: raw frames, float64, nothing of ours."""
    path = tmp_path / "lift.hdf5"
    with h5py.File(path, "w") as file:
        for name in ("demo_0", "demo_1"):
            demo = file.create_group(f"data/{name}")
            demo.attrs["num_samples"] = 5
            demo["actions"] = np.linspace(-1, 1, 10).reshape(5, 2)
            demo["obs/robot0_eef_pos"] = np.arange(15.0).reshape(5, 3)
            demo["obs/robot0_gripper_qpos"] = np.arange(5.0)
            demo["obs/agentview_image"] = frames
        file["data"].attrs["total"] = 10
        file["data"].attrs["env_args"] = '{"env_name": "Lift"}'
    return path


def _declare(path, **changes):
    sidecar = path.with_name(f"{path.name}.conventions.yaml")
    sidecar.write_text(yaml.safe_dump(DECLARED | changes))
    return sidecar


def test_a_file_of_a_lab_is_read_with_a_sidecar(robomimic_file, frames):
    _declare(robomimic_file)
    dataset = open_dataset(robomimic_file)
    episode = dataset[1]
    assert (len(dataset), episode.instruction, episode.is_success) == (2, "lift the cube", None)
    np.testing.assert_array_equal(episode.state()[3], [9.0, 10.0, 11.0, 3.0])
    assert episode.actions().dtype == np.float32
    np.testing.assert_array_equal(episode.image("front", 2), frames[2])
    assert dataset.inspected.layouts == ("declared",)


def test_a_sidecar_of_the_folder_speaks_for_its_files(robomimic_file):
    _declare(robomimic_file).rename(robomimic_file.with_name("conventions.yaml"))
    assert len(open_dataset(robomimic_file.parent)) == 2


def _write_declaration(path, conventions):
    path.write_text(yaml.safe_dump(conventions.model_dump(mode="json")))


def test_a_folder_does_not_speak_for_a_file_that_declares_itself(demos, conventions):
    folder = demos.with_name("conventions.yaml")
    _write_declaration(folder, conventions)
    dataset = open_dataset(demos)
    assert dataset.inspected.warnings == ()
    assert "has the attributes" in dataset.inspected.evidence[0]
    _write_declaration(folder, conventions.model_copy(update={"control_hz": 20.0}))
    with pytest.raises(UserError, match=r"Move the file .*push.hdf5.conventions.yaml to correct"):
        open_dataset(demos)


def test_a_files_own_sidecar_corrects_what_the_file_declares_with_a_warning(demos, conventions):
    sidecar = demos.with_name("push.hdf5.conventions.yaml")
    _write_declaration(sidecar, conventions)
    assert open_dataset(demos).inspected.warnings == ()
    state = conventions.state.model_copy(update={"frame": "robot_base"})
    _write_declaration(sidecar, conventions.model_copy(update={"state": state}))
    dataset = open_dataset(demos)
    assert dataset.conventions.state.frame == "robot_base"
    (warning,) = dataset.inspected.warnings
    assert warning.rule == "corrected_conventions"
    assert "if it corrects the data on purpose; else delete it" in str(warning)


@pytest.mark.parametrize(
    ("color_order", "orientation", "turn"),
    [
        ("bgr", "upright", lambda frame: frame[:, :, ::-1]),
        ("rgb", "flipped_vertical", lambda frame: frame[::-1]),
        ("rgb", "rotated_180", lambda frame: frame[::-1, ::-1]),
        ("bgr", "flipped_vertical", lambda frame: frame[::-1, :, ::-1]),
    ],
)
def test_frames_arrive_rgb_and_upright_as_the_conventions_then_say(
    robomimic_file, frames, color_order, orientation, turn
):
    camera = DECLARED["cameras"][0] | {"color_order": color_order, "orientation": orientation}
    _declare(robomimic_file, cameras=[camera])
    dataset = open_dataset(robomimic_file)
    np.testing.assert_array_equal(dataset[0].image("front", 1), turn(frames[1]))
    delivered = dataset.conventions.camera("front")
    assert (delivered.color_order, delivered.orientation) == ("rgb", "upright")


def test_the_instruction_may_be_an_attribute_of_the_file(robomimic_file):
    layout = DECLARED["layout"] | {"instruction": {"attribute": "task"}}
    _declare(robomimic_file, layout=layout)
    with pytest.raises(UserError, match="in the attribute 'task'"):
        open_dataset(robomimic_file)
    with h5py.File(robomimic_file, "r+") as file:
        file["data"].attrs["task"] = "lift it"
    assert open_dataset(robomimic_file)[0].instruction == "lift it"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"contrl_hz": 20}, "contrl_hz: .*did you mean 'control_hz'"),
        ({"layout": {"imges": {}}}, "layout.imges: .*did you mean 'images'"),
        ({"control_hz": -1.0}, "control_hz: found -1.0"),
        (
            {"cameras": [{"name": "front", "height": 6, "width": 8, "orientation": "unknown"}]},
            "Look at one frame and declare how it is stored",
        ),
        (
            {"layout": DECLARED["layout"] | {"images": {"frnt": "agentview_image"}}},
            "Declare the camera or correct its name; did you mean 'front'",
        ),
        (
            {"layout": DECLARED["layout"] | {"images": {"front": "agentview_imag"}}},
            "did you mean 'obs/agentview_image'",
        ),
        (
            {"layout": DECLARED["layout"] | {"state": ["robot0_eef_pos"]}},
            "3 columns; expected the 4 columns .*Correct the names in the conventions",
        ),
        (
            {"cameras": [{"name": "front", "height": 8, "width": 6}]},
            "Correct the camera's size in the conventions",
        ),
        ({"layout": DECLARED["layout"] | {"root": "demos"}}, "a group 'demos'"),
    ],
)
def test_a_wrong_sidecar_is_told_with_its_remedy(robomimic_file, changes, words):
    _declare(robomimic_file, **changes)
    with pytest.raises(UserError, match=words):
        open_dataset(robomimic_file)


def test_a_sidecar_that_is_not_yaml_is_named(robomimic_file):
    _declare(robomimic_file).write_text("cameras: [")
    with pytest.raises(UserError, match=r"no readable YAML.*Mend the file"):
        open_dataset(robomimic_file)
    _declare(robomimic_file).write_text("just words")
    with pytest.raises(UserError, match=r"lift.hdf5.conventions.yaml: found 'just words'"):
        open_dataset(robomimic_file)


def test_a_file_without_any_declaration_is_refused_with_the_draft_to_fill_in(robomimic_file):
    with h5py.File(robomimic_file, "r+") as file:
        file["data"].attrs["env_args"] = json.dumps(ENV_ARGS)
    with pytest.raises(
        UserError,
        match=r"has 2 action columns; .*Write into lift.hdf5.conventions.yaml beside it:\n"
        r"layout:\n  preset: robomimic\n  instruction: .*\nstate:\n  units: .*\naction:\n  names: ",
    ):
        open_dataset(robomimic_file)
    with h5py.File(robomimic_file, "r+") as file:
        del file["data"].attrs["env_args"]
    with pytest.raises(
        UserError,
        match=r"Write lift.hdf5.conventions.yaml .*`robot-data inspect .* --draft` writes",
    ):
        open_dataset(robomimic_file)


def test_headers_that_look_edited_are_warned_of(robomimic_file, frames):
    _declare(robomimic_file)
    with h5py.File(robomimic_file, "r+") as file:
        file.move("data/demo_1", "data/demo_4")
        del file["data/demo_0/obs/agentview_image"]
        file["data"].attrs["total"] = 99
        file["data/demo_0/obs"].create_dataset(
            "agentview_image", data=frames, chunks=(5, 6, 8, 1), compression="gzip"
        )
    warnings = open_dataset(robomimic_file).inspected.warnings
    assert [warning.rule for warning in warnings] == ["stale_total", "number_gap", "slow_chunks"]
    assert "Rewrite the file with robot-data repack" in str(warnings[2])


@pytest.mark.parametrize("lacking", ["a.hdf5", "b.hdf5"])
def test_a_camera_that_one_file_of_a_folder_lacks_is_told_once(tmp_path, conventions, lacking):
    front = conventions.model_copy(update={"cameras": conventions.cameras[:1]})
    for name in ("a.hdf5", "b.hdf5"):
        declared = front if name == lacking else conventions
        with EpisodeWriter(tmp_path / name, declared) as writer:
            writer.add(
                images={
                    each.name: np.zeros((4, each.height, each.width, 3), np.uint8)
                    for each in declared.cameras
                },
                state=np.zeros((4, len(declared.state.names)), np.float32),
                actions=np.zeros((4, len(declared.action.names)), np.float32),
                instruction="push the block",
                success=True,
                attributes={},
            )
    with pytest.raises(UserError) as caught:
        open_dataset(tmp_path)
    (fault,) = caught.value.faults
    assert "wrist" in fault
    assert "Open files with different cameras as two datasets" in fault
