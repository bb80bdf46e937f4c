"""Interrupted work goes on with its own parts or begins again; it never takes another's."""

import os
import signal
import subprocess
import sys

import pytest

from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset
from data_tools.rewrite.convert import convert
from data_tools.rewrite.edited import Edit, EditedDataset
from data_tools.rewrite.relabel import relabel
from data_tools.rewrite.repack import repack
from data_tools.rewrite.unfinished import Unfinished
from data_tools.writer import EpisodeWriter


class StopError(Exception):
    pass


def stop_after_two(done, total):
    if done == 2:
        raise StopError


@pytest.fixture
def interrupted(demos, tmp_path):
    """A conversion of twelve episodes of which two are done."""
    target = tmp_path / "new.hdf5"
    with pytest.raises(StopError):
        convert(open_dataset(demos), target, "native", advance=stop_after_two)
    return target


@pytest.mark.parametrize("plan", ["", '{"command": "con', "[]", None])
def test_parts_without_a_readable_plan_are_not_taken(interrupted, demos, plan):
    path = interrupted.with_name("new.hdf5.partial") / "plan.json"
    path.unlink()
    if plan is not None:
        path.write_text(plan)
    dataset = open_dataset(demos)
    for other in (dataset, relabel(dataset, instructions=["other words"] * 12)):
        with pytest.raises(UserError, match=r"plan\.json: found no plan .*Delete .* start again"):
            convert(other, interrupted, "native")


def test_a_plan_is_whole_on_the_disk_before_the_first_part(demos, tmp_path, monkeypatch):
    """Killed at any of its writes, the plan that is there is the old one, or none, or the new."""
    replace = os.replace

    def die(old, new):
        if str(new).endswith("plan.json"):
            raise StopError
        replace(old, new)

    monkeypatch.setattr(os, "replace", die)
    work = Unfinished(tmp_path / "new", {"a": 1})
    with pytest.raises(StopError), work:
        raise AssertionError("the plan was never written")
    assert not (tmp_path / "new.partial" / "plan.json").exists()
    monkeypatch.undo()
    with Unfinished(tmp_path / "new", {"b": 2}) as other:
        part = other.part("x", lambda path: path.write_text("b"))
        assert [path.name for path in other.folder.iterdir() if "partial" in path.name] == []
        other.publish(part)
    assert (tmp_path / "new").read_text() == "b"


def test_what_a_killed_process_left_half_written_is_neither_kept_nor_published(demos, tmp_path):
    dataset = open_dataset(demos)
    folder = tmp_path / "new.partial"
    (folder / "parts").mkdir(parents=True)
    (folder / "parts" / "episode_0.hdf5.tmp.ab12.partial").write_text("half")
    (folder / "parts" / "episode_3.hdf5.tmp").write_text("half")
    (folder / "whole").mkdir()
    edited = EditedDataset(dataset, [(0, Edit())], dataset.conventions)
    convert(edited, tmp_path / "new", "aloha")
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == ["conventions.yaml", "episode_0.hdf5"]


KILLED = """
import os, sys
from pathlib import Path
from data_tools.formats.reader import open_dataset
from data_tools.rewrite import {module} as module
from data_tools.rewrite.convert import convert
{die}
convert(open_dataset(sys.argv[1]), Path(sys.argv[2]), "lerobot-v3", images="png",
        advance=lambda done, total: print(done, flush=True))
"""
DEATHS = {
    "when all is written": ("convert", "module.flush_to_disk = lambda path: os._exit(9)"),
    "before its name": (
        "unfinished",
        "module.Unfinished.publish = lambda self, whole: os._exit(9)",
    ),
}


@pytest.mark.parametrize("place", [*DEATHS, "at the second episode"])
def test_a_killed_convert_to_lerobot_is_made_by_the_same_command(demos, tmp_path, place):
    module, die = DEATHS.get(place, ("convert", ""))
    script = KILLED.format(module=module, die=die)
    target = tmp_path / "new"
    process = subprocess.Popen(
        [sys.executable, "-c", script, demos, target], stdout=subprocess.PIPE
    )
    if not die:
        process.stdout.readline()
        process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == (9 if die else -signal.SIGKILL)
    assert not target.exists()
    dataset = open_dataset(demos)
    convert(dataset, target, "lerobot-v3", images="png")
    assert open_dataset(target).fingerprint == dataset.fingerprint
    assert not list(tmp_path.glob("new.*"))


@pytest.mark.parametrize("to", ["native", "lerobot-v3"])
def test_ctrl_c_says_what_is_kept(robot_data, demos, tmp_path, monkeypatch, to):
    stored = EpisodeWriter.add

    def interrupt(self, **episode):
        stored(self, **episode)
        if episode["attributes"]["seed"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(EpisodeWriter, "add", interrupt)
    monkeypatch.setattr("data_tools.rewrite.convert._told", _interrupted)
    arguments = "convert", demos, tmp_path / "new", "--to", to, "--images"
    images = "png" if to == "lerobot-v3" else "video"
    code, _, err = robot_data(*arguments, images)
    assert code not in (0, 2)
    said = "keeps 2 finished parts. Give the same command again" if to == "native" else "begins"
    assert said in err
    assert (tmp_path / "new.partial").exists() == (to == "native")
    monkeypatch.undo()


def _interrupted(dataset, advance):
    yield dataset[0]
    raise KeyboardInterrupt


def test_ctrl_c_before_the_first_part_leaves_nothing_and_says_so(demos, tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        repack(demos, tmp_path / "new.hdf5", advance=interrupt)
    assert "the same command begins again" in caught.value.__notes__[0]
    assert not list(tmp_path.glob("new*"))
