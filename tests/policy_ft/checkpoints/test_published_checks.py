"""What `check` says of a published checkpoint and data whose robot nobody named: one sentence."""

import numpy as np
import pytest

from data_tools.conventions import ActionSpec, CameraSpec, Conventions, StateSpec
from data_tools.writer import EpisodeWriter
from policy_ft.assemble import check
from policy_ft.config.run import RunConfig

NAMES = tuple("abcdefg")
NAME_IT = "Name policy.embodiment: a preset, or a YAML file of your own (docs/embodiments.md)."


@pytest.fixture
def faults(tmp_path, tokenizer_file):
    """faults(checkpoint, key=value, ...): what `check` finds with data of seven columns."""

    def run(path, cameras=("top", "wrist"), **policy):
        demos = record(tmp_path / f"{len(list(tmp_path.glob('*.hdf5')))}.hdf5", cameras)
        settings = {
            "seed": 0,
            "output_dir": str(tmp_path / "run"),
            "policy": {
                "kind": "pretrained",
                "path": str(path),
                "tokenizer": str(tokenizer_file),
                **policy,
            },
            "data": {"path": [str(demos)]},
            "optimizer": {"lr": 1e-4},
            "training": {"steps": 1, "batch_size": 1},
            "evaluation": "off",
        }
        return check(RunConfig.model_validate(settings))

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
    assert faults(path, **given, resize={"num_cameras": 4}) == []
