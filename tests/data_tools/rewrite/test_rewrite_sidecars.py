"""New files are read as their sources were, whatever sidecars lie beside either."""

import os
import shutil
import subprocess
import sys
from functools import partial

import h5py
import numpy as np
import pytest
import yaml

from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset
from data_tools.rewrite.convert import convert
from data_tools.rewrite.edited import Edit, EditedDataset, all_with
from data_tools.rewrite.merge import merge
from data_tools.rewrite.repack import repack
from data_tools.rewrite.salvage import salvage
from data_tools.rewrite.split import split, write_split_masks
from data_tools.writer import EpisodeWriter

STEPS = 6


@pytest.fixture
def turned(tmp_path, conventions, make_episode):
    """Writes a file that says nothing of itself, and a sidecar: its own, or its folder's."""

    def make(place="demos/a.hdf5", sidecar=".conventions.yaml", episodes=3, layout=(), **camera):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            for seed in range(episodes):
                episode = make_episode(seed, num_steps=STEPS)
                demo = file.create_group(f"data/demo_{seed}")
                demo["actions"], demo["obs/state"] = episode["actions"], episode["state"]
                demo["obs/front_image"] = episode["images"]["front"]
                demo.attrs["language_instruction"] = "push"
        is_own = sidecar.startswith(".")
        beside = path.with_name(f"{path.name}{sidecar}" if is_own else sidecar)
        declare(beside, dict(layout), **camera)
        return path

    def declare(path, layout=None, **camera):
        declared = conventions.model_dump(mode="json")
        declared["cameras"] = [declared["cameras"][0] | camera]
        images = {"front": "obs/front_image"}
        declared["layout"] = {"name": "ours", "images": images, **(layout or {})}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(declared))

    make.declare = declare
    return make


def assert_read_alike(found, expected):
    assert len(found) == len(expected)
    assert found.conventions == expected.conventions
    for index in range(len(expected)):
        ours, theirs = found[index], expected[index]
        assert ours.stored_frames("front").camera == theirs.stored_frames("front").camera
        np.testing.assert_array_equal(ours.state(), theirs.state())
        np.testing.assert_array_equal(ours.image("front", 2), theirs.image("front", 2))


def make_split(source, target):
    dataset = open_dataset(source)
    write_split_masks(dataset, split(dataset, 0.4), source, target)


