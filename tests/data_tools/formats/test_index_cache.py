"""The laws of the index: what it gives equals what the files say, whatever happened to either."""

import json
import os
import pickle
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

import data_tools.formats.reading.index_cache as index_cache
from data_tools.formats.reader import open_dataset
from data_tools.formats.reading.records import EpisodeRecords, pack
from data_tools.formats.walks.file_walk import find_episodes
from data_tools.writer import EpisodeWriter
from tests.data_tools.fixtures import d4rl, droid, maniskill, native, robomimic


@pytest.fixture(autouse=True)
def cache_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(index_cache, "MIN_EPISODES", 1)
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path, conventions, make_episode):
    """Two files of two episodes, last changed a minute ago."""
    folder = tmp_path / "demos"
    folder.mkdir()
    for number in range(2):
        with EpisodeWriter(folder / f"part_{number}.hdf5", conventions) as writer:
            writer.add(**make_episode(2 * number, num_steps=5))
            writer.add(**make_episode(2 * number + 1, num_steps=7, success=None))
        settle(folder / f"part_{number}.hdf5")
    return folder


def settle(path: Path, seconds_ago: float = 60) -> None:
    then = time.time() - seconds_ago
    os.utime(path, (then, then))


def facts(dataset):
    """All that an opening learns, and numbers read by it."""
    episodes = [dataset[index] for index in range(len(dataset))]
    said = [(e.name, e.num_steps, e.instruction, e.is_success, e.attributes) for e in episodes]
    return said, dataset.conventions, dataset.inspected, dataset.fingerprint


@pytest.fixture
def scanned(monkeypatch):
    """The files whose headers are read."""
    paths = []

    def counted(file, path, *others):
        paths.append(path.name)
        return find_episodes(file, path, *others)

    monkeypatch.setattr("data_tools.formats.reading.hdf5_files.find_episodes", counted)
    return paths


def test_a_second_opening_reads_no_header_and_learns_the_same(folder, scanned):
    first = facts(open_dataset(folder))
    assert scanned == ["part_0.hdf5", "part_1.hdf5"]
    assert facts(open_dataset(folder)) == first
    assert len(scanned) == 2


def test_columns_come_out_of_the_index_as_they_went_in(folder, scanned):
    """Some with a row a step, and one number of each episode from the sidecar."""
    for number in range(2):
        path = folder / f"part_{number}.hdf5"
        with h5py.File(path, "r+") as file:
            file["data/demo_1/columns/weight"] = np.arange(7.0)
        sidecar = path.with_name(path.name + ".conventions.yaml")
        sidecar.write_text("layout: {columns: {share: {episodes: {demo_0: 1.5, demo_1: 2}}}}\n")
        settle(path)
        settle(sidecar)
    found = []
    for _ in range(2):
        dataset = open_dataset(folder)
        episodes = [dataset[index] for index in range(4)]
        named = [
            (each.columns, [each.column(n).tolist() for n in each.columns]) for each in episodes
        ]
        found.append((dataset.columns, named))
    assert len(scanned) == 2
    assert found[0] == found[1]
    assert found[0][0] == ("weight", "share")
    assert found[0][1][3] == (("weight", "share"), [[*map(float, range(7))], [2.0] * 7])


def test_a_column_in_another_file_is_what_that_file_says_now(folder):
    for number in range(2):
        path = folder / f"part_{number}.hdf5"
        sidecar = path.with_name(path.name + ".conventions.yaml")
        sidecar.write_text("layout: {columns: {weight: {file: scores.json, key: '{episode}'}}}\n")
        settle(sidecar)
    for score in (1.0, 2.0):
        (folder / "scores.json").write_text(json.dumps({"demo_0": score, "demo_1": score}))
        settle(folder / "scores.json", 60 * score)
        assert open_dataset(folder)[0].column("weight")[0] == score


def test_only_changed_and_new_files_are_read_again(folder, scanned, conventions, make_episode):
    open_dataset(folder)
    for number in (1, 2):
        (folder / f"part_{number}.hdf5").unlink(missing_ok=True)
        with EpisodeWriter(folder / f"part_{number}.hdf5", conventions) as writer:
            writer.add(**make_episode(9, num_steps=11))
        settle(folder / f"part_{number}.hdf5", seconds_ago=30)
    scanned.clear()
    dataset = open_dataset(folder)
    assert scanned == ["part_1.hdf5", "part_2.hdf5"]
    assert [dataset[index].num_steps for index in range(4)] == [5, 7, 11, 11]
    open_dataset(folder)
    assert len(scanned) == 2


