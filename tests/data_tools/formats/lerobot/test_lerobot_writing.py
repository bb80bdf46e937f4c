import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_tools.conventions import CameraSpec
from data_tools.errors import UserError
from data_tools.formats.lerobot import LeRobotOptions, open_lerobot, write_lerobot
from data_tools.formats.lerobot.statistics import (
    channel_counts,
    image_statistics,
    vector_statistics,
)
from data_tools.formats.reader import open_dataset
from data_tools.writer import EpisodeWriter

FRONT = "observation.images.front"


@pytest.fixture
def source(tmp_path, conventions, make_episode):
    """Native episodes of two cameras, 64 x 64 and 96 x 64."""
    cameras = (
        CameraSpec(name="front", height=64, width=96),
        CameraSpec(name="wrist", height=64, width=64),
    )
    conventions = conventions.model_copy(update={"cameras": cameras})
    path = tmp_path / "source.hdf5"
    with EpisodeWriter(path, conventions) as writer:
        for seed, length in enumerate((6, 9, 4)):
            ramp = np.linspace(30, 220, 96)[None, None, :, None] + np.zeros((length, 64, 1, 3))
            ramp[..., 1] = (20 + 20 * np.arange(length))[:, None, None]
            ramp[..., 2] = 70 * seed
            frames = ramp.astype(np.uint8)
            writer.add(
                **make_episode(
                    seed,
                    length,
                    images={"front": frames, "wrist": frames[:, :, :64]},
                    instruction=f"push block {seed % 2}",
                    success=[True, False, None][seed],
                )
            )
    return open_dataset(path)


def all_of(dataset):
    return (dataset[i] for i in range(len(dataset)))


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_png_keeps_every_pixel_number_and_declaration(tmp_path, source, version):
    options = LeRobotOptions(version=version, images="png")
    written = write_lerobot(tmp_path / "pick", source.conventions, all_of(source), options)
    back = open_lerobot(written)
    assert back.fingerprint == source.fingerprint
    for theirs, ours in zip(all_of(source), all_of(back), strict=True):
        assert ours.is_success == theirs.is_success
        assert ours.attributes == theirs.attributes
        for camera in ("front", "wrist"):
            for step in range(ours.num_steps):
                np.testing.assert_array_equal(ours.image(camera, step), theirs.image(camera, step))


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize("codec", ["av1", "h264", "hevc"])
def test_video_keeps_each_frame_at_its_step(tmp_path, source, version, codec):
    options = LeRobotOptions(version=version, codec=codec)
    back = open_lerobot(
        write_lerobot(tmp_path / "pick", source.conventions, all_of(source), options)
    )
    for index in range(3):
        for step in reversed(range(back[index].num_steps)):
            for camera in ("front", "wrist"):
                true = source[index].image(camera, step).astype(int)
                # the next frame is 20 away in green, the next episode 70 in blue
                assert np.abs(back[index].image(camera, step) - true).mean() < 4


def test_v3_begins_new_files_at_its_limits(tmp_path, source, monkeypatch):
    monkeypatch.setattr("data_tools.formats.lerobot.folder_writer.MIB", 200)
    options = LeRobotOptions(
        chunks_size=2, data_files_size_in_mb=1, video_files_size_in_mb=1, codec="h264"
    )
    folder = write_lerobot(tmp_path / "pick", source.conventions, all_of(source), options)
    names = sorted(str(path.relative_to(folder)) for path in (folder / "data").rglob("*.parquet"))
    assert names == [
        "data/chunk-000/file-000.parquet",
        "data/chunk-000/file-001.parquet",
        "data/chunk-001/file-000.parquet",
    ]
    assert open_lerobot(folder).fingerprint == source.fingerprint
    assert open_lerobot(folder)[2].image("front", 3).shape == (64, 96, 3)


