import json
import os
import shutil
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest

from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset
from data_tools.rewrite.convert import convert
from data_tools.rewrite.edited import Edit, EditedDataset, all_with, with_cameras, with_size
from data_tools.writer import EpisodeWriter

CONVERT = """
import sys
from pathlib import Path
from data_tools.formats.reader import open_dataset
from data_tools.rewrite.convert import convert
convert(open_dataset(sys.argv[1]), Path(sys.argv[2]), sys.argv[3],
        advance=lambda done, total: print(done, flush=True))
"""
SIDES = 64, 96


@pytest.fixture
def dataset(tmp_path, conventions, make_episode):
    """Three episodes of even, video-sized frames; one failed, one nobody judged, one with times."""
    path = tmp_path / "push.hdf5"
    big = conventions.model_copy(update={"cameras": conventions.cameras[:1]})
    big = with_size(big, *SIDES)
    with EpisodeWriter(path, big, source="a test") as writer:
        for seed, success in enumerate((True, False, None)):
            episode = make_episode(seed, num_steps=6 + seed)
            front = episode["images"]["front"].repeat(2, axis=1).repeat(2, axis=2)
            times = np.arange(6 + seed) / 10 + 0.001
            writer.add(**episode | {"images": {"front": front}, "success": success, "times": times})
    return open_dataset(path)


def assert_same(found, expected, tolerance=0.0):
    assert len(found) == len(expected)
    assert found.conventions == expected.conventions
    for index in range(len(expected)):
        ours, theirs = found[index], expected[index]
        np.testing.assert_array_equal(ours.state(), theirs.state())
        np.testing.assert_array_equal(ours.actions(), theirs.actions())
        assert ours.instruction == theirs.instruction
        assert ours.is_success is theirs.is_success
        assert ours.attributes["seed"] == theirs.attributes["seed"]
        for camera in expected.conventions.camera_names:
            for step in range(theirs.num_steps):
                error = ours.image(camera, step).astype(int) - theirs.image(camera, step)
                assert abs(error).mean() <= tolerance, (index, camera, step)


@pytest.mark.parametrize(
    ("to", "images", "tolerance"),
    [
        ("native", "video", 0),
        ("robomimic", "video", 0),
        ("aloha", "video", 0),
        ("minari", "video", 0),
        ("lerobot-v2.1", "png", 0),
        ("lerobot-v2.1", "video", 6),
        ("lerobot-v3", "png", 0),
        ("lerobot-v3", "video", 6),
    ],
)
def test_there_and_back_gives_the_same_episodes(dataset, tmp_path, to, images, tolerance):
    there = convert(dataset, tmp_path / "there", to, images=images)
    assert_same(open_dataset(there), dataset, tolerance)
    back = convert(open_dataset(there), tmp_path / "back.hdf5", "native")
    # what is decoded and encoded again loses a little once more
    again = 0 if to in ("native", "minari") else 2
    assert_same(open_dataset(back), open_dataset(there), again)
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("to", ["native", "robomimic", "lerobot-v3"])
def test_times_are_kept_where_the_format_has_them(dataset, tmp_path, to):
    found = open_dataset(convert(dataset, tmp_path / "there", to, images=png_if_lerobot(to)))
    if to == "lerobot-v3":  # regular by definition
        np.testing.assert_allclose(found[2].times(), np.arange(8) / 10, atol=1e-6)
    else:
        np.testing.assert_array_equal(found[2].times(), dataset[2].times())


def png_if_lerobot(to):
    return "png" if to.startswith("lerobot") else "video"


def test_jpeg_bytes_pass_through_native_and_minari(dataset, tmp_path):
    for to in ("native", "minari"):
        found = open_dataset(convert(dataset, tmp_path / to, to, quality=10))
        for step in range(6):
            assert found[0].jpeg("front", step) == dataset[0].jpeg("front", step)


def test_frames_of_another_size_are_encoded_anew(dataset, tmp_path):
    small = EditedDataset(
        dataset, all_with(dataset, Edit()), with_size(dataset.conventions, 32, 32)
    )
    found = open_dataset(convert(small, tmp_path / "small.hdf5", "native"))
    assert found[0].image("front", 2).shape == (32, 32, 3)
    error = found[0].image("front", 2).astype(int) - small[0].image("front", 2)
    assert abs(error).max() < 8


def test_cameras_are_left_out_and_put_in_order(demos, tmp_path):
    dataset = open_dataset(demos)
    wrist = with_cameras(dataset.conventions, ["wrist"])
    edited = EditedDataset(dataset, all_with(dataset, Edit()), wrist)
    found = open_dataset(convert(edited, tmp_path / "wrist.hdf5", "native"))
    assert found.conventions.camera_names == ("wrist",)
    with h5py.File(tmp_path / "wrist.hdf5") as file:
        assert sorted(file["data/demo_0/obs"]) == ["state", "wrist_image"]


def test_align_pairs_an_observation_with_a_later_action(dataset, tmp_path):
    # lag 1 of 6 steps: observations 0..4 with actions 1..5
    edited = EditedDataset(dataset, all_with(dataset, Edit(align=1)), dataset.conventions)
    found = open_dataset(convert(edited, tmp_path / "a.hdf5", "native"))[0]
    assert found.num_steps == 5
    np.testing.assert_array_equal(found.actions(), dataset[0].actions()[1:])
    np.testing.assert_array_equal(found.state(), dataset[0].state()[:-1])
    np.testing.assert_array_equal(found.image("front", 4), dataset[0].image("front", 4))


