import multiprocessing
import os
import pickle
from itertools import pairwise

import h5py
import numpy as np
import pytest
import simplejpeg

from data_tools.episode import Dataset, Episode
from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset
from data_tools.storage.files.cache import LruCache
from data_tools.storage.hdf5.opening import MAX_OPEN_FILES, open_hdf5
from data_tools.writer import EpisodeWriter


def test_episodes_come_in_natural_order(demos):
    dataset = open_dataset(demos)
    assert [dataset[i].num_steps for i in range(12)] == list(range(20, 32))
    assert dataset[10].name == f"{demos}:data/demo_10"


def test_the_dataset_speaks_the_protocols(demos):
    dataset: Dataset = open_dataset(demos)
    episode: Episode = dataset[2]
    observation = episode.observation(5, ["wrist"])
    assert list(observation.images) == ["wrist"]
    assert observation.images["wrist"].shape == (24, 24, 3)
    np.testing.assert_array_equal(observation.state, episode.state()[5])
    with pytest.raises(IndexError):
        dataset[12]


def test_cached_numbers_cannot_be_changed_by_a_reader(demos):
    state = open_dataset(demos)[0].state()
    with pytest.raises(ValueError, match="read-only"):
        state[0, 0] = 1.0


def test_a_folder_a_glob_and_a_list_give_the_same_episodes(tmp_path, conventions, make_episode):
    paths = [tmp_path / f"part_{number}.hdf5" for number in (1, 2, 10)]
    for seed, path in enumerate(paths):
        with EpisodeWriter(path, conventions) as writer:
            writer.add(**make_episode(seed))
    ways = [open_dataset(tmp_path), open_dataset(f"{tmp_path}/part_*.hdf5"), open_dataset(paths)]
    assert {way.fingerprint for way in ways} == {ways[0].fingerprint}
    assert [episode.attributes["seed"] for episode in ways[0]] == [0, 1, 2]


def test_a_step_or_camera_that_is_not_there_is_named(demos):
    episode = open_dataset(demos)[0]
    with pytest.raises(IndexError, match="steps 0 to 19"):
        episode.image("front", 20)
    with pytest.raises(IndexError, match="step -1"):
        episode.image("front", -1)
    with pytest.raises(KeyError, match="declared cameras are"):
        episode.image("frnt", 0)


def test_fingerprint_changes_with_numbers_and_words_and_nothing_else(
    tmp_path, conventions, make_episode
):
    def fingerprint_of(name: str, **changes: object) -> str:
        with EpisodeWriter(tmp_path / f"{name}.hdf5", conventions, source=name) as writer:
            writer.add(**make_episode(0, **changes))
            writer.add(**make_episode(1))
        return open_dataset(tmp_path / f"{name}.hdf5").fingerprint

    original = fingerprint_of("original")
    assert fingerprint_of("same", attributes={"other": 1}) == original
    assert fingerprint_of("words", instruction="push the blue block") != original
    actions = make_episode(0)["actions"].copy()
    actions[3, 2] = np.nextafter(actions[3, 2], np.float32(1))
    assert fingerprint_of("numbers", actions=actions) != original


def test_fingerprint_tells_where_one_episode_ends(tmp_path, conventions, make_episode):
    fingerprints = set()
    for lengths in ((20, 40), (40, 20), (30, 30)):
        path = tmp_path / f"{lengths}.hdf5"
        with EpisodeWriter(path, conventions) as writer:
            for length in lengths:
                zeros = np.zeros((length, 3))
                writer.add(**make_episode(num_steps=length, state=zeros, actions=zeros))
        fingerprints.add(open_dataset(path).fingerprint)
    assert len(fingerprints) == 3


def test_pickling_keeps_the_episodes_and_drops_the_open_files(demos):
    dataset = open_dataset(demos)
    closed = len(pickle.dumps(dataset))
    dataset[0].image("front", 0)
    dataset[0].state()
    again = pickle.loads(pickle.dumps(dataset))
    assert len(pickle.dumps(dataset)) == closed
    np.testing.assert_array_equal(again[3].state(), dataset[3].state())
    np.testing.assert_array_equal(again[3].image("wrist", 9), dataset[3].image("wrist", 9))


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_two_processes_read_what_one_process_reads(demos, method):
    dataset = open_dataset(demos)
    episode = dataset[4]
    expected = [episode.image("front", step) for step in range(16)]
    with multiprocessing.get_context(method).Pool(2) as pool:
        read = pool.starmap(episode.image, [("front", step) for step in range(16)], chunksize=1)
    np.testing.assert_array_equal(read, expected)
    np.testing.assert_array_equal(episode.image("front", 3), expected[3])


def test_open_files_stay_bounded(tmp_path, conventions, make_episode):
    paths = [tmp_path / f"part_{number}.hdf5" for number in range(MAX_OPEN_FILES + 10)]
    for seed, path in enumerate(paths):
        with EpisodeWriter(path, conventions) as writer:
            writer.add(**make_episode(seed, num_steps=2))
    dataset = open_dataset(paths)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        for episode in dataset:
            episode.image("front", 1)
    assert len(os.listdir("/proc/self/fd")) - before == MAX_OPEN_FILES


def test_files_open_with_a_chunk_cache_of_a_mebibyte_and_not_of_eight(demos):
    with open_hdf5(demos) as file:
        assert file.id.get_access_plist().get_cache()[2] == 1 << 20


