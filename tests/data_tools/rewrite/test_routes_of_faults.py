"""The routes that faults of single episodes name: each is taken, and the data opens after it."""

import shutil

import h5py
import numpy as np
import pytest

from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset
from data_tools.rewrite.salvage import salvage


def replace(group, name, values):
    del group[name]
    group[name] = values


def cut_to_nothing(episode):
    replace(episode, "actions", episode["actions"][:0])


def cut_short(episode):
    replace(episode, "actions", episode["actions"][:-2])


def write_words(episode):
    replace(episode, "actions", episode["actions"][()].astype("S10"))


def say_nothing(episode):
    episode.attrs["language_instruction"] = " "


def widen(episode):
    actions = episode["actions"][()]
    replace(episode, "actions", np.concatenate([actions, actions], axis=1))


def break_episode(demos, fault):
    with h5py.File(demos, "r+") as file:
        fault(file["data/demo_2"])
    with pytest.raises(UserError) as caught:
        open_dataset(demos)
    return str(caught.value)


@pytest.mark.parametrize("fault", [cut_to_nothing, cut_short])
def test_an_episode_that_salvage_calls_not_whole_is_left_out_though_every_byte_reads(
    fault, demos, tmp_path
):
    break_episode(demos, fault)
    result = salvage(demos, tmp_path / "saved.hdf5")
    assert "data/demo_2" in [each.group for each in result.episodes if not each.is_whole]
    with h5py.File(tmp_path / "saved.hdf5") as copy:
        whole = {each.group for each in result.episodes if each.is_whole}
        assert {f"data/{name}" for name in copy["data"]} == whole
    assert len(open_dataset(tmp_path / "saved.hdf5")) == len(whole)


@pytest.mark.parametrize("fault", [cut_to_nothing, cut_short, write_words, say_nothing, widen])
def test_an_episode_deleted_from_a_copy_as_its_fault_says_leaves_data_that_opens(
    fault, demos, tmp_path
):
    told = break_episode(demos, fault)
    assert "h5py: `del file['data/demo_3']`" in told
    shutil.copy(demos, tmp_path / "copy.hdf5")
    with h5py.File(tmp_path / "copy.hdf5", "r+") as file:
        del file["data/demo_2"]
    assert len(open_dataset(tmp_path / "copy.hdf5")) == 11


def test_an_instruction_that_is_there_and_empty_is_told_so(demos):
    told = break_episode(demos, say_nothing)
    assert "the attribute 'language_instruction' is there and holds no words: ' '" in told


def test_an_episode_with_a_broken_frame_between_is_left_out_by_a_keep_file(
    demos, tmp_path, robot_data
):
    with h5py.File(demos, "r+") as file:
        frames = file["data/demo_1/obs/front_image"]
        frames[2] = np.zeros_like(frames[2])
    assert robot_data("validate", "--deep", demos)[0] == 1
    assert robot_data("filter", demos, tmp_path / "keep.json", "--leave-out", "demo_1")[0] == 0
    kept = open_dataset(demos, keep=tmp_path / "keep.json")
    starts = {kept[index].name: len(kept[index].starts()) for index in range(len(kept))}
    assert {name for name, count in starts.items() if not count} <= {f"{demos}:data/demo_1"}
    assert sum(count > 0 for count in starts.values()) == 11
