"""Readers and writers of one file at the same time: what docs/robot-data.md says of them."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset
from data_tools.writer import EpisodeWriter

HOLD = """
import h5py, sys
with h5py.File(sys.argv[1], sys.argv[2], locking=True) as file:
    file.require_group("data")
    file.flush()
    print("open", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def hold() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a process that holds a file open for writing until the test ends or closes it."""
    held: list[subprocess.Popen[str]] = []

    def start(path: Path, mode: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", HOLD, str(path), mode]
        pipe = subprocess.PIPE
        process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        held.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        return process

    yield start
    for process in held:
        if process.poll() is None:
            process.communicate("\n", timeout=20)
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()


def test_a_file_that_a_recorder_is_still_making_is_refused_until_it_is_done(tmp_path, demos, hold):
    path = tmp_path / "recording.hdf5"
    recorder = hold(path, "w")
    with pytest.raises(UserError, match=r"recording.hdf5.*Wait until the process that writes it"):
        open_dataset(path)
    recorder.communicate("\n", timeout=20)
    with pytest.raises(UserError, match="found no conventions"):
        open_dataset(path)  # not locked any more: the file itself is looked at


def test_a_folder_with_one_file_that_is_being_written_names_that_file(tmp_path, demos, hold):
    other = tmp_path / "second.hdf5"
    other.write_bytes(demos.read_bytes())
    hold(other, "r+")
    with pytest.raises(UserError, match=r"second.hdf5: found a file locked by another process"):
        open_dataset(tmp_path)
    assert len(open_dataset(demos)) == 12


def test_several_readers_share_a_file(demos):
    read = "import sys; from data_tools.formats.reader import open_dataset\n"
    read += "print(open_dataset(sys.argv[1])[1].image('front', 3).sum())"
    frame = open_dataset(demos)[1].image("front", 3)
    told = subprocess.run(
        [sys.executable, "-c", read, str(demos)], capture_output=True, text=True, check=True
    )
    assert int(told.stdout) == frame.sum()


def test_a_file_replaced_under_its_reader_stays_the_old_one_where_it_is_open(
    tmp_path, demos, conventions, make_episode
):
    dataset = open_dataset(demos)
    old = dataset[1].image("front", 3)
    with EpisodeWriter(tmp_path / "new.hdf5", conventions) as writer:
        for seed in range(100, 112):
            writer.add(**make_episode(seed, num_steps=20))
    os.replace(tmp_path / "new.hdf5", demos)
    np.testing.assert_array_equal(dataset[1].image("front", 3), old)
    new = open_dataset(demos)
    assert new.fingerprint != dataset.fingerprint
    assert new[1].num_steps == 20


def test_a_file_replaced_before_a_worker_opens_it_is_told(
    tmp_path, demos, conventions, make_episode
):
    dataset = open_dataset(demos)
    worker = pickle.dumps(dataset)
    with EpisodeWriter(tmp_path / "new.hdf5", conventions) as writer:
        for seed in range(100, 112):
            writer.add(**make_episode(seed, num_steps=dataset[seed - 100].num_steps))
    os.replace(tmp_path / "new.hdf5", demos)
    for late in (dataset, pickle.loads(worker)):
        with pytest.raises(UserError, match=r"changed or replaced since.*Open the dataset again"):
            late[1].image("front", 3)
        with pytest.raises(UserError, match="changed or replaced"):
            late[1].state()
    assert open_dataset(demos)[1].image("front", 3).any()


def test_what_episode_writer_makes_has_no_name_before_it_is_whole(
    tmp_path, conventions, make_episode
):
    path = tmp_path / "pick.hdf5"
    with EpisodeWriter(path, conventions) as writer:
        writer.add(**make_episode())
        assert not path.exists()
        with pytest.raises(UserError, match=r"only the interrupted recording 'pick.hdf5.*partial'"):
            open_dataset(path)
        assert sorted(tmp_path.glob("*.hdf5")) == []  # a folder or glob does not see it either
    assert len(open_dataset(path)) == 1