@pytest.mark.parametrize("to", ["native", "robomimic", "aloha", "minari"])
def test_killed_anywhere_and_begun_again_gives_the_same(dataset, tmp_path, to):
    def start(target):
        # the folder's name is in the metadata of Minari, so both have one
        target.parent.mkdir(exist_ok=True)
        command = [sys.executable, "-c", CONVERT, tmp_path / "push.hdf5", target, to]
        return subprocess.Popen(command, stdout=subprocess.PIPE)

    (tmp_path / "whole").mkdir()
    convert(dataset, tmp_path / "whole" / "out", to)
    target = tmp_path / "killed" / "out"
    for place in (1, 2):
        process = start(target)
        for _ in range(place):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    if not target.exists():
        assert list((target.parent / "out.partial" / "parts").iterdir())
        assert finish(start(target)) == 0
    assert files_of(target) == files_of(tmp_path / "whole" / "out")
    assert [path.name for path in target.parent.iterdir()] == ["out"]


def finish(process):
    process.communicate()
    return process.returncode


def files_of(path):
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {str(file.relative_to(path.parent)): file.read_bytes() for file in files}


def test_robomimic_reads_what_we_write(dataset, tmp_path):
    reader = pytest.importorskip("robomimic.utils.dataset")
    observations = pytest.importorskip("robomimic.utils.obs_utils")
    convert(dataset, tmp_path / "robomimic.hdf5", "robomimic")
    modalities = {"obs": {"rgb": ["front_image"], "low_dim": ["state"]}}
    observations.initialize_obs_utils_with_obs_specs(modalities)
    sequences = reader.SequenceDataset(
        str(tmp_path / "robomimic.hdf5"),
        obs_keys=("front_image", "state"),
        dataset_keys=("actions", "rewards", "dones"),
        seq_length=2,
        hdf5_cache_mode=None,
        hdf5_use_swmr=False,
        load_next_obs=False,
    )
    assert len(sequences) == 6 + 7 + 8
    item = sequences[6 + 3]  # step 3 of the second episode
    np.testing.assert_array_equal(item["actions"], dataset[1].actions()[3:5])
    np.testing.assert_array_equal(item["obs"]["state"], dataset[1].state()[3:5])
    frame = np.asarray(item["obs"]["front_image"][0])
    np.testing.assert_array_equal(frame, dataset[1].image("front", 3))
    assert sequences[5]["rewards"][0] == sequences[5]["dones"][0] == 1
    sequences.close_and_delete_hdf5_handle()


def test_minari_reads_what_we_write(dataset, tmp_path):
    minari = pytest.importorskip("minari.dataset.minari_dataset")
    convert(dataset, tmp_path / "push-v0", "minari")
    found = minari.MinariDataset(tmp_path / "push-v0" / "data")
    assert (found.total_episodes, found.total_steps) == (3, 21)
    for index, episode in enumerate(found.iterate_episodes()):
        np.testing.assert_array_equal(episode.actions, dataset[index].actions())
        np.testing.assert_array_equal(episode.observations["state"][:-1], dataset[index].state())
        for step in range(dataset[index].num_steps):
            frame = episode.observations["front"][step]
            np.testing.assert_array_equal(frame, dataset[index].image("front", step))
        assert episode.terminations.tolist()[-1] == (index == 0)


def test_an_unwritable_dataset_is_refused_before_anything_is_made(dataset, tmp_path):
    with pytest.raises(UserError, match="did you mean 'robomimic'"):
        convert(dataset, tmp_path / "out", "robomimik")
    with pytest.raises(UserError, match="Leave it out, or write a LeRobot folder"):
        convert(dataset, tmp_path / "out", "native", images="png")
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="Choose another name"):
        convert(dataset, tmp_path / "out", "aloha")
    assert not list((tmp_path / "out").iterdir())
    shutil.copy(tmp_path / "push.hdf5", tmp_path / "bad.hdf5")
    with h5py.File(tmp_path / "bad.hdf5", "r+") as file:
        file["data/demo_1/actions"][2, 0] = np.nan
    with pytest.raises(UserError, match=r"demo_1 actions, step 2.*finite"):
        convert(open_dataset(tmp_path / "bad.hdf5"), tmp_path / "other", "native")
    assert not list(tmp_path.glob("other*"))


def test_the_file_says_what_it_was_made_of(dataset, tmp_path):
    source = tmp_path / "push.hdf5"
    convert(dataset, tmp_path / "a.hdf5", "native", sources=[source], settings={"align": 0})
    with h5py.File(tmp_path / "a.hdf5") as file:
        (made,) = json.loads(file.attrs["provenance"])
    assert made["sources"][0]["bytes"] == source.stat().st_size
    assert made["settings"]["fingerprint"] == dataset.fingerprint
    assert made["settings"]["align"] == 0
    convert(dataset, tmp_path / "lerobot", "lerobot-v3", images="png")
    (made,) = json.loads((tmp_path / "lerobot" / "provenance.json").read_text())
    assert made["settings"]["to"] == "lerobot-v3"
