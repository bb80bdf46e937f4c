"""The commands around published checkpoints, as a person types them."""

import pytest
import yaml
from typer.testing import CliRunner

import policy_ft
from policy_ft.cli import app


@pytest.fixture
def run():
    def run(*words):
        return CliRunner().invoke(app, [str(word) for word in words])

    return run


def test_convert_says_what_it_wrote_and_what_it_could_not(run, lerobot_directory, tmp_path):
    first = lerobot_directory(tmp_path / "a", "pi0")
    result = run("convert", first, "--to", "openpi", tmp_path / "b", "--dtype", "bfloat16")
    assert result.exit_code == 0, result.output
    assert f"wrote {tmp_path / 'b'}" in result.output
    assert "note: resize: the policy was trained with torch_bilinear_center_pad" in result.output
    assert (tmp_path / "b/assets/robot/norm_stats.json").is_file()


def test_convert_takes_the_robot_and_the_tokenizer(run, openpi_directory, tokenizer_file, tmp_path):
    first = openpi_directory(tmp_path / "a", "pi0", statistics={"trossen": statistics(14)})
    more = ("--embodiment", "aloha", "--tokenizer", tokenizer_file.parent)
    result = run("convert", first, tmp_path / "b", "--to", "native", *more)
    assert result.exit_code == 0, result.output
    policy = policy_ft.load_policy(tmp_path / "b")
    assert policy.conventions.control_hz == 50
    assert policy.conventions.camera_names == ("cam_high", "cam_left_wrist", "cam_right_wrist")


def statistics(width):
    rows = {name: [value] * width for name, value in (("mean", 0.0), ("std", 1.0))}
    return {"norm_stats": {"state": rows, "actions": rows}}


def test_a_checkpoint_that_cannot_be_converted_ends_with_sentences(run, tmp_path):
    (tmp_path / "a").mkdir()
    result = run("convert", tmp_path / "a", tmp_path / "b", "--to", "native")
    assert result.exit_code == 2
    assert "a checkpoint directory of policy_ft, openpi or LeRobot" in result.stderr


def test_show_knows_published_checkpoints(run, lerobot_directory, tmp_path):
    result = run("show", lerobot_directory(tmp_path / "a", "smolvla"))
    assert result.exit_code == 0, result.output
    assert "123 tensors loaded" in result.output
    assert "vlm.lm_head.weight" in result.output


def test_show_needs_neither_statistics_nor_a_tokenizer(run, openpi_directory, tmp_path):
    path = openpi_directory(tmp_path / "a", "pi0", statistics={"trossen": statistics(14)})
    result = run("show", path)
    assert result.exit_code == 0, result.output
    parts = yaml.safe_load(result.output[result.output.index("\nformat:") :])
    assert (parts["format"], parts["family"]) == ("openpi", "pi0")
    assert "found statistics of ['trossen']" in parts["statistics"]
    assert "none in this checkpoint" in parts["tokenizer"]
    assert "--embodiment: aloha, droid" in parts["embodiment"]
    assert "statistics: data" not in result.output
    assert "expert.layers.1" in result.output

    result = run("show", path, "--embodiment", "aloha")
    parts = yaml.safe_load(result.output[result.output.index("\nformat:") :])
    assert parts["statistics"] == "present"
    assert parts["conventions"]["control_hz"] == 50


def test_eval_takes_the_robot_and_the_tokenizer(
    run, openpi_directory, tokenizer_file, write_robot, tmp_path
):
    robot = write_robot(tmp_path / "own.yaml")
    path = openpi_directory(tmp_path / "a", "pi0")
    options = ("--embodiment", robot, "--tokenizer", tokenizer_file)
    result = run("eval", path, *options, "--task", "push", "--replan-steps", "2")
    # the checkpoint is a policy now, and of another robot than the environment's
    assert result.exit_code == 2
    assert "control_hz: found 10.0" in result.stderr
    assert "Give its path" in run("eval", path, *options[:2]).stderr, "without a tokenizer"


def test_push_refuses_what_is_no_checkpoint(run, tmp_path):
    result = run("push", tmp_path, "owner/name")
    assert result.exit_code == 2
    assert "Copy the whole directory again" in result.stderr


def test_pull_refuses_a_directory_with_files(run, tmp_path):
    (tmp_path / "notes.txt").touch()
    result = run("pull", "owner/name", tmp_path)
    assert result.exit_code == 2
    assert "Choose another directory" in result.stderr