COMMANDS = {
    "repack": partial(repack, images="png"),
    "split": make_split,
    "merge": lambda source, target: merge(open_dataset(source), target),
    "salvage": salvage,
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("sidecar", [".conventions.yaml", "conventions.yaml"])
@pytest.mark.parametrize("is_said_otherwise_there", [True, False])
def test_copies_are_read_as_their_source(
    turned, tmp_path, command, sidecar, is_said_otherwise_there
):
    source = turned("demos/a.hdf5", sidecar, orientation="rotated_180", color_order="bgr")
    if is_said_otherwise_there:
        turned.declare(tmp_path / "out" / "conventions.yaml")
    COMMANDS[command](source, tmp_path / "out" / "b.hdf5")
    assert_read_alike(open_dataset(tmp_path / "out" / "b.hdf5"), open_dataset(source))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_declaration_that_a_person_wrote_is_never_written_over(turned, tmp_path, command):
    source = turned(orientation="rotated_180")
    target = tmp_path / "b.hdf5"
    mine = tmp_path / "b.hdf5.conventions.yaml"
    mine.write_text("# mine\n")
    with pytest.raises(UserError, match=r"would speak for .*Delete it if it is left over"):
        COMMANDS[command](source, target)
    assert (mine.read_text(), target.exists()) == ("# mine\n", False)
    shutil.copy(source.with_name("a.hdf5.conventions.yaml"), mine)
    COMMANDS[command](source, target)
    assert_read_alike(open_dataset(target), open_dataset(source))


@pytest.mark.parametrize("command", COMMANDS)
def test_of_a_file_that_declares_itself_no_folder_sidecar_is_copied(demos, tmp_path, command):
    (tmp_path / "conventions.yaml").write_text("control_hz: 10.0\n")
    COMMANDS[command](demos, tmp_path / "out" / "b.hdf5")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.hdf5"]
    assert_read_alike(open_dataset(tmp_path / "out" / "b.hdf5"), open_dataset(demos))


def test_a_left_over_sidecar_does_not_speak_for_a_converted_file(turned, demos, tmp_path):
    turned.declare(tmp_path / "new.hdf5.conventions.yaml", orientation="rotated_180")
    with pytest.raises(UserError, match="Delete it if it is left over"):
        convert(open_dataset(demos), tmp_path / "new.hdf5", "native")


# what was interrupted


class StopError(Exception):
    pass


def stop_after_two(done, total):
    if done == 2:
        raise StopError


@pytest.mark.parametrize("sidecar", [".conventions.yaml", "conventions.yaml"])
@pytest.mark.parametrize("kind", ["file", "pattern", "folder", "not given"])
def test_convert_does_not_go_on_after_the_sidecar_was_corrected(turned, tmp_path, kind, sidecar):
    path = turned("demos/a.hdf5", sidecar, color_order="bgr")
    sources = {"file": [path], "pattern": [f"{path.parent}/*.hdf5"], "folder": [path.parent]}
    given = sources.get(kind, [])
    target = tmp_path / "new.hdf5"
    with pytest.raises(StopError):
        convert(open_dataset(path), target, "native", sources=given, advance=stop_after_two)
    declared = path.with_name("a.hdf5.conventions.yaml" if sidecar[0] == "." else sidecar)
    turned.declare(declared, color_order="rgb")
    with pytest.raises(UserError, match="Give the command it was begun with"):
        convert(open_dataset(path), target, "native", sources=given)
    turned.declare(declared, color_order="bgr")
    convert(open_dataset(path), target, "native", sources=given)
    found, expected = open_dataset(target)[0], open_dataset(path)[0]
    error = found.image("front", 0).astype(int) - expected.image("front", 0)
    assert abs(error).mean() < 3


@pytest.mark.parametrize("is_given", [True, False])
def test_nor_after_it_said_something_else_of_the_episodes(turned, tmp_path, is_given):
    # who succeeded is in no fingerprint
    path, target = turned(), tmp_path / "new.hdf5"
    given = [path] if is_given else []
    with pytest.raises(StopError):
        convert(open_dataset(path), target, "native", sources=given, advance=stop_after_two)
    success = {"success": {"attribute": "success"}}
    turned.declare(path.with_name("a.hdf5.conventions.yaml"), success)
    with pytest.raises(UserError, match=r"sources: .*Give the command it was begun with"):
        convert(open_dataset(path), target, "native", sources=given)


def test_nor_after_the_sidecar_of_a_folder_above_was_corrected(turned, tmp_path):
    turned("demos/monday/a.hdf5", "unused.yaml")
    above = tmp_path / "demos" / "conventions.yaml"

    def edited(color_order):
        turned.declare(above, color_order=color_order)
        dataset = open_dataset(tmp_path / "demos")
        return EditedDataset(dataset, all_with(dataset, Edit()), dataset.conventions)

    with pytest.raises(StopError):
        convert(edited("bgr"), tmp_path / "new.hdf5", "native", advance=stop_after_two)
    with pytest.raises(UserError, match="Give the command it was begun with"):
        convert(edited("rgb"), tmp_path / "new.hdf5", "native")


def test_convert_into_the_folder_it_reads_goes_on(turned, tmp_path):
    folder = turned("demos/a.hdf5").parent
    arguments = open_dataset(folder), folder / "new.hdf5", "native"
    with pytest.raises(StopError):
        convert(*arguments, sources=[folder], advance=stop_after_two)
    assert convert(*arguments, sources=[folder]).is_file()


KILLED = """
import os, sys
from pathlib import Path
from data_tools.formats.reader import open_dataset
from data_tools.rewrite.merge import merge
from data_tools.rewrite.repack import repack
source, target = map(Path, sys.argv[2:])
link = os.link
def killed(old, new):
    if Path(new) == target:
        os._exit(9)
    link(old, new)
os.link = killed
if sys.argv[1] == "repack":
    repack(source, target, images="png")
else:
    merge(open_dataset(source), target)
"""


@pytest.mark.parametrize("command", ["repack", "merge"])
def test_a_sidecar_that_a_killed_command_left_is_not_believed_later(turned, tmp_path, command):
    source, target = turned(orientation="rotated_180"), tmp_path / "out" / "a.hdf5"
    script = [sys.executable, "-c", KILLED, command, source, target]
    assert subprocess.run(script, check=False).returncode == 9
    assert (tmp_path / "out" / "a.hdf5.conventions.yaml").exists()
    turned.declare(source.with_name("a.hdf5.conventions.yaml"), orientation="upright")
    with pytest.raises(UserError, match="Delete it if it is left over"):
        COMMANDS[command](source, target)
    turned.declare(source.with_name("a.hdf5.conventions.yaml"), orientation="rotated_180")
    COMMANDS[command](source, target)
    assert_read_alike(open_dataset(target), open_dataset(source))


@pytest.mark.parametrize("command", ["repack", "merge", "split", "salvage"])
def test_ctrl_c_leaves_no_sidecar_without_its_file(turned, tmp_path, monkeypatch, command):
    source, target = turned(orientation="rotated_180"), tmp_path / "out" / "a.hdf5"
    link = os.link

    def interrupt(old, new):
        if str(new) == str(target):
            assert target.with_name("a.hdf5.conventions.yaml").exists()
            raise KeyboardInterrupt
        link(old, new)

    monkeypatch.setattr(os, "link", interrupt)
    with pytest.raises(KeyboardInterrupt):
        COMMANDS[command](source, target)
    assert not list((tmp_path / "out").glob("a.hdf5.conv*"))


# merge


def test_files_whose_sidecars_scale_differently_are_not_merged(turned, tmp_path):
    scales = [{"state": [{"dataset": "obs/state", "scale": [k, k, 1.0]}]} for k in (1.0, 0.001)]
    files = [turned(f"demos/{n}.hdf5", layout=scale) for n, scale in zip("ab", scales, strict=True)]
    with pytest.raises(UserError, match=r"b\.hdf5: found the sidecar .*convert --to native"):
        merge(open_dataset(files), tmp_path / "new.hdf5")
    # nor is one without a sidecar merged with one that has it
    files[1].with_name("b.hdf5.conventions.yaml").unlink()
    turned.declare(files[0].with_name("conventions.yaml"), scales[1])
    with pytest.raises(UserError, match="convert --to native"):
        merge(open_dataset(files), tmp_path / "new.hdf5")
    assert not list(tmp_path.glob("new*"))


def test_a_nested_folders_sidecar_speaks_for_the_merged_file(turned, tmp_path):
    files = [turned(f"demos/{day}/a.hdf5", "unused.yaml") for day in ("monday", "tuesday")]
    turned.declare(tmp_path / "demos" / "conventions.yaml", orientation="flipped_vertical")
    folder = tmp_path / "demos"
    merge(open_dataset(folder), tmp_path / "new.hdf5", [folder])
    assert_read_alike(open_dataset(tmp_path / "new.hdf5"), open_dataset(folder))
    assert len(files) * 3 == len(open_dataset(folder))


def test_merge_refuses_what_would_read_differently(turned, tmp_path, monkeypatch):
    # the last guard: what was written is opened and compared
    source = turned(orientation="rotated_180")
    copy = h5py.Group.copy

    def other_numbers(self, group, target, name, **options):
        copy(self, group, target, name, **options)
        target[name]["obs/state"][0, 0] += 1

    monkeypatch.setattr(h5py.Group, "copy", other_numbers)
    with pytest.raises(UserError, match="read differently as one"):
        merge(open_dataset(source), tmp_path / "new.hdf5")
    assert not list(tmp_path.glob("new*"))


def test_links_out_of_a_file_are_not_merged_and_soft_links_become_data(
    tmp_path, conventions, make_episode
):
    files = [tmp_path / "a.hdf5", tmp_path / "b.hdf5"]
    for seed, path in enumerate(files):
        with EpisodeWriter(path, conventions) as writer:
            writer.add(**make_episode(seed))
    with h5py.File(files[1], "r+") as file:
        frames = "data/demo_0/obs/front_image"
        file.move(frames, "frames")
        file[frames] = h5py.SoftLink("/frames")
        file["data/demo_0/again"] = h5py.SoftLink("/data/demo_0/actions")
    merge(open_dataset(files), tmp_path / "new.hdf5")
    assert_read_alike(open_dataset(tmp_path / "new.hdf5"), open_dataset(files))
    with h5py.File(tmp_path / "new.hdf5") as file:
        np.testing.assert_array_equal(file["data/demo_1/again"], file["data/demo_1/actions"])
    with h5py.File(files[1], "r+") as file:
        file["data/demo_0/extra"] = h5py.ExternalLink("other.hdf5", "/x")
    with pytest.raises(UserError, match=r"extra: found a link to the file 'other\.hdf5'"):
        merge(open_dataset(files), tmp_path / "more.hdf5")


def test_an_episode_that_is_a_file_is_named_when_it_cannot_be_merged(demos, tmp_path, robot_data):
    convert(open_dataset(demos), tmp_path / "aloha", "aloha")
    code, _, err = robot_data("merge", tmp_path / "aloha", tmp_path / "all.hdf5")
    assert code == 2
    assert f"{tmp_path}/aloha/episode_0.hdf5: found an episode that is the whole file" in err
