"""relabel, statistics files, and the commands."""

import json

import h5py
import numpy as np
import pytest

from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset
from data_tools.rewrite.convert import convert
from data_tools.rewrite.relabel import from_attribute, from_name, from_table, relabel
from data_tools.rewrite.stats_files import lerobot_stats
from data_tools.stats import dataset_stats
from data_tools.writer import EpisodeWriter


@pytest.fixture
def joints(tmp_path, conventions, make_episode):
    """Two episodes whose actions are absolute targets of the state's own columns."""
    action = conventions.action.model_copy(
        update={
            "names": ("x", "y", "gripper"),
            "units": ("m", "m", "1"),
            "references": ("absolute",) * 3,
            "low": (-9.0, -9.0, -1.0),
            "high": (9.0, 9.0, 1.0),
        }
    )
    absolute = conventions.model_copy(update={"action": action})
    path = tmp_path / "pick_up_the-cup_demo.hdf5"
    with EpisodeWriter(path, absolute) as writer:
        for seed in range(2):
            writer.add(**make_episode(seed, num_steps=5))
    return open_dataset(path)


def test_sentences_come_from_names_tables_and_attributes(joints, tmp_path):
    assert from_name(joints, r"([a-z_\-]+)_demo") == ["pick up the cup"] * 2
    assert from_attribute(joints, "seed") == ["0", "1"]
    (tmp_path / "a.csv").write_text('pick_up_the-cup_demo.hdf5:data/demo_1,"lift, gently"\n')
    assert from_table(joints, tmp_path / "a.csv") == ["", "lift, gently"]
    (tmp_path / "a.json").write_text('{"pick_up_the-cup_demo.hdf5": "lift"}')
    assert from_table(joints, tmp_path / "a.json") == ["lift", "lift"]
    found = relabel(joints, instructions=["lift", "drop"])
    assert [found[index].instruction for index in range(2)] == ["lift", "drop"]
    assert found.fingerprint != joints.fingerprint


def test_missing_sentences_and_wrong_tables_are_named(joints, tmp_path):
    with pytest.raises(UserError, match=r"demo_1: found ''.*Give every episode a sentence"):
        relabel(joints, instructions=["lift", ""])
    (tmp_path / "a.json").write_text('{"pick_up_the_cup_demo.hdf5": "lift"}')
    with pytest.raises(UserError, match=r"did you mean 'pick_up_the-cup_demo\.hdf5'"):
        from_table(joints, tmp_path / "a.json")
    (tmp_path / "b.json").write_text('{"a": 1}')
    with pytest.raises(UserError, match="Write one sentence a name"):
        from_table(joints, tmp_path / "b.json")
    with pytest.raises(UserError, match="Put brackets around"):
        from_name(joints, r"\w+")
    with pytest.raises(UserError, match="Write one group"):
        from_name(joints, r"(\w+")


def test_delta_and_absolute_are_inverse_and_the_declaration_follows(joints):
    delta = relabel(joints, actions="delta")
    expected = joints[1].actions()[:, :2] - joints[1].state()[:, :2]
    np.testing.assert_allclose(delta[1].actions()[:, :2], expected, atol=1e-6)
    np.testing.assert_array_equal(delta[1].actions()[:, 2], joints[1].actions()[:, 2])
    assert delta.conventions.action.references == ("delta", "delta", "absolute")
    assert delta.conventions.action.low == (-np.inf, -np.inf, -1.0)
    back = relabel(delta, actions="absolute")
    np.testing.assert_allclose(back[1].actions(), joints[1].actions(), atol=1e-6)
    assert back.conventions.action.references == ("absolute",) * 3


def test_the_next_state_becomes_the_action_and_the_last_step_goes(joints):
    found = relabel(joints, actions="next-state")
    assert found[0].num_steps == 4
    np.testing.assert_array_equal(found[0].actions()[:, :2], joints[0].state()[1:, :2])
    np.testing.assert_array_equal(found[0].actions()[:, 2], joints[0].actions()[:-1, 2])
    np.testing.assert_array_equal(found[0].state(), joints[0].state()[:-1])


def test_gripper_commands_are_binarized_or_mirrored_with_their_meaning(joints):
    # declared: -1 opens, +1 closes
    old = joints[0].actions()[:, 2]
    binary = relabel(joints, gripper="binarize")[0].actions()[:, 2]
    np.testing.assert_array_equal(binary, np.where(old < 0, -1, 1))
    flipped = relabel(joints, gripper="flip")
    np.testing.assert_array_equal(flipped[0].actions()[:, 2], -old)
    (gripper,) = flipped.conventions.action.grippers
    assert (gripper.open_value, gripper.closed_value) == (1.0, -1.0)


