"""Published policies see their task in images, and refuse data and robots without a camera."""

import re

import pytest

import policy_ft
from policy_ft import assemble
from policy_ft.config.run import RunConfig
from policy_ft.errors import UserError
from tests.policy_ft import point_world

STATES_ALONE = re.escape("policy.kind new with transforms.cameras [] and model.vision {kind: none}")


@pytest.mark.parametrize("family", ["pi0", "smolvla"])
def test_a_robot_without_cameras_is_refused(
    family, openpi_directory, lerobot_directory, write_robot, tokenizer_file, tmp_path
):
    write = openpi_directory if family == "pi0" else lerobot_directory
    path = write(tmp_path / family, family)
    blind = write_robot(tmp_path / "blind.yaml", cameras=[])
    with pytest.raises(UserError, match=rf"blind, cameras: found none; expected .*{STATES_ALONE}"):
        policy_ft.load_policy(path, embodiment=blind, tokenizer=tokenizer_file)


@pytest.mark.parametrize("statistics", ["checkpoint", "data"])
@pytest.mark.parametrize("is_named", [True, False])
def test_data_without_a_camera_is_refused_before_weights_are_read(
    statistics, is_named, openpi_directory, arm, tokenizer_file, tmp_path
):
    path = openpi_directory(tmp_path / "pi0", "pi0")
    data = point_world.write_d4rl(tmp_path / "point.hdf5", num_episodes=3)
    policy = {"kind": "pretrained", "path": str(path), "statistics": statistics}
    policy |= {"tokenizer": str(tokenizer_file), **({"embodiment": arm} if is_named else {})}
    config = RunConfig.model_validate(
        {
            "output_dir": str(tmp_path / "run"),
            "policy": policy,
            "data": {"path": str(data)},
            "training": {"steps": 1, "batch_size": 1},
        }
    )
    found = f"data.path: found no camera at all; expected images, for {path} sees its task in them"
    for faults in (assemble.check(config), refused(config)):
        (fault,) = [each for each in faults if "camera" in each]
        assert fault.startswith(found)
        assert re.search(STATES_ALONE, fault)


def refused(config: RunConfig) -> tuple[str, ...]:
    with pytest.raises(UserError) as told:
        assemble.train(config)
    return told.value.faults
