"""What `check` says of a published checkpoint and data whose robot nobody named: one sentence."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from data_tools.conventions import ActionSpec, CameraSpec, Conventions, StateSpec
from data_tools.writer import EpisodeWriter
from policy_ft.assemble import check
from policy_ft.config.run import RunConfig

NAMES = tuple("abcdefg")
NAME_IT = "Name policy.embodiment: a preset, or a YAML file of your own (docs/embodiments.md)."


@pytest.fixture
def faults(tmp_path, tokenizer_file):
    """faults(checkpoint, key=value, ...): what `check` finds with data of seven columns."""

    def run(path, cameras=("top", "wrist"), demos=None, **policy):
        demos = demos or record(tmp_path / f"{len(list(tmp_path.glob('*.hdf5')))}.hdf5", cameras)
        settings = {
            "seed": 0,
            "output_dir": str(tmp_path / "run"),
            "policy": {
                "kind": "pretrained",
                "path": str(path),
                "tokenizer": str(tokenizer_file),
                "resize": {"action_horizon": 4},
                **policy,
            },
            "data": {"path": [str(demos)]},
            "optimizer": {"lr": 1e-4},
            "training": {"steps": 1, "batch_size": 1},
            "evaluation": "off",
        }
        return check(RunConfig.model_validate(settings), tell=run.told.append)

    run.told = []
    return run


def record(path, cameras):
    conventions = Conventions(
        cameras=tuple(CameraSpec(name=name, height=48, width=64) for name in cameras),
        state=StateSpec(names=NAMES, units=("rad",) * 7),
        action=ActionSpec(
            names=NAMES,
            units=("rad",) * 7,
            references=("absolute",) * 7,
            low=(-10.0,) * 7,
            high=(10.0,) * 7,
        ),
        control_hz=30,
    )
    generator = np.random.default_rng(0)
    with EpisodeWriter(path, conventions) as writer:
        for length in (4, 5):
            writer.add(
                images={name: np.zeros((length, 48, 64, 3), np.uint8) for name in cameras},
                state=generator.random((length, 7), dtype=np.float32),
                actions=generator.random((length, 7), dtype=np.float32),
                instruction="pick up the red cube",
                success=True,
                attributes={},
            )
    return path


def test_cameras_of_a_robot_that_nobody_named_are_one_fault(openpi_directory, faults, tmp_path):
    (fault,) = faults(openpi_directory(tmp_path / "x", "pi0"), statistics="data")
    assert "base_0_rgb" in fault
    assert "with the cameras ['top', 'wrist']" in fault
    assert fault.endswith(NAME_IT)


def test_numbered_columns_that_are_relative_are_one_fault(
    lerobot_directory, lerobot_settings, faults, tmp_path
):
    config = lerobot_settings("pi0", use_relative_actions=True)
    (fault,) = faults(lerobot_directory(tmp_path / "x", "pi0", config=config), statistics="data")
    assert "'action_6'" in fault
    assert fault.endswith(NAME_IT)


def test_columns_that_nobody_explained_are_one_fault(lerobot_directory, faults, tmp_path):
    (fault,) = faults(lerobot_directory(tmp_path / "x", "pi0"))
    assert "columns of which nobody says what they mean" in fault
    assert fault.endswith(NAME_IT)


def test_the_robot_is_enough(lerobot_directory, write_robot, faults, tmp_path):
    robot = write_robot(tmp_path / "own.yaml", cameras=["top", "wrist"])
    path = lerobot_directory(tmp_path / "x", "pi0")
    for statistics in ("data", "checkpoint"):
        assert faults(path, statistics=statistics, embodiment=robot) == []


def test_more_cameras_than_slots_say_how_to_get_slots(
    openpi_directory, write_robot, faults, tmp_path
):
    cameras = ["one", "two", "three", "four"]
    robot = write_robot(tmp_path / "own.yaml", cameras=cameras)
    path = openpi_directory(tmp_path / "x", "pi0")
    given = {"statistics": "data", "embodiment": robot, "cameras": cameras}
    (fault,) = faults(path, **given)
    assert "policy.resize.num_cameras" in fault
    assert "slots of cameras: found 4" in fault
    assert faults(path, **given, resize={"num_cameras": 4}) == []


def test_all_that_is_missing_is_told_at_once(openpi_directory, faults, tmp_path):
    openpi_directory(tmp_path / "openpi_pi0", "pi0")
    found = faults(
        tmp_path / "openpi_pi",
        demos=tmp_path / "data",
        tokenizer=str(tmp_path / "tokens"),
        embodiment=str(tmp_path / "arm.yaml"),
    )
    assert len(found) == 4
    for words in (
        "data: found no such file or folder; expected an HDF5 file, a folder of them or a glob",
        "did you mean 'openpi_pi0'?",
        "arm.yaml: found No such file",
        "expected a tokenizer.json",
    ):
        assert any(words in each for each in found), f"{words!r} not in {found}"


def test_another_robot_is_told_in_every_part_by_its_file(
    openpi_directory, write_robot, faults, tmp_path
):
    robot = write_robot(tmp_path / "own.yaml", names="hijklmn", cameras=["left", "right"])
    text = Path(robot).read_text().replace("control_hz: 30", "control_hz: 15")
    Path(robot).write_text(text.replace("rad", "deg"))
    path = openpi_directory(tmp_path / "x", "pi0")
    found = faults(path, statistics="data", embodiment=robot)
    for words in ("camera 'left'", "camera 'right'", "state names", "action units", "control_hz"):
        assert any(words in each for each in found), f"{words!r} not in {found}"
    assert all(f"as embodiment {robot} declares" in each for each in found)


def test_grippers_that_differ_are_told_in_words(openpi_directory, write_robot, faults, tmp_path):
    robot = write_robot(tmp_path / "own.yaml", cameras=["top", "wrist"])
    values = yaml.safe_load(Path(robot).read_text())
    gripper = {"column": "g", "open_value": 1, "closed_value": -1}
    values["conventions"]["action"]["grippers"] = [gripper]
    Path(robot).write_text(yaml.safe_dump(values))
    path = openpi_directory(tmp_path / "x", "pi0")
    (fault,) = faults(path, statistics="data", embodiment=robot)
    assert "found no gripper; expected 'g' (open 1, closed -1)" in fault


def test_check_tells_what_is_decided_and_what_has_no_effect(
    openpi_directory, write_robot, faults, tmp_path
):
    changes = {"cameras": ["top", "wrist"], "prompt_says_state": False}
    robot = write_robot(tmp_path / "own.yaml", **changes)
    values = yaml.safe_load(Path(robot).read_text())
    values["conventions"]["cameras"][0]["height"] = 96
    Path(robot).write_text(yaml.safe_dump(values))
    path = openpi_directory(tmp_path / "x", "pi0")
    resize = {"action_horizon": 40, "action_dim": 33}
    assert faults(path, statistics="data", embodiment=robot, resize=resize) == []
    told = "\n".join(faults.told)
    for words in (
        f"{path}: 108 tensors loaded, 0 missing",
        "reshaped: expert.action_out_proj.weight [32, 64] -> [33, 64]",
        "camera 'top': 48 x 64 pixels in the data, 96 x 64 in embodiment",
        "prompt_says_state: without effect",
        "action_horizon 40: 93% of the steps of the chunks lie beyond the end",
    ):
        assert words in told, f"{words!r} not in:\n{told}"
    faults.told.clear()
    robot = write_robot(tmp_path / "fits.yaml", cameras=["top", "wrist"])
    assert faults(path, statistics="data", embodiment=robot) == []
    assert "camera" not in "\n".join(faults.told)
    assert "without effect" not in "\n".join(faults.told)
    assert "lie beyond" not in "\n".join(faults.told)