def test_changes_the_declaration_forbids_are_refused(joints, demos):
    with pytest.raises(UserError, match=r"'x': found reference 'absolute'; expected 'delta'"):
        relabel(joints, actions="absolute")
    with pytest.raises(UserError, match=r"no name that actions .*--pair"):
        relabel(open_dataset(demos), actions="delta")
    with pytest.raises(UserError, match=r"no column 'z'.*Correct the name"):
        relabel(joints, actions="delta", pairs={"x": "z"})
    with pytest.raises(UserError, match="did you mean 'delta'"):
        relabel(joints, actions="dleta")
    turned = joints.conventions.action.model_copy(update={"rotation": "euler_xyz"})
    joints.conventions = joints.conventions.model_copy(update={"action": turned})
    with pytest.raises(UserError, match="Name the columns that are positions or joints"):
        relabel(joints, actions="delta")
    relabel(joints, actions="delta", pairs={"x": "x"})


@pytest.mark.parametrize("change", ["delta", "next-state"])
def test_columns_of_another_unit_or_frame_are_not_subtracted_or_exchanged(joints, change):
    state = joints.conventions.state
    for update, words in (
        ({"units": ("mm", "m", "1")}, r"'x': found unit 'm'; expected 'mm'.*Map the columns"),
        ({"units": ("unknown",) * 3}, r"'y': found unit 'm'; expected 'unknown'"),
        ({"frame": "world"}, r"actions: found frame 'unknown'; expected 'world'.*correct the decl"),
    ):
        other = {"state": state.model_copy(update=update)}
        joints.conventions = joints.conventions.model_copy(update=other)
        with pytest.raises(UserError, match=words):
            relabel(joints, actions=change)
    alike = {"units": ("m", "mm", "1"), "frame": "unknown"}
    joints.conventions = joints.conventions.model_copy(
        update={"state": state.model_copy(update=alike)}
    )
    relabel(joints, actions=change, pairs={"x": "x"})
    with pytest.raises(UserError, match=r"--actions"):
        relabel(joints, instructions=["lift"] * 2, pairs={"x": "x"})


def test_flipped_grippers_stay_in_their_flipped_range(tmp_path, conventions, make_episode):
    (gripper,) = conventions.action.grippers
    gripper = gripper.model_copy(update={"open_value": 1.0, "closed_value": 0.0})
    update = {"grippers": (gripper,), "low": (-1.0, -1.0, 0.0), "high": (1.0, 1.0, 1.25)}
    action = conventions.action.model_copy(update=update)
    with EpisodeWriter(
        tmp_path / "a.hdf5", conventions.model_copy(update={"action": action})
    ) as writer:
        episode = make_episode(num_steps=6)
        episode["actions"][:, 2] = np.linspace(0, 1.25, 6)
        writer.add(**episode)
    flipped = relabel(open_dataset(tmp_path / "a.hdf5"), gripper="flip")
    spec = flipped.conventions.action
    assert (spec.low[2], spec.high[2]) == (-0.25, 1.0)
    values = flipped[0].actions()[:, 2]
    assert (values.min(), values.max()) == (-0.25, 1.0)


def test_a_table_may_name_its_columns_and_an_empty_sentence_is_no_sentence(
    joints, tmp_path, robot_data
):
    (tmp_path / "a.csv").write_text("name,text\n\npick_up_the-cup_demo.hdf5,lift\n")
    assert from_table(joints, tmp_path / "a.csv") == ["lift", "lift"]
    (tmp_path / "b.csv").write_text("label,text\n")
    with pytest.raises(UserError, match="the episode 'label'"):
        from_table(joints, tmp_path / "b.csv")
    source, new = tmp_path / "pick_up_the-cup_demo.hdf5", tmp_path / "new.hdf5"
    code, _, err = robot_data("relabel", source, new, "--gripper", "binarize", "--text", "")
    assert (code, "Give every episode a sentence" in err, new.exists()) == (2, True, False)
    code, _, err = robot_data("relabel", source, new, "--gripper", "flip", "--pair", "x=x")
    assert (code, "--actions" in err, new.exists()) == (2, True, False)


def test_lerobot_statistics_are_exact(demos):
    dataset = open_dataset(demos)
    found = lerobot_stats(dataset)
    stats = dataset_stats(dataset)
    for feature, part in (("observation.state", "state"), ("action", "actions")):
        for row in ("min", "max", "mean", "std", "q01", "q10", "q90", "q99"):
            np.testing.assert_allclose(found[feature][row], stats[part].row(row), rtol=1e-12)
        assert found[feature]["count"] == [306]
    pixels = [
        dataset[index].image("wrist", step)
        for index in range(12)
        for step in range(dataset[index].num_steps)
    ]
    flat = np.concatenate(pixels).reshape(-1, 3) / 255
    wrist = found["observation.images.wrist"]
    np.testing.assert_allclose(np.ravel(wrist["mean"]), flat.mean(0), atol=1e-12)
    np.testing.assert_allclose(np.ravel(wrist["q50"]), np.quantile(flat, 0.5, axis=0), atol=1e-12)
    assert np.shape(wrist["std"]) == (3, 1, 1)


