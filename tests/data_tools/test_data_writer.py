import os
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset
from data_tools.writer import EpisodeWriter

# Writes run_0.hdf5, run_1.hdf5, ... of three episodes each until it is killed; prints each start.
ENDLESS_RECORDER = """
import sys
from pathlib import Path
import numpy as np
from data_tools import Conventions, EpisodeWriter
folder = Path(sys.argv[1])
conventions = Conventions.model_validate_json((folder / "conventions.json").read_text())
for number in range(100_000):
    print(number, flush=True)
    with EpisodeWriter(folder / f"run_{number}.hdf5", conventions) as writer:
        for _ in range(3):
            writer.add(
                images={"front": np.zeros((20, 32, 48, 3), np.uint8),
                        "wrist": np.zeros((20, 24, 24, 3), np.uint8)},
                state=np.zeros((20, 3)), actions=np.zeros((20, 3)), instruction="wait",
            )
"""


def test_what_was_written_is_read_back_equal(tmp_path, conventions, make_episode):
    episode = make_episode(seed=3)
    with EpisodeWriter(tmp_path / "a.hdf5", conventions, source="a test") as writer:
        writer.add(**episode)
    (read,) = open_dataset(tmp_path / "a.hdf5")
    np.testing.assert_array_equal(read.state(), episode["state"])
    np.testing.assert_array_equal(read.actions(), episode["actions"])
    assert (read.instruction, read.is_success) == ("push the red block", True)
    assert read.attributes == {"source": "a test", "seed": 3}
    error = read.image("front", 7).astype(int) - episode["images"]["front"][7]
    assert abs(error).max() <= 4


def test_file_follows_the_robomimic_skeleton(demos):
    with h5py.File(demos) as file:
        assert file["data"].attrs["total"] == sum(range(20, 32))
        assert file["data"].attrs["schema_version"] == 1
        demo = file["data/demo_1"]
        assert (demo.attrs["num_samples"], demo.attrs["fps"]) == (21, 10.0)
        assert demo["actions"].dtype == demo["obs/state"].dtype == np.float32
        frames = demo["obs/front_image"]
        assert frames.chunks == (1, frames.shape[1])
        assert (frames.attrs["encoding"], frames.attrs["color_order"]) == ("jpeg", "rgb")


def test_success_that_nobody_judged_stays_unknown(tmp_path, conventions, make_episode):
    with EpisodeWriter(tmp_path / "a.hdf5", conventions) as writer:
        writer.add(**make_episode(success=None))
    assert open_dataset(tmp_path / "a.hdf5")[0].is_success is None


def test_a_red_block_stays_red_and_small(tmp_path, conventions, make_episode):
    episode = make_episode()
    frames = np.full((20, 32, 48, 3), 120, np.uint8)
    frames[:, 9:15, 9:15] = (255, 0, 0)
    episode["images"] = {"front": frames, "wrist": frames[:, :24, :24]}
    with EpisodeWriter(tmp_path / "a.hdf5", conventions) as writer:
        writer.add(**episode)
    frame = open_dataset(tmp_path / "a.hdf5")[0].image("front", 4).astype(int)
    # Inside the block and one pixel outside it: half-resolution chroma would smear them.
    assert abs(frame[10:14, 10:14] - (255, 0, 0)).max() < 25
    assert abs(frame[11, 16] - 120).max() < 25


def test_an_existing_file_is_not_overwritten_unless_asked(demos, conventions, make_episode):
    before = demos.read_bytes()
    with pytest.raises(UserError, match="overwrite=True"):
        EpisodeWriter(demos, conventions)
    assert demos.read_bytes() == before
    with EpisodeWriter(demos, conventions, overwrite=True) as writer:
        writer.add(**make_episode())
    assert len(open_dataset(demos)) == 1