def test_cached_arrays_stay_within_their_bytes():
    evicted: list[int] = []
    cache: LruCache[bytes] = LruCache(100, weigh=len, on_evict=lambda v: evicted.append(len(v)))
    for size in (40, 41, 42):
        assert len(cache.get_or_make(size, lambda size=size: bytes(size))) == size
    assert (len(cache), evicted) == (2, [40])
    cache.get_or_make(41, lambda: pytest.fail("41 was used last but one and must be here"))
    cache.get_or_make(1000, lambda: bytes(1000))
    assert (len(cache), evicted) == (1, [40, 42, 41])


def test_frames_of_random_access_are_the_frames_of_sequential_access(demos):
    episode = open_dataset(demos)[0]
    in_order = [episode.image("front", step) for step in range(20)]
    for step in np.random.default_rng(0).permutation(20).tolist():
        np.testing.assert_array_equal(episode.image("front", step), in_order[step])
    assert all((a != b).any() for a, b in pairwise(in_order))


@pytest.mark.parametrize(
    "storage",
    [{}, {"chunks": (7, 90)}, {"chunks": True, "compression": "gzip"}, {"chunks": "frame"}],
)
def test_frames_are_the_same_however_their_rows_are_stored(demos, storage):
    expected = [open_dataset(demos)[2].image("front", step) for step in (0, 11, 21)]
    with h5py.File(demos, "r+") as file:
        observations = file["data/demo_2/obs"]
        rows = observations["front_image"][()]
        del observations["front_image"]
        if storage.get("chunks") == "frame":
            storage = {"chunks": (1, rows.shape[1]), "compression": "gzip"}
        observations.create_dataset("front_image", data=rows, **storage)
    episode = open_dataset(demos)[2]
    for step, frame in zip((0, 11, 21), expected, strict=True):
        np.testing.assert_array_equal(episode.image("front", step), frame)


def test_a_damaged_frame_is_named(demos):
    with h5py.File(demos, "r+") as file:
        file["data/demo_2/obs/front_image"][5] = 0
        frames = file["data/demo_2/obs/wrist_image"]
        frames[6, 100:] = 0
    episode = open_dataset(demos)[2]
    with pytest.raises(UserError, match=r"demo_2/obs/front_image, step 5: .*not a JPEG"):
        episode.image("front", 5)
    with pytest.raises(UserError, match="broken JPEG"):
        episode.image("wrist", 6)


def test_a_frame_that_was_never_written_is_named(demos):
    with h5py.File(demos, "r+") as file:
        del file["data/demo_2/obs/front_image"]
        frames = file["data/demo_2/obs"].create_dataset(
            "front_image", shape=(22, 500), dtype="u1", chunks=(1, 500)
        )
        frames[0] = 1
    with pytest.raises(UserError, match=r"step 21: found no stored bytes.*Leave the episode out"):
        open_dataset(demos)[2].image("front", 21)


def test_a_frame_of_another_size_than_declared_is_named(demos):
    small = simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8))
    with h5py.File(demos, "r+") as file:
        row = np.zeros(file["data/demo_0/obs/front_image"].shape[1], np.uint8)
        row[: len(small)] = np.frombuffer(small, np.uint8)
        file["data/demo_0/obs/front_image"][0] = row
    with pytest.raises(UserError, match=r"\[8, 8, 3\].*resize the frames"):
        open_dataset(demos)[0].image("front", 0)


def test_two_files_with_different_conventions_are_refused(tmp_path, conventions, make_episode):
    faster = conventions.model_copy(update={"control_hz": 20.0})
    renamed = conventions.cameras[1].model_copy(update={"source": "another lens"})
    other = conventions.model_copy(update={"cameras": (conventions.cameras[0], renamed)})
    for name, declared in {"a": conventions, "b": faster, "c": other}.items():
        with EpisodeWriter(tmp_path / f"{name}.hdf5", declared) as writer:
            writer.add(**make_episode())
    with pytest.raises(
        UserError, match=r"control_hz: found 20.0; expected 10.0 as .*a.hdf5"
    ) as caught:
        open_dataset(tmp_path)
    assert any("another lens" in fault for fault in caught.value.faults)


def test_camera_sizes_that_differ_are_told_of_every_file(tmp_path, conventions, make_episode):
    small = conventions.cameras[1].model_copy(update={"height": 12, "width": 12})
    smaller = conventions.model_copy(update={"cameras": (conventions.cameras[0], small)})
    declared = {
        "a": conventions,
        "b": conventions.model_copy(update={"control_hz": 20.0}),
        "c": smaller,
        "d": smaller.model_copy(update={"control_hz": 20.0}),
    }
    for name, each in declared.items():
        episode = make_episode()
        episode["images"]["wrist"] = episode["images"]["wrist"][:, : each.camera("wrist").height]
        episode["images"]["wrist"] = episode["images"]["wrist"][:, :, : each.camera("wrist").width]
        with EpisodeWriter(tmp_path / f"{name}.hdf5", each) as writer:
            writer.add(**episode)
    with pytest.raises(UserError) as caught:
        open_dataset(tmp_path)
    told = [fault.split(":")[0].removeprefix(str(tmp_path)) for fault in caught.value.faults]
    assert told == [
        "/b.hdf5, control_hz",
        "/c.hdf5, cameras",
        "/d.hdf5, cameras",
        "/d.hdf5, control_hz",
    ]
    assert "resize the frames" in caught.value.faults[1]


def test_a_file_given_under_two_names_is_refused(demos, monkeypatch):
    monkeypatch.chdir(demos.parent)
    with pytest.raises(UserError, match="Give each file once"):
        open_dataset([demos, demos.name])