@pytest.mark.parametrize("name", ["part_0.hdf5.conventions.yaml", "conventions.yaml"])
def test_a_new_sidecar_is_heeded(folder, scanned, conventions, name):
    open_dataset(folder)
    scanned.clear()
    declared = conventions.model_dump(mode="json")
    (folder / name).write_text(yaml.safe_dump(declared))
    dataset = open_dataset(folder)
    assert "part_0.hdf5" in scanned
    is_named = any(name in sentence for sentence in dataset.inspected.evidence)
    assert is_named == name.startswith("part_0")


def test_a_file_that_may_still_be_changing_is_not_kept(folder, scanned):
    settle(folder / "part_1.hdf5", seconds_ago=0)
    open_dataset(folder)
    scanned.clear()
    open_dataset(folder)
    assert scanned == ["part_1.hdf5"]


def test_a_damaged_index_is_read_anew(folder, scanned, cache_home):
    first = facts(open_dataset(folder))
    (index,) = cache_home.rglob("*.json")
    content = bytearray(index.read_bytes())
    place = content.index(b'"facts":[[5,') + len(b'"facts":[[')
    content[place] = ord("4")
    index.write_bytes(content)
    scanned.clear()
    assert facts(open_dataset(folder)) == first
    assert len(scanned) == 2
    index.write_bytes(index.read_bytes()[:100])
    assert facts(open_dataset(folder)) == first


def test_an_index_of_other_code_is_not_used(folder, scanned, monkeypatch):
    open_dataset(folder)
    scanned.clear()
    monkeypatch.setattr(index_cache, "_code_digest", lambda: "other")
    open_dataset(folder)
    assert len(scanned) == 2


def test_a_mask_and_a_layout_have_an_index_of_their_own(tmp_path, scanned):
    path = robomimic.write(tmp_path / "lift.hdf5", episodes=3)
    settle(path)
    everything = len(open_dataset(path, allow_undeclared=True))
    train = len(open_dataset(path, mask="train", allow_undeclared=True))
    again = len(open_dataset(path, mask="train", allow_undeclared=True))
    assert (everything, train, again) == (3, train, train)
    assert train < 3
    assert len(scanned) == 2
    for layout in ("mimicgen", "robomimic", "mimicgen"):
        dataset = open_dataset(path, layout=layout, allow_undeclared=True)
        assert dataset.inspected.layouts == (layout,)
    assert len(scanned) == 4


def test_without_a_folder_to_write_the_index_a_temporary_one_is_used(
    folder, scanned, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    open_dataset(folder)
    open_dataset(folder)
    assert len(scanned) == 2
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="Set XDG_CACHE_HOME to a folder you may write to"):
        open_dataset(folder)


def test_a_small_dataset_leaves_no_index(folder, cache_home, monkeypatch):
    monkeypatch.setattr(index_cache, "MIN_EPISODES", 5)
    open_dataset(folder)
    assert not cache_home.exists()


def test_what_lies_in_other_files_is_not_kept(tmp_path, scanned):
    """DROID's frames are videos beside the file: their time and size are not asked."""
    path = droid.write(tmp_path / "droid", episodes=1)
    for file in Path(path).rglob("*.h5"):
        settle(file)
    open_dataset(path, allow_undeclared=True)
    open_dataset(path, allow_undeclared=True)
    assert len(scanned) == 2


def test_only_the_newest_indices_are_kept(folder, cache_home, monkeypatch):
    monkeypatch.setattr(index_cache, "MAX_INDICES", 2)
    for name in ("*.hdf5", "part_*", "part_?.hdf5"):
        open_dataset(f"{folder}/{name}")
    assert len(list(cache_home.rglob("*"))) == 4  # two folders and two files


@pytest.mark.parametrize("layout", [d4rl, droid, maniskill, native, robomimic])
def test_packing_loses_nothing(tmp_path, layout, monkeypatch):
    walked = []
    monkeypatch.setattr(
        "data_tools.formats.reading.hdf5_files.pack",
        lambda path, found: walked.append((path, found)) or pack(path, found),
    )
    open_dataset(layout.write(tmp_path / "data.hdf5", episodes=3), allow_undeclared=True)
    originals = [record for _, found in walked for record in found]
    packed = EpisodeRecords([pack(path, found) for path, found in walked])
    assert len(packed) == len(originals) == 3
    for records in (packed, pickle.loads(pickle.dumps(packed))):
        for ours, original in zip(records, originals, strict=True):
            np.testing.assert_equal(vars(ours), vars(original))
    assert packed[-1].name == originals[-1].name
    with pytest.raises(IndexError, match="there are 3"):
        packed[3]