def test_a_file_that_appeared_meanwhile_is_not_overwritten(tmp_path, conventions, make_episode):
    path = tmp_path / "a.hdf5"
    writer = EpisodeWriter(path, conventions).__enter__()
    writer.add(**make_episode())
    path.write_text("someone else's")
    with pytest.raises(UserError, match="overwrite=True"):
        writer.__exit__(None, None, None)
    assert path.read_text() == "someone else's"
    (partial,) = tmp_path.glob("*.partial")
    assert len(open_dataset(partial)) == 1


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, UserError("the robot stopped")])
def test_an_exception_leaves_the_episodes_before_it_and_names_their_file(
    tmp_path, conventions, make_episode, interruption
):
    def interrupted() -> None:
        with EpisodeWriter(tmp_path / "a.hdf5", conventions) as writer:
            writer.add(**make_episode(0))
            writer.add(**make_episode(1))
            raise interruption

    with pytest.raises((KeyboardInterrupt, UserError)) as caught:
        interrupted()
    (partial,) = tmp_path.iterdir()
    told = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())])
    assert f"{partial}: holds the 2 episodes" in told
    assert "Rename it to end in .hdf5 to use them" in told
    dataset = open_dataset(partial.rename(tmp_path / "saved.hdf5"))
    assert (len(dataset), dataset.inspected.warnings) == (2, ())
    np.testing.assert_array_equal(dataset[1].actions(), make_episode(1)["actions"])


def test_an_episode_is_on_the_disk_when_it_has_been_added(tmp_path, conventions, make_episode):
    """A copy of the partial file, as a crash would leave it, can be read at any moment."""
    with EpisodeWriter(tmp_path / "a.hdf5", conventions) as writer:
        for seed in range(3):
            writer.add(**make_episode(seed))
            (partial,) = tmp_path.glob("*.partial")
            copy = tmp_path / "copy.hdf5"
            copy.write_bytes(partial.read_bytes())
            assert len(open_dataset(copy)) == seed + 1


def test_an_exception_before_any_episode_leaves_no_file(tmp_path, conventions):
    with (
        pytest.raises(KeyboardInterrupt),
        EpisodeWriter(tmp_path / "a.hdf5", conventions),
    ):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_at_the_end_is_told_and_leaves_no_file(
    tmp_path, conventions, make_episode, monkeypatch
):
    def full_disk(file: h5py.File) -> None:
        close(file)
        raise RuntimeError("no space left on device")

    close = h5py.File.close
    writer = EpisodeWriter(tmp_path / "a.hdf5", conventions).__enter__()
    writer.add(**make_episode(0))
    monkeypatch.setattr(h5py.File, "close", full_disk)
    with pytest.raises(UserError, match=r"no space left.*Free space on that disk"):
        writer.__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == []


def test_no_episodes_make_no_file(tmp_path, conventions):
    with (
        pytest.raises(UserError, match=r"Call add\(\) before"),
        EpisodeWriter(tmp_path / "a.hdf5", conventions),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_half_written_episode_forbids_finishing(tmp_path, conventions, make_episode, monkeypatch):
    def full_disk(*_: object) -> None:
        raise OSError("no space left on device")

    writer = EpisodeWriter(tmp_path / "a.hdf5", conventions).__enter__()
    writer.add(**make_episode(0))
    monkeypatch.setattr("data_tools.writer.encode_frames", full_disk)
    with pytest.raises(UserError, match=r"no space.*Free space on that disk"):
        writer.add(**make_episode(1))
    with pytest.raises(UserError, match="whole episodes"):
        writer.__exit__(None, None, None)
    (partial,) = tmp_path.iterdir()
    assert len(open_dataset(partial)) == 1


def test_a_closed_writer_says_how_to_open_it(tmp_path, conventions, make_episode):
    with pytest.raises(UserError, match="Open it with `with`"):
        EpisodeWriter(tmp_path / "a.hdf5", conventions).add(**make_episode())


def test_a_folder_that_cannot_be_made_is_named(tmp_path, conventions):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="folder that can be written"):
        EpisodeWriter(tmp_path / "file" / "a.hdf5", conventions).__enter__()


def test_a_camera_that_is_not_rgb_upright_is_refused_with_the_quality(tmp_path, conventions):
    camera = conventions.cameras[0].model_copy(update={"color_order": "bgr"})
    wrong = conventions.model_copy(update={"cameras": (camera,)})
    with pytest.raises(UserError, match="RGB and upright before writing") as caught:
        EpisodeWriter(tmp_path / "a.hdf5", wrong, jpeg_quality=0)
    assert len(caught.value.faults) == 2
    assert "95 is a good value" in caught.value.faults[1]


