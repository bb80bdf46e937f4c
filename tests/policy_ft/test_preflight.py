"""What is refused before the first step, by `train` as by `check`."""

from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.torch import save_file

from data_tools.formats.lerobot import LeRobotOptions, write_lerobot
from data_tools.formats.reader import open_dataset
from policy_ft import assemble
from policy_ft.config.model import TimmVisionConfig
from policy_ft.errors import UserError
from policy_ft.formats.load import load_policy
from policy_ft.models.torchvision_guard import ensure_torchvision_imports

ensure_torchvision_imports()
import timm  # noqa: E402  it imports torchvision, which must have been mended by then


def _refusal(config) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        assemble.train(config)
    return caught.value.faults


def in_reach(**changes: object) -> dict[str, object]:
    return {
        "env_args": {"task": "reach", "image_size": 32},
        "replan_steps": 2,
        "every": 1,
        **changes,
    }


BAD_ROLLOUTS = {
    "no such environment": ({"env": "eval_envs:Nowhere-v0"}, "eval-envs list"),
    "another robot": ({"env": "CartPole-v1", "env_args": {}}, "Give it a `conventions` property"),
    "images of another size": (
        {"env_args": {"task": "reach", "image_size": 48}},
        "found 48 x 48 pixels; expected 32 x 32, as the policy's data. Set the size",
    ),
    "more steps than a chunk has": ({"replan_steps": 5}, "Lower replan_steps"),
}


@pytest.mark.parametrize("case", BAD_ROLLOUTS)
def test_rollouts_that_cannot_be_made_are_refused_before_the_first_step(
    case, run_config, small_model, tmp_path
):
    changes, remedy = BAD_ROLLOUTS[case]
    recipe = {"task": "reach", "num_episodes": 3, "env_args": {"image_size": 32}}
    policy = {"model": small_model(max_prompt_tokens=32)}
    data = {"path": str(tmp_path / "reach.hdf5"), "collect": recipe}
    base = assemble.train(
        run_config(policy=policy, data=data, training={"steps": 1}, output_dir=str(tmp_path / "a"))
    )
    pretrained = {"kind": "pretrained", "path": str(base.last_checkpoint)}
    config = run_config(data=data)
    config = type(config).model_validate(
        {
            **config.model_dump(mode="json"),
            "policy": pretrained,
            "evaluation": in_reach(**changes),
        }
    )
    for faults in (assemble.check(config), _refusal(config)):
        assert any(remedy in fault for fault in faults), faults
    assert not Path(config.output_dir).exists()


def test_an_action_beyond_the_declared_range_is_refused_by_train_as_by_check(run_config):
    config = run_config()
    with h5py.File(config.data.path[0], "r+") as file:
        file["data/demo_2/actions"][4, 1] = 7.0
    for faults in (assemble.check(config), _refusal(config)):
        assert any("check the units of this column" in fault for fault in faults)
    assert not Path(config.output_dir).exists()


@pytest.fixture
def lerobot_config(run_config, tmp_path):
    """Settings of a run on a LeRobot folder whose times are changed, and the folder."""

    def make(images, change):
        run_config()  # records the demonstrations
        recorded, folder = open_dataset(tmp_path / "demos.hdf5"), tmp_path / "lerobot"
        options = LeRobotOptions(version="v2.1", codec="h264", images=images)
        episodes = [recorded[index] for index in range(len(recorded))]
        write_lerobot(folder, recorded.conventions, episodes, options)
        for path in folder.rglob("*.parquet"):
            table = pq.read_table(path)
            times = change(np.array(table["timestamp"]))
            place = table.column_names.index("timestamp")
            pq.write_table(table.set_column(place, "timestamp", pa.array(times)), path)
        return run_config(data={"path": str(folder)}, training={"steps": 1}), folder

    return make


def test_a_wrong_clock_is_refused_by_train_as_by_check_and_either_word_mends_it(
    lerobot_config, run_config, tmp_path
):
    config, folder = lerobot_config("video", lambda times: times + np.float32(0.03))
    for faults in (assemble.check(config), _refusal(config)):
        told = [fault for fault in faults if fault.startswith("[wrong_clock]")]
        assert len(told) == 4, faults
        assert all("`layout: {clock: frame_index}`" in fault for fault in faults)
        assert not any("If it is meant" in fault for fault in faults)
        assert not any("download" in fault.lower() for fault in faults)
    assert not Path(config.output_dir).exists()
    allowed = run_config(data={"path": str(folder), "tolerance_s": 0.04}, training={"steps": 1})
    assert assemble.check(allowed) == []
    sidecar = yaml.safe_load((folder / "conventions.yaml").read_text())
    sidecar["layout"] = {"clock": "frame_index"}
    (folder / "conventions.yaml").write_text(yaml.safe_dump(sidecar))
    assert assemble.check(config) == []
    assert assemble.train(config).last_checkpoint.exists()


def test_what_is_refused_by_check_is_refused_by_train_unless_it_is_meant(
    lerobot_config, run_config
):
    config, folder = lerobot_config("png", lambda times: times[::-1].copy())
    for faults in (assemble.check(config), _refusal(config)):
        assert all("[time_backwards]" in fault for fault in faults), faults
        assert len(faults) == 4
    unknown = run_config(data={"path": str(folder), "ignore": ["time_backward"]})
    for faults in (assemble.check(unknown), _refusal(unknown)):
        assert any("did you mean 'time_backwards'?" in fault for fault in faults), faults
    data = {"path": str(folder), "ignore": ["time_backwards"]}
    meant = run_config(data=data, training={"steps": 1})
    assert assemble.check(meant) == []
    assert assemble.train(meant).last_checkpoint.exists()


def test_a_tower_with_batch_norm_trains_with_loaded_statistics_alone(
    run_config, small_model, tmp_path
):
    tower = {"tower": "resnet18", "feature_level": 1, "tower_args": {"stem_width": 8}}
    config = run_config(policy={"model": small_model(vision=TimmVisionConfig(**tower))})
    for faults in (assemble.check(config), _refusal(config)):
        assert any("Load them (policy.vision_weights, kind new)" in fault for fault in faults)
    file = tmp_path / "tower.safetensors"
    save_file(timm.create_model("resnet18", stem_width=8).state_dict(), file)
    weights = {"vision_weights": str(file), "model": config.policy.model.model_dump(mode="json")}
    config = run_config(policy=weights, training={"steps": 1})
    assert assemble.check(config) == []
    result = assemble.train(config)
    trained = load_policy(result.last_checkpoint).model.backbone.vision.body.bn1
    assert (trained.running_mean == 0).all(), "the statistics are those of the file"
    assert not (trained.weight == 1).all(), "the rest of the layer learns"
