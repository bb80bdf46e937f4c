"""Sidecars of a file and of its folders say one thing together: key by key, the nearest first."""

import json
import sys
from functools import partial

import h5py
import numpy as np
import pytest
import yaml

from data_tools.cli import main
from data_tools.errors import UserError
from data_tools.formats.layouts.sidecar import FOLDER_SIDECAR, sidecar_of
from data_tools.formats.reader import open_dataset
from data_tools.formats.reading import index_cache
from data_tools.rewrite.merge import merge
from data_tools.rewrite.repack import repack
from tests.data_tools.fixtures import aloha, native, robomimic, robomind
from tests.data_tools.layout_cases import CASES

TASKS = ("close_the_drawer", "lift_the_cube")
LIFT = {"instruction": {"text": "lift it"}}
looked_at = partial(open_dataset, allow_undeclared=True)


@pytest.fixture
def folder(tmp_path):
    """A folder with one file per task, and no sentence in them."""
    folder = tmp_path / "all" / "tasks"
    folder.mkdir(parents=True)
    for task in TASKS:
        robomimic.write(folder / f"{task}.hdf5")
    return folder


def test_lines_for_a_sidecar_that_is_there_are_to_be_added_to_it(tmp_path):
    """Written below it, a block of a name that is there already would be a second one."""
    folder = aloha.write(tmp_path / "demos")
    beside = folder / FOLDER_SIDECAR
    beside.write_text("layout: {preset: aloha, instruction: {text: open the cup}}\n")
    with pytest.raises(UserError) as caught:
        open_dataset(folder)
    told, _, lines = str(caught.value).partition(":\n")
    assert f"Add, each line in the block of its name, to {beside}" in told
    assert "layout" not in yaml.safe_load(lines)
    beside.write_text(beside.read_text() + "layout: aloha\n")
    with pytest.raises(UserError, match=r"line 2: the key 'layout' again.*Join what stands below"):
        open_dataset(folder)


