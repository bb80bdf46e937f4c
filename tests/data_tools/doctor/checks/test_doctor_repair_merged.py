"""--fix of several files: merged where they fit into one, else converted, and all loss is said."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from data_tools.doctor.examination import validate
from data_tools.doctor.repairs.repair import repair
from data_tools.formats.reader import open_dataset
from tests.data_tools.doctor.checks.lifts import slow, write_lift
from tests.data_tools.fixtures.robomimic import ENV_ARGS


@pytest.fixture
def lift(tmp_path):
    return write_lift(tmp_path)


def two_files(path):
    """The file again with other positions, a sentence to be mended and more than episodes."""
    second = path.with_name("push.hdf5")
    second.write_bytes(path.read_bytes())
    with h5py.File(second, "r+") as file:
        for number in range(4):
            file[f"data/demo_{number}/obs/robot0_eef_pos"][...] += 0.1
        file["data/demo_2"].attrs["told"] = "lift  the cube"
        file["data"].attrs["env_args"] = json.dumps({**ENV_ARGS, "env_version": "1.4.0"})
        file["notes"] = np.arange(3)
    return [path, second]


def test_several_files_are_merged_and_then_only_what_is_named_changes(lift):
    slow(lift, compression="gzip")
    paths, notes, out = two_files(lift), [], lift.with_name("fixed.hdf5")
    dataset = open_dataset(paths)
    rules = ("instruction_spaces", "slow_chunks")
    findings = [each for each in validate(dataset) if each.rule in rules]
    repairs = repair(dataset, out, findings, sources=paths, tell=notes.append)
    assert sorted(each.rule for each in repairs) == [
        *("instruction_spaces", "slow_chunks", "slow_chunks")
    ]
    assert f"{paths[1]}:data/demo_2: now 'lift the cube'" in str(repairs[2])
    (note,) = notes
    assert "left out in merging: " in note
    assert f"{paths[1]}:notes" in note
    assert f"{paths[1]}:data, attribute 'env_args'" in note
    mended = open_dataset(out)
    assert {each.instruction for each in mended} == {"lift the cube"}
    assert len(open_dataset(out, mask="train")) == 6
    with h5py.File(out) as new, h5py.File(paths[1]) as old:
        for name in ("next_obs/agentview_image", "obs/agentview_depth", "rewards"):
            np.testing.assert_array_equal(
                new[f"data/demo_5/{name}"][()], old[f"data/demo_1/{name}"][()]
            )
        assert new["data/demo_5/obs/agentview_image"].attrs["encoding"] == "jpeg"
    assert list(lift.parent.glob("*.partial")) == []


def test_files_that_do_not_fit_into_one_are_converted_and_all_that_is_lost_is_said(lift):
    paths, notes = two_files(lift), []
    with h5py.File(paths[1], "r+") as file:
        del file["mask/valid"]
        file.create_group("mask/valid")
    out = lift.with_name("out") / "fixed.hdf5"
    dataset = open_dataset(paths)
    repairs = repair(dataset, out, validate(dataset), sources=paths, tell=notes.append)
    assert "instruction_spaces" in {each.rule for each in repairs}
    layout, frames, left_out = notes
    assert "in our own layout, for it is made of 2 files, and they cannot be merged (" in layout
    assert "mask/valid" in layout
    assert "agentview, robot0_eye_in_hand that are no JPEG become JPEG of quality 95" in frames
    for lost in ("data/*/rewards (8)", "data/*/obs/agentview_depth (8)", "mask/train (2)"):
        assert lost in left_out
    assert "obs/robot0_eef_pos" not in left_out.replace("next_obs", "")
    assert len(open_dataset(out)) == len(dataset)


def test_the_command_prints_what_is_not_carried_over(robot_data, lift):
    paths, out = two_files(lift), lift.parent / "new" / "fixed.hdf5"
    _, text, _ = robot_data("validate", *paths, "--fix", out)
    assert "note: left out in merging: " in text
    _, told, _ = robot_data("validate", *paths, "--json", "--fix", out.with_name("again.hdf5"))
    assert any(note.startswith("left out") for note in json.loads(told)["notes"])
    assert Path(out).exists()
