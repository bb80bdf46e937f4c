"""What is known of data is known of these: in this process, in this folder, with these starts."""

import os
import time

import h5py
import numpy as np
import pytest

from data_tools.formats.keep_files import KeptDataset
from data_tools.formats.reader import open_dataset
from data_tools.formats.reading import index_cache
from data_tools.writer import EpisodeWriter


@pytest.fixture
def write(conventions, make_episode):
    """Writes a file of one episode, last changed at a given second."""

    def make(path, sentence="push the red block", at=None, num_episodes=1):
        path.parent.mkdir(exist_ok=True)
        with EpisodeWriter(path, conventions, overwrite=True) as writer:
            for _ in range(num_episodes):
                writer.add(**make_episode(0, num_steps=5, instruction=sentence))
        then = time.time() - 100 if at is None else at
        os.utime(path, (then, then))
        return path

    return make


@pytest.fixture
def indexed(tmp_path, monkeypatch):
    """Even the smallest dataset has an index."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(index_cache, "MIN_EPISODES", 1)


def test_the_same_words_in_another_folder_are_other_data(write, tmp_path, monkeypatch, indexed):
    """Two files of one relative name, one size and one time."""
    at = time.time() - 100
    sentences = {"here": "push the red block", "there": "lift the red block"}
    sizes = {
        write(tmp_path / folder / "demos.hdf5", sentence, at).stat().st_size
        for folder, sentence in sentences.items()
    }
    assert len(sizes) == 1
    for folder, sentence in (*sentences.items(), *sentences.items()):
        monkeypatch.chdir(tmp_path / folder)
        assert open_dataset("demos.hdf5")[0].instruction == sentence


def test_a_file_of_another_size_is_read_anew_though_its_time_is_the_same(write, tmp_path, indexed):
    at = time.time() - 100
    for num_episodes in (1, 3, 2):
        path = write(tmp_path / "demos.hdf5", at=at, num_episodes=num_episodes)
        assert len(open_dataset(path)) == num_episodes


def test_other_starts_are_other_training_data(demos):
    """As many starts at other steps: another fingerprint; the same starts: the same."""
    dataset = open_dataset(demos)

    def kept(first):
        starts = [np.arange(first, first + 4) for _ in range(len(dataset))]
        return KeptDataset(dataset, starts).fingerprint

    assert kept(0) == kept(0)
    assert len({kept(first) for first in range(5)} | {dataset.fingerprint}) == 6


def test_a_forked_process_opens_its_own_file(demos, monkeypatch):
    """HDF5 keeps a file's state in memory: two processes on one handle read each other's bytes."""
    opened = []
    make = h5py.File.__init__

    def watched(self, name, *arguments, **options):
        opened.append(str(name))
        make(self, name, *arguments, **options)

    dataset = open_dataset(demos)
    frame = dataset[0].image("front", 0)
    monkeypatch.setattr(h5py.File, "__init__", watched)
    np.testing.assert_array_equal(dataset[0].image("front", 0), frame)
    assert opened == []  # here it is open already
    child = os.fork()
    if child == 0:
        is_same = np.array_equal(dataset[0].image("front", 0), frame)
        os._exit(0 if is_same and opened == [str(demos)] else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    np.testing.assert_array_equal(
        dataset[0].image("front", 1), open_dataset(demos)[0].image("front", 1)
    )