@pytest.fixture
def robot_data(monkeypatch, capsys):
    def run(*words):
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["robot-data", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code, capsys.readouterr().out

    return run


def say(place, **said):
    path = place / FOLDER_SIDECAR if place.is_dir() else sidecar_of(place)
    path.write_text(json.dumps(said))
    return path


def sentences(dataset):
    return [episode.instruction for episode in dataset]


def test_a_sentence_per_file_goes_with_what_the_folder_says(folder):
    say(folder, layout="robomimic", control_hz=10, cameras=[{"name": "*", "source": "ours"}])
    for task in TASKS:
        say(folder / f"{task}.hdf5", layout={"instruction": {"text": task.replace("_", " ")}})
    dataset = open_dataset(folder)
    assert sentences(dataset) == ["close the drawer"] * 2 + ["lift the cube"] * 2
    assert dataset.conventions.control_hz == 10
    assert {camera.source for camera in dataset.conventions.cameras} == {"ours"}


def test_the_nearest_wins_key_by_key_through_all_folders(folder):
    say(folder.parent, control_hz=5, action={"low": -2, "high": 2, "frame": "far"}, layout=LIFT)
    say(folder, layout="robomimic", action={"low": -3, "frame": "between"})
    for task in TASKS:
        say(folder / f"{task}.hdf5", action={"frame": "near"})
    dataset = open_dataset(folder.parent)
    action = dataset.conventions.action
    assert (action.frame, action.low[0], action.high[0]) == ("near", -3, 2)
    assert dataset.conventions.control_hz == 5
    assert dataset.conventions.state.frame == "world"
    assert set(sentences(dataset)) == {"lift it"}
    # only folders up to the one that is opened speak
    assert looked_at(folder).conventions.control_hz == 20


def test_the_order_of_what_is_said_of_cameras_is_from_far_to_near(folder):
    far = [
        {"name": "*", "source": "far", "orientation": "rotated_180"},
        {"name": "agentview", "source": "far agent", "color_order": "bgr"},
    ]
    say(folder, layout={"preset": "robomimic", **LIFT}, cameras=far)
    near = [{"name": "*", "source": "near"}, {"name": "robot0_eye_in_hand", "color_order": "bgr"}]
    own = say(folder / "lift_the_cube.hdf5", cameras=near)
    dataset = open_dataset(folder / "lift_the_cube.hdf5")
    stored = [dataset[0].stored_frames(name).camera for name in dataset.conventions.camera_names]
    assert [camera.source for camera in stored] == ["near", "near"]
    assert [camera.color_order for camera in stored] == ["bgr", "bgr"]
    assert [camera.orientation for camera in stored] == ["rotated_180"] * 2
    origins = dataset.inspected.origins
    assert origins["cameras.agentview.source"] == (str(own),)
    assert origins["cameras.agentview.color_order"] == (str(folder / FOLDER_SIDECAR),)
    assert origins["cameras.robot0_eye_in_hand.color_order"] == (str(own),)


def test_a_sidecar_of_another_layout_takes_nothing_from_farther_away(tmp_path):
    folder = robomind.write(tmp_path / "all" / "minds")
    say(tmp_path / "all", layout={"preset": "robomimic", **LIFT}, control_hz=7)
    (case,) = (case for case in CASES if case.layout == "robomind")
    (folder / FOLDER_SIDECAR).write_text(case.sidecar)
    dataset = open_dataset(tmp_path / "all")
    assert dataset.conventions.control_hz == case.hz
    assert sentences(dataset)[0] == case.instruction


def test_a_sidecar_that_declares_everything_takes_nothing_from_farther_away(folder):
    lift = folder / "lift_the_cube.hdf5"
    say(folder, layout={"preset": "robomimic", **LIFT})
    declared = open_dataset(lift).conventions.model_dump(mode="json")
    say(lift, layout={"preset": "robomimic", **LIFT}, **declared)
    (folder / FOLDER_SIDECAR).write_text("no: [yaml")
    assert sentences(open_dataset(lift)) == ["lift it"] * 2


def test_a_mistake_is_told_of_the_sidecar_that_it_is_in(folder):
    say(folder, layout={"preset": "robomimic", **LIFT}, control_hz="fast")
    say(folder / "lift_the_cube.hdf5", action={"low": "small"}, layout={"imges": {}})
    with pytest.raises(UserError) as caught:
        open_dataset(folder / "lift_the_cube.hdf5")
    assert f"{sidecar_of(folder / 'lift_the_cube.hdf5')}, layout.imges" in str(caught.value)
    say(folder / "lift_the_cube.hdf5", action={"low": "small"})
    with pytest.raises(UserError) as caught:
        open_dataset(folder / "lift_the_cube.hdf5")
    faults = "\n".join(caught.value.faults)
    assert f"{folder / FOLDER_SIDECAR}, control_hz: found 'fast'" in faults
    assert f"{sidecar_of(folder / 'lift_the_cube.hdf5')}, action.low" in faults


def test_parts_of_a_layout_that_is_not_named_say_which_to_name(folder):
    own = say(folder / "lift_the_cube.hdf5", layout=LIFT)
    with pytest.raises(UserError, match=r"no preset.*Write layout: \{preset: robomimic, ...\}"):
        open_dataset(folder / "lift_the_cube.hdf5")
    say(folder / "lift_the_cube.hdf5", layout={"preset": "robomimic", **LIFT})
    dataset = open_dataset(folder / "lift_the_cube.hdf5")
    assert dataset.inspected.origins["layout.preset"] == (str(own),)


def test_a_folder_still_corrects_no_file_that_declares_itself(tmp_path):
    push = native.write(tmp_path / "push.hdf5")
    say(push, cameras=[{"name": "*", "source": "its own"}])
    say(tmp_path, action={"frame": "the folder's"})
    dataset = open_dataset(push)
    assert dataset.conventions.cameras[0].source == "its own"
    assert dataset.conventions.action.frame != "the folder's"
    assert dataset.inspected.origins["cameras.front.source"] == (str(sidecar_of(push)),)
    assert dataset.inspected.origins["action.units"] == ("the file's own declaration",)


def test_inspect_says_where_each_value_is_from(folder, robot_data):
    say(folder, layout="robomimic", action={"frame": "robot_base"})
    for task in TASKS:
        say(folder / f"{task}.hdf5", layout=LIFT)
    code, out = robot_data("inspect", folder, "--json")
    origins = json.loads(out)["origins"]
    of_folder, own = (
        str(folder / FOLDER_SIDECAR),
        [f"{folder}/{t}.hdf5.conventions.yaml" for t in TASKS],
    )
    assert code == 0
    assert origins["layout.preset"] == [of_folder]
    assert origins["action.frame"] == [of_folder]
    assert origins["layout.instruction"] == own
    assert origins["control_hz"] == ["what the file shows"]
    assert origins["action.references"] == ["what the file shows"]
    assert origins["cameras.agentview.height"] == ["what the file shows"]
    assert origins["state.units"] == ["layout robomimic"]
    _, out = robot_data("inspect", folder)
    lines = [line.strip() for line in out.partition("where each value is from:")[2].splitlines()]
    assert f"{', '.join(own)}: layout.instruction" in lines
    (shown,) = [line for line in lines if line.startswith("what the file shows: ")]
    assert "cameras.*.height" in shown
    assert "cameras.agentview.height" not in shown


def test_names_after_datasets_are_what_the_file_shows(tmp_path):
    origins = looked_at(aloha.write(tmp_path / "demos")).inspected.origins
    assert origins["state.names"] == origins["action.names"] == ("what the file shows",)


def test_what_nobody_says_has_no_origin(folder):
    origins = looked_at(robomind.write(folder / "minds")).inspected.origins
    assert "control_hz" not in origins
    assert "cameras.camera_top.color_order" not in origins
    assert origins["action.references"] == ("layout robomind",)


def test_a_sidecar_that_appears_farther_away_is_read_by_an_index_made_before(
    folder, monkeypatch, tmp_path
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(index_cache, "MIN_EPISODES", 1)
    monkeypatch.setattr(index_cache, "SETTLED_NS", 0)
    say(folder, layout={"preset": "robomimic", **LIFT})
    assert open_dataset(folder.parent).conventions.control_hz == 20
    say(folder.parent, control_hz=5)
    assert open_dataset(folder.parent).conventions.control_hz == 5


def test_copies_carry_what_their_sidecars_say_together(folder, tmp_path):
    lift = folder / "lift_the_cube.hdf5"
    say(folder, layout="robomimic", control_hz=10)
    say(lift, layout=LIFT, action={"frame": "near"})
    source = open_dataset(lift)
    for make in (
        lambda out: repack(lift, out, images="raw"),
        lambda out: merge(source, out, [folder]),
    ):
        out = tmp_path / "copies" / "copy.hdf5"
        make(out)
        copy = open_dataset(out)
        assert copy.conventions == source.conventions
        assert sentences(copy) == sentences(source)
        assert yaml.safe_load(sidecar_of(out).read_text())["control_hz"] == 10
        for path in out.parent.iterdir():
            path.unlink()


def test_a_repacked_folder_keeps_its_sidecars_as_they_are(folder, tmp_path, robot_data):
    say(folder, layout="robomimic", control_hz=10)
    for task in TASKS:
        say(folder / f"{task}.hdf5", layout={"instruction": {"text": task}})
    for _ in range(2):  # the second time all is there already
        assert robot_data("repack", folder, tmp_path / "fast", "--images", "raw")[0] == 0
    for path in folder.glob("*.yaml"):
        assert (tmp_path / "fast" / path.name).read_bytes() == path.read_bytes()
    assert sentences(open_dataset(tmp_path / "fast")) == sentences(open_dataset(folder))


def test_a_copy_is_refused_where_a_folder_would_say_more_of_it(folder, tmp_path):
    lift = folder / "lift_the_cube.hdf5"
    say(lift, layout={"preset": "robomimic", **LIFT})
    other = tmp_path / "other"
    other.mkdir()
    say(other, action={"frame": "another"})
    with pytest.raises(UserError, match=r"a declaration that would speak for .*copy.hdf5"):
        repack(lift, other / "copy.hdf5", images="raw")
    say(other, layout={"preset": "robomimic", **LIFT})
    repack(lift, other / "copy.hdf5", images="raw")
    assert open_dataset(other / "copy.hdf5").conventions == open_dataset(lift).conventions


def asked(places):
    """What is to be written: where, and the lines."""
    (told,) = looked_at(places).inspected.undeclared
    remedy, _, lines = told.partition("Write into ")[2].partition(":\n")
    return remedy, lines


def test_files_named_after_their_tasks_are_given_a_pattern_that_works(folder):
    remedy, lines = asked(folder)
    assert remedy.startswith(f"{folder / FOLDER_SIDECAR}, for all 2 files")
    assert "it takes 'close the drawer' from close_the_drawer" in remedy
    (folder / FOLDER_SIDECAR).write_text(lines)
    assert sentences(open_dataset(folder)) == ["close the drawer"] * 2 + ["lift the cube"] * 2


def test_the_end_that_all_names_share_is_no_part_of_the_tasks(folder):
    for task in TASKS:
        (folder / f"{task}.hdf5").rename(folder / f"{task}_v2_demo.hdf5")
    _, lines = asked(folder)
    (folder / FOLDER_SIDECAR).write_text(lines)
    assert set(sentences(open_dataset(folder))) == {"close the drawer", "lift the cube"}


def test_names_that_are_no_words_ask_for_a_sidecar_a_file(folder):
    for task, name in zip(TASKS, ("3f9a02", "c07d11"), strict=True):
        (folder / f"{task}.hdf5").rename(folder / f"{name}.hdf5")
    remedy, lines = asked(folder)
    own = "`layout: {preset: robomimic, instruction: {text: <its task>}}` in 3f9a02.hdf5.conv"
    assert own in remedy
    assert lines == "layout: robomimic"
    for name in ("3f9a02", "c07d11"):
        text = "layout: {preset: robomimic, instruction: {text: lift it}}"
        sidecar_of(folder / f"{name}.hdf5").write_text(text)
    assert set(sentences(open_dataset(folder))) == {"lift it"}


def test_folders_named_after_their_tasks_are_given_a_pattern_that_works(tmp_path):
    for task in TASKS:
        (tmp_path / "all" / task).mkdir(parents=True)
        robomimic.write(tmp_path / "all" / task / "demo.hdf5")
    remedy, lines = asked(tmp_path / "all")
    assert "open that folder" in remedy
    (tmp_path / "all" / FOLDER_SIDECAR).write_text(lines)
    dataset = open_dataset(tmp_path / "all")
    assert sentences(dataset) == ["close the drawer"] * 2 + ["lift the cube"] * 2


def test_files_that_only_a_number_tells_apart_are_of_one_task(folder):
    for number, task in enumerate(TASKS):
        (folder / f"{task}.hdf5").rename(folder / f"run_{number}.hdf5")
    _, lines = asked(folder)
    assert "instruction: {text: <the task as a sentence>}" in lines


def test_only_the_files_that_lack_a_sentence_are_asked_for_one(folder):
    with h5py.File(folder / "lift_the_cube.hdf5", "r+") as file:
        file["data"].attrs["language_instruction"] = np.bytes_("lift the cube")
    remedy, lines = asked(folder)
    assert remedy == "close_the_drawer.hdf5.conventions.yaml beside it"
    lines = lines.replace("<the task as a sentence>", "close it")
    sidecar_of(folder / "close_the_drawer.hdf5").write_text(lines)
    assert set(sentences(open_dataset(folder))) == {"close it", "lift the cube"}