def test_statistics_are_exact_over_every_frame(tmp_path, source):
    options = LeRobotOptions(images="png")
    folder = write_lerobot(tmp_path / "pick", source.conventions, all_of(source), options)
    stats = json.loads((folder / "meta/stats.json").read_text())
    states = np.concatenate([episode.state() for episode in all_of(source)]).astype(np.float64)
    pixels = np.concatenate(
        [
            episode.image("front", step).reshape(-1, 3) / 255
            for episode in all_of(source)
            for step in range(episode.num_steps)
        ]
    )
    for name, values in (("observation.state", states), (FRONT, pixels)):
        found = {key: np.ravel(value) for key, value in stats[name].items()}
        np.testing.assert_allclose(found["mean"], values.mean(0))
        np.testing.assert_allclose(found["std"], values.std(0), atol=1e-12)
        np.testing.assert_allclose(found["q10"], np.quantile(values, 0.1, axis=0), atol=1e-12)
        np.testing.assert_allclose(found["max"], values.max(0))
        assert found["count"].tolist() == [19]
    assert np.shape(stats[FRONT]["mean"]) == (3, 1, 1)
    assert stats["index"]["max"] == [18.0]


def test_quantiles_of_pixels_are_numpys():
    frame = np.random.default_rng(3).integers(0, 256, size=(5, 7, 3)).astype(np.uint8)
    found = image_statistics(channel_counts(frame), 1)
    for name, at in (("q01", 0.01), ("q50", 0.5), ("q99", 0.99)):
        expected = np.quantile(frame.reshape(-1, 3) / 255, at, axis=0)
        np.testing.assert_allclose(np.ravel(found[name]), expected)
    vectors = vector_statistics([frame.reshape(-1, 3)])
    assert vectors["min"] == frame.reshape(-1, 3).min(0).tolist()


def test_images_lie_in_small_row_groups(tmp_path, source, monkeypatch):
    monkeypatch.setattr("data_tools.formats.lerobot.folder_writer.ROW_GROUP_BYTES", 1000)
    options = LeRobotOptions(images="png")
    folder = write_lerobot(tmp_path / "pick", source.conventions, all_of(source), options)
    file = pq.ParquetFile(folder / "data/chunk-000/file-000.parquet")
    assert file.num_row_groups > 3
    assert open_lerobot(folder).fingerprint == source.fingerprint


def breaking(dataset):
    yield dataset[0]
    raise KeyboardInterrupt("Ctrl-C")


@pytest.mark.parametrize("images", ["png", "video"])
def test_an_interrupted_writing_leaves_nothing(tmp_path, source, images):
    target = tmp_path / "out" / "pick"
    with pytest.raises(KeyboardInterrupt):
        write_lerobot(target, source.conventions, breaking(source), LeRobotOptions(images=images))
    assert list(target.parent.iterdir()) == []


def test_what_cannot_be_written_is_told_before_anything_is(tmp_path, source, conventions):
    with pytest.raises(UserError, match="Set images to 'png'"):
        write_lerobot(tmp_path / "pick", conventions, all_of(source))  # 48 x 32 and 24 x 24
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError, match="Choose another name"):
        write_lerobot(tmp_path / "taken", source.conventions, all_of(source))
    with pytest.raises(UserError, match="Give at least one"):
        write_lerobot(tmp_path / "pick", source.conventions, [])
    assert not (tmp_path / "pick").exists()


def test_one_column_is_written_as_lerobot_does_and_read_back(tmp_path, source):
    state = source.conventions.state.model_copy(update={"names": ("x",), "units": ("m",)})
    narrow = source.conventions.model_copy(update={"state": state})

    class Narrow:
        def __init__(self, episode):
            self._episode = episode

        def __getattr__(self, name):
            return getattr(self._episode, name)

        def state(self):
            return self._episode.state()[:, :1]

    options = LeRobotOptions(images="png")
    episodes = [Narrow(episode) for episode in all_of(source)]
    back = open_lerobot(write_lerobot(tmp_path / "pick", narrow, episodes, options))
    np.testing.assert_array_equal(back[1].state(), source[1].state()[:, :1])
