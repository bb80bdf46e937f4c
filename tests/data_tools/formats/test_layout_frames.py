"""Every way frames are stored gives the same pixels; what is no frame is told."""

import os

import h5py
import numpy as np
import pytest
import yaml

from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset
from data_tools.formats.reading.hdf5_store import MAX_OPEN_VIDEOS
from data_tools.storage.frames.videos import MAX_FORWARD_FRAMES, UndecodableVideoError, VideoFrames
from tests.data_tools.fixtures import droid, robomimic, robomind
from tests.data_tools.fixtures.contents import encoded, padded, scene, scenes, write_video

STEPS = 6


def variable(images):
    rows = np.empty(len(images), dtype=object)
    for place, image in enumerate(images):
        rows[place] = np.frombuffer(image, np.uint8)
    return {"data": rows, "dtype": h5py.vlen_dtype(np.uint8)}


def jpeg():
    return [encoded(frame) for frame in scenes(STEPS)]


def png():
    return [encoded(frame, "PNG") for frame in scenes(STEPS)]


STORED = {
    "pixels": lambda: {"data": scenes(STEPS)},
    "pixels_gzip": lambda: {"data": scenes(STEPS), "compression": "gzip"},
    "alpha": lambda: {"data": np.concatenate([scenes(STEPS), scenes(STEPS)[..., :1]], axis=3)},
    "channels_first": lambda: {"data": scenes(STEPS).transpose(0, 3, 1, 2)},
    "png_rows": lambda: {"data": padded(png())},
    "png_rows_a_chunk": lambda: {"data": padded(png()), "chunks": (1, padded(png()).shape[1])},
    "png_variable": lambda: variable(png()),
    "jpeg_rows": lambda: {"data": padded(jpeg())},
    "jpeg_variable": lambda: variable(jpeg()),
    "jpeg_strings": lambda: {"data": np.array(jpeg(), dtype=f"S{max(map(len, jpeg()))}")},
}


def store(path, **stored):
    with h5py.File(path, "r+") as file:
        for number in range(2):
            observations = file[f"data/demo_{number}/obs"]
            del observations["agentview_image"]
            observations.create_dataset("agentview_image", **stored)


@pytest.fixture
def lift(tmp_path):
    path = robomimic.write(tmp_path / "lift.hdf5")
    text = yaml.safe_dump({"layout": {"preset": "robomimic", "instruction": {"text": "lift it"}}})
    path.with_name("conventions.yaml").write_text(text)
    return path


@pytest.mark.parametrize("kind", STORED)
def test_frames_are_the_same_however_they_are_stored(lift, kind):
    store(lift, **STORED[kind]())
    episode = open_dataset(lift)[1]
    for step in (3, 0, 5):
        off = np.abs(episode.image("agentview", step).astype(int) - scene(step)).mean()
        assert off <= (3 if "jpeg" in kind else 0)
    encoding = episode.stored_frames("agentview").encoding
    assert encoding == ("jpeg" if "jpeg" in kind else "png" if "png" in kind else "raw")
    data = episode.jpeg("agentview", 2)
    assert data == (jpeg()[2] if "jpeg" in kind else None)


def test_one_channel_is_repeated(lift):
    store(lift, data=scenes(STEPS)[..., :1])
    frame = open_dataset(lift)[0].image("agentview", 4)
    np.testing.assert_array_equal(frame, np.repeat(scene(4)[:, :, :1], 3, axis=2))


def test_pixels_in_the_place_of_jpeg_are_told_by_their_number(tmp_path):
    path = robomind.write(tmp_path / "robomind", episodes=1)
    (file,) = path.rglob("*.hdf5")
    pixels = [scene(step, height=480, width=640).tobytes() for step in range(STEPS)]
    with h5py.File(file, "r+") as opened:
        del opened["observations/rgb_images/camera_top"]
        opened["observations/rgb_images"].create_dataset("camera_top", **variable(pixels))
    episode = open_dataset(path, allow_undeclared=True)[0]
    expected = scene(2, height=480, width=640)
    np.testing.assert_array_equal(episode.image("camera_top", 2), expected)


def test_a_camera_whose_first_frame_is_no_image_is_warned_of(lift):
    rows = padded(jpeg())
    rows[0] = 7
    store(lift, data=rows)
    dataset = open_dataset(lift)
    assert dataset.conventions.camera_names == ("robot0_eye_in_hand",)
    (warning,) = dataset.inspected.warnings
    assert warning.rule == "unreadable_camera"
    assert "name the cameras in a sidecar's layout.images" in str(warning)


def test_a_frame_larger_than_any_camera_is_no_frame(lift):
    store(lift, shape=(STEPS, 1 << 20, 1 << 20, 3), dtype="u1", chunks=(1, 64, 64, 3))
    assert "agentview" not in open_dataset(lift).conventions.camera_names


def test_frames_of_a_video_are_found_by_number_in_any_order(tmp_path):
    steps = MAX_FORWARD_FRAMES + 20
    frames = np.stack([scene(step % 12) for step in range(steps)])
    write_video(tmp_path / "a.mp4", frames)
    video = VideoFrames(tmp_path / "a.mp4")
    assert (len(video), video.stated_length, video.size) == (steps, steps, (24, 32))
    order = [0, 1, 2, steps - 1, 5, 6, 9, 0, steps - 2, 30]
    for number in order:
        off = np.abs(video.frame(number).astype(int) - frames[number]).mean()
        assert off < 3, number
    with pytest.raises(UndecodableVideoError, match=f"no frame {steps}: the video has {steps}"):
        video.frame(steps)
    video.close()


def test_a_video_that_is_cut_short_or_gone_is_told(tmp_path):
    path = droid.write(tmp_path / "droid", episodes=1)
    (video, *_) = sorted(path.rglob("*.mp4"))
    os.truncate(video, 200)
    with pytest.raises(
        UserError, match=r"wrist: found a video that cannot be opened.*Record it again"
    ):
        open_dataset(path)
    video.unlink()
    dataset = open_dataset(path)
    assert dataset.conventions.camera_names == ("exterior_1", "exterior_2")


def test_open_videos_stay_bounded(tmp_path):
    path = droid.write(tmp_path / "droid", episodes=7)
    dataset = open_dataset(path)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        for episode in dataset:
            for camera in dataset.conventions.camera_names:
                episode.image(camera, 3)
    assert len(os.listdir("/proc/self/fd")) - before <= MAX_OPEN_VIDEOS