def _with_nan(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array[7, 1] = np.nan
    return array


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"actions": np.zeros((20, 2))}, "correct the declared columns"),
        ({"actions": np.zeros((0, 3))}, "with t at least 1"),
        ({"actions": np.zeros(20)}, "one row a step"),
        ({"actions": np.array([["a", "b", "c"]] * 20)}, "Give an array of numbers"),
        ({"state": [[1.0, 2.0, 3.0], [1.0]]}, "rows of one length"),
        ({"actions": np.full((20, 3), 1e300)}, "column 'dx': found inf"),
        ({"state": np.zeros((19, 3))}, "one state, action and frame for each step"),
        ({"instruction": "  "}, "Say what the robot was asked to do"),
        ({"instruction": 3}, "Say what the robot was asked to do"),
        ({"success": 1}, "Leave it None"),
        ({"attributes": {"pose": np.zeros(3)}}, "Turn arrays into lists"),
        ({"attributes": {"score": float("nan")}}, "Turn arrays into lists"),
    ],
)
def test_a_wrong_argument_is_told_with_its_remedy(
    tmp_path, conventions, make_episode, change, words
):
    with EpisodeWriter(tmp_path / "a.hdf5", conventions) as writer:
        with pytest.raises(UserError, match=words.replace("(", r"\(")):
            writer.add(**make_episode(**change))
        writer.add(**make_episode())
    assert len(open_dataset(tmp_path / "a.hdf5")) == 1


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ({"front": np.zeros((20, 32, 48, 3), np.uint8)}, "camera 'wrist'. Give its frames too"),
        ({"frnt": np.zeros((20, 32, 48, 3), np.uint8)}, "did you mean 'front'"),
        ({"front": np.zeros((20, 32, 48, 3))}, "Resize or convert the frames"),
        ({"front": np.zeros((20, 48, 32, 3), np.uint8)}, r"expected uint8\[t, 32, 48, 3\]"),
        ({"front": [[1]]}, "found list; expected uint8"),
    ],
)
def test_wrong_images_are_told_with_their_remedy(
    tmp_path, conventions, make_episode, images, words
):
    with (
        pytest.raises(UserError, match=words),
        EpisodeWriter(tmp_path / "a.hdf5", conventions) as writer,
    ):
        writer.add(**make_episode(images=images))


def test_nan_is_refused_with_episode_step_and_column(tmp_path, conventions, make_episode):
    with EpisodeWriter(tmp_path / "a.hdf5", conventions) as writer:
        writer.add(**make_episode(0))
        wrong = make_episode(1, actions=_with_nan(make_episode(1)["actions"]))
        with pytest.raises(UserError, match="demo_1 actions, step 7, column 'dy': found nan"):
            writer.add(**wrong)


def test_all_faults_of_an_episode_are_told_at_once(tmp_path, conventions, make_episode):
    wrong = make_episode(instruction="", success="yes", state=np.zeros((5, 3)), images={})
    with EpisodeWriter(tmp_path / "a.hdf5", conventions) as writer:
        writer.add(**make_episode())
        with pytest.raises(UserError) as caught:
            writer.add(**wrong)
    assert len(caught.value.faults) == 5


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_writer_leaves_only_whole_files(tmp_path, conventions, seed):
    (tmp_path / "conventions.json").write_text(conventions.model_dump_json())
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS_RECORDER, str(tmp_path)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
        time.sleep(0.02 + 0.2 * float(np.random.default_rng(seed).random()))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        begun = [0, *map(int, process.stdout.read().split())]
    finished = sorted(tmp_path.glob("*.hdf5"))
    assert len(finished) in (len(begun) - 1, len(begun))
    for path in finished:
        assert len(open_dataset(path)) == 3
    partial = list(tmp_path.glob("*.partial"))
    assert len(partial) <= 1
    if partial and len(finished) < len(begun):
        with pytest.raises(UserError, match="interrupted recording"):
            open_dataset(tmp_path / f"run_{begun[-1]}.hdf5")
