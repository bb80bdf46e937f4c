"""A file gets its name only when it is on the disk, and is done only when its name is, too.

Were the power cut at any moment, whatever has a name would be whole. So each naming must come after
the last change of what is named has been flushed, and before a flush of the folder it is named in.
"""

import os
import stat
from pathlib import Path

import pytest

from data_tools.formats.keep_files import read_keep
from data_tools.formats.reader import open_dataset
from data_tools.rewrite.convert import convert
from data_tools.rewrite.merge import merge
from data_tools.rewrite.repack import repack
from data_tools.rewrite.salvage import salvage
from data_tools.rewrite.split import split, write_split_keep, write_split_masks
from data_tools.storage.files.disk import finished_file
from data_tools.writer import EpisodeWriter


def identity(path):
    status = os.stat(path)
    return status.st_dev, status.st_ino


class Disk:
    """Watches flushes and namings below a folder, and notes each one that came too early.

    Attributes:
        faults: what was named before all of it was on the disk.
        named: every path that was given a name.
    """

    def __init__(self, monkeypatch, top):
        self.top, self.faults, self.named = Path(top), [], []
        self._flushed = {}  # file -> the state it was last flushed in
        self._unflushed_names = {}  # folder -> paths named in it since its last flush
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self._flush)
        for function in ("link", "replace", "rename"):
            monkeypatch.setattr(os, function, self._watched(getattr(os, function)))

    def _flush(self, descriptor):
        self._fsync(descriptor)
        status = os.fstat(descriptor)
        self._flushed[status.st_dev, status.st_ino] = (status.st_size, status.st_mtime_ns)
        self._unflushed_names.pop((status.st_dev, status.st_ino), None)

    def _watched(self, function):
        def name(source, target, **options):
            function(source, target, **options)
            if self.top in Path(target).parents:
                self._note(Path(target))

        return name

    def _note(self, target):
        self.named.append(target)
        below = [target, *target.rglob("*")] if target.is_dir() else [target]
        for path in below:
            status = os.stat(path)
            state = self._flushed.get((status.st_dev, status.st_ino))
            is_file = stat.S_ISREG(status.st_mode)
            if state is None or (is_file and state != (status.st_size, status.st_mtime_ns)):
                self.faults.append(f"{path.relative_to(self.top)}: named before it was flushed")
        self._unflushed_names.setdefault(identity(target.parent), []).append(target)

    def losses(self):
        """What would not be there, or not be whole, were the power cut now."""
        unsure = [path for paths in self._unflushed_names.values() for path in paths]
        return self.faults + [
            f"{path.relative_to(self.top)}: its folder was never flushed"
            for path in unsure
            if path.exists()
        ]


@pytest.fixture
def disk(tmp_path, demos, monkeypatch):
    return Disk(monkeypatch, tmp_path)


@pytest.fixture
def even(tmp_path, conventions, make_episode):
    """Two episodes of even, video-sized frames."""
    big = conventions.model_copy(
        update={
            "cameras": tuple(
                camera.model_copy(update={"height": 64, "width": 96})
                for camera in conventions.cameras[:1]
            )
        }
    )
    with EpisodeWriter(tmp_path / "even.hdf5", big) as writer:
        for seed in range(2):
            episode = make_episode(seed, num_steps=4)
            front = episode["images"]["front"].repeat(2, axis=1).repeat(2, axis=2)
            writer.add(**episode | {"images": {"front": front}})
    return open_dataset(tmp_path / "even.hdf5")


def test_a_finished_file_is_flushed_then_named_then_its_folder_is_flushed(disk, tmp_path):
    with finished_file(tmp_path / "new" / "a.txt", is_new=True) as partial:
        partial.write_text("all of it")
    with finished_file(tmp_path / "new" / "a.txt") as partial:
        partial.write_text("something else")
    assert [path.name for path in disk.named] == ["a.txt", "a.txt"]
    assert disk.losses() == []


def test_what_is_watched_would_be_seen(disk, tmp_path):
    """A file that is named without a flush, and one whose folder is never flushed, are noted."""
    (tmp_path / "b.partial").write_text("lost")
    os.replace(tmp_path / "b.partial", tmp_path / "b")
    assert disk.losses() == [
        "b: named before it was flushed",
        "b: its folder was never flushed",
    ]


def test_a_recording_is_flushed_then_named_then_its_folder_is_flushed(
    disk, tmp_path, conventions, make_episode
):
    with EpisodeWriter(tmp_path / "new.hdf5", conventions) as writer:
        writer.add(**make_episode(0, num_steps=3))
    assert disk.named == [tmp_path / "new.hdf5"]
    assert disk.losses() == []


@pytest.mark.parametrize("to", ["native", "robomimic", "aloha", "minari", "lerobot-v3"])
def test_a_converted_dataset_and_each_part_of_it(disk, even, tmp_path, to):
    images = "png" if to.startswith("lerobot") else "video"
    made = convert(even, tmp_path / "out", to, images=images)
    assert disk.named[-1] == made
    assert len(disk.named) > 1 + (to != "lerobot-v3")  # one for each part, and for the plan
    assert disk.losses() == []


def test_a_repacked_file_and_each_part_of_it(disk, demos, tmp_path):
    repack(demos, tmp_path / "out.hdf5")
    assert disk.named[-1] == tmp_path / "out.hdf5"
    assert len(disk.named) > 1
    assert disk.losses() == []


def test_a_merged_and_a_salvaged_file(disk, demos, tmp_path):
    merge(open_dataset(demos), tmp_path / "merged.hdf5")
    salvage(demos, tmp_path / "saved.hdf5")
    assert {"merged.hdf5", "saved.hdf5"} <= {path.name for path in disk.named}
    assert disk.losses() == []


def test_filter_keys_and_keep_files(disk, demos, tmp_path):
    dataset = open_dataset(demos)
    parts = split(dataset, valid=0.25)
    write_split_masks(dataset, parts, demos, tmp_path / "masked.hdf5")
    write_split_keep(dataset, parts, tmp_path / "parts", "a rule")
    assert {"masked.hdf5", "train.json", "valid.json"} <= {path.name for path in disk.named}
    assert disk.losses() == []
    assert read_keep(tmp_path / "parts" / "train.json").episodes
