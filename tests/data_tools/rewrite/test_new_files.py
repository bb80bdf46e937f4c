"""Of two writers of one new file the first one wins, and the other is told."""

import errno
import os
import stat
import threading

import pytest

from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset
from data_tools.rewrite.unfinished import new_file
from data_tools.storage.files.disk import finished_file
from data_tools.writer import EpisodeWriter


def no_links(*args, **kwargs):
    raise OSError(errno.EPERM, "Operation not permitted", str(args[0]), None, str(args[1]))


@pytest.fixture(params=["links", "no links"])
def disk(request, tmp_path, monkeypatch):
    """A folder, also on a disk that has no hard links."""
    if request.param == "no links":
        monkeypatch.setattr(os, "link", no_links)
    return tmp_path


def test_a_new_file_appears_with_its_content_alone(disk):
    with finished_file(disk / "out.txt", is_new=True) as partial:
        partial.write_text("mine")
    assert [each.name for each in disk.iterdir()] == ["out.txt"]
    assert (disk / "out.txt").read_text() == "mine"


def test_what_another_wrote_meanwhile_stays(disk):
    def write():
        with new_file(disk / "out.txt") as partial:
            partial.write_text("mine")
            (disk / "out.txt").write_text("theirs")

    with pytest.raises(UserError, match="found something that exists already; expected a new name"):
        write()
    assert [each.name for each in disk.iterdir()] == ["out.txt"]
    assert (disk / "out.txt").read_text() == "theirs"


def test_a_file_that_may_be_replaced_is(disk):
    (disk / "out.txt").write_text("theirs")
    with finished_file(disk / "out.txt") as partial:
        partial.write_text("mine")
    assert (disk / "out.txt").read_text() == "mine"


def test_of_writers_that_are_done_at_once_one_wins(tmp_path):
    path, won, lost = tmp_path / "out.txt", [], []
    start = threading.Barrier(8)

    def write(number):
        try:
            with finished_file(path, is_new=True) as partial:
                partial.write_text(str(number))
                start.wait(timeout=20)
        except UserError as error:
            lost.append(error)
        else:
            won.append(number)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    assert path.read_text() == str(*won)
    assert len(lost) == 7
    assert [each.name for each in tmp_path.iterdir()] == ["out.txt"]


def test_two_recordings_of_one_name_leave_both_readable(
    tmp_path, monkeypatch, conventions, make_episode
):
    path = tmp_path / "pick.hdf5"
    late = EpisodeWriter(path, conventions).__enter__()
    late.add(**make_episode(0, num_steps=25))
    with EpisodeWriter(path, conventions) as first:
        first.add(**make_episode(1, num_steps=24))
    # it is there only after this one has looked
    monkeypatch.setattr(EpisodeWriter, "_existing_faults", lambda self: [])
    with pytest.raises(UserError) as caught:
        late.__exit__(None, None, None)
    told, kept = caught.value.faults
    assert "something that exists already" in told
    assert "holds the 1 episodes added before" in kept
    assert open_dataset(path)[0].num_steps == 24
    (partial,) = tmp_path.glob("*.partial")
    partial.rename(tmp_path / "late.hdf5")
    assert open_dataset(tmp_path / "late.hdf5")[0].num_steps == 25


def test_no_one_else_can_look_into_the_folder_of_indices(demos, tmp_path, monkeypatch):
    monkeypatch.setattr("data_tools.formats.reading.index_cache.MIN_EPISODES", 1)
    monkeypatch.setattr("data_tools.formats.reading.index_cache.SETTLED_NS", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    open_dataset(demos)
    (index,) = tmp_path.rglob("index")
    assert list(index.iterdir()) != []
    modes = {stat.S_IMODE(folder.stat().st_mode) for folder in (index, index.parent)}
    assert modes == {0o700}