def test_stats_writes_the_files_of_openpi_and_lerobot(robot_data, demos, tmp_path):
    files = "--openpi", tmp_path / "norm_stats.json", "--lerobot", tmp_path / "stats.json"
    assert robot_data("stats", demos, *files)[0] == 0
    written = json.loads((tmp_path / "norm_stats.json").read_text())["norm_stats"]
    stats = dataset_stats(open_dataset(demos))
    assert written["actions"]["q99"] == list(stats["actions"].q99)
    assert sorted(written["state"]) == ["mean", "q01", "q99", "std"]
    found = json.loads((tmp_path / "stats.json").read_text())
    assert sorted(found)[-1] == "observation.state"
    code, _, err = robot_data("stats", demos, *files)
    assert code == 2
    assert "Choose another name" in err


def test_repack_says_size_and_speed_before_and_after(robot_data, demos, tmp_path):
    code, out, _ = robot_data("repack", demos, tmp_path / "raw.hdf5", "--images", "raw")
    assert code == 0
    assert "frames/s before" in out
    assert "times as fast" in out
    code, out, _ = robot_data("repack", demos, tmp_path / "raw.hdf5", tmp_path / "out")
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["push.hdf5", "raw.hdf5"]
    assert len(open_dataset(tmp_path / "out")) == 24


def test_convert_picks_cameras_and_resizes(robot_data, demos, tmp_path):
    code, out, err = robot_data(
        "convert", demos, tmp_path / "a", "--to", "aloha", "--cameras", "wrist", "--size", "16x12"
    )
    assert (code, out) == (0, f"{tmp_path / 'a'}: 12 episodes as aloha\n")
    assert open_dataset(tmp_path / "a")[3].image("wrist", 0).shape == (12, 16, 3)
    for option, remedy in (("--cameras=wirst", "did you mean"), ("--size=16", "as in 224x224")):
        code, _, err = robot_data("convert", demos, tmp_path / "b", "--to", "native", option)
        assert (code, remedy in err) == (2, True)


def test_split_merge_filter_and_relabel_from_the_command_line(robot_data, demos, tmp_path):
    code, out, _ = robot_data("split", demos, tmp_path / "parts", "--valid", "0.25")
    assert (code, "9 episodes to train on, 3 valid" in out) == (0, True)
    assert robot_data("split", demos, tmp_path / "masked.hdf5")[0] == 0
    code, out, _ = robot_data("merge", demos, tmp_path / "masked.hdf5", tmp_path / "all.hdf5")
    assert (code, out) == (0, f"{tmp_path / 'all.hdf5'}: 24 episodes\n")
    keep = tmp_path / "keep.json"
    code, out, _ = robot_data("filter", demos, keep, "--min-steps", 25)
    assert "keeps 196 of 306 steps, 7 of 12 episodes" in out
    assert len(open_dataset(demos, keep=keep)) == 7
    applied = tmp_path / "long.hdf5"
    assert robot_data("filter", demos, applied, "--min-steps", 25, "--apply")[0] == 0
    found = open_dataset(applied)
    assert [found[index].num_steps for index in range(7)] == list(range(25, 32))
    said = tmp_path / "said.hdf5"
    assert robot_data("relabel", demos, said, "--text", "nudge it", "--gripper", "flip")[0] == 0
    assert open_dataset(said)[0].instruction == "nudge it"
    code, _, err = robot_data("relabel", demos, tmp_path / "no.hdf5")
    assert (code, "or a change" in err) == (2, True)


def test_kept_steps_of_an_episode_are_written_one_after_the_other(demos, tmp_path, robot_data):
    with h5py.File(demos, "r+") as file:
        file["data/demo_0/actions"][3:6] = 0.0
        file["data/demo_0/actions"][:, 2] = 1.0
    before = open_dataset(demos)[0]
    arguments = "--noops", "openvla", "--apply"
    assert robot_data("filter", demos, tmp_path / "a.hdf5", *arguments)[0] == 0
    found = open_dataset(tmp_path / "a.hdf5")[0]
    assert found.num_steps == before.num_steps - 3
    assert found.jpeg("front", 3) == before.jpeg("front", 6)
    np.testing.assert_array_equal(found.actions()[3], before.actions()[6])


def test_relabelled_data_are_read_back_with_their_new_declaration(joints, tmp_path):
    path = convert(relabel(joints, actions="delta"), tmp_path / "delta.hdf5", "native")
    found = open_dataset(path)
    assert found.conventions.action.references == ("delta", "delta", "absolute")
    assert found[0].jpeg("front", 1) == joints[0].jpeg("front", 1)
