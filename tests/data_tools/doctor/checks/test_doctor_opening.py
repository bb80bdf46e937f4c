"""What does not open hides nothing: it is a finding at its place, and the rest is examined."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from data_tools.doctor.diagnosis import UNOPENED, diagnose
from data_tools.errors import UserError
from data_tools.formats.layouts import native
from data_tools.formats.reader import open_dataset
from data_tools.writer import EpisodeWriter
from tests.data_tools.fixtures import isaaclab, libero, maniskill, robomimic
from tests.data_tools.formats.lerobot.conftest import make_folder  # noqa: F401 - a fixture


def shorten(episode):
    rows = episode["obs/state"][:-3]
    del episode["obs/state"]
    episode["obs/state"] = rows


def lose(episode):
    del episode["obs/front_image"]


def write_words(episode):
    del episode["actions"]
    episode["actions"] = np.full(20, b"left")


def empty(episode):
    for name in ("actions", "obs/state", "obs/front_image", "obs/wrist_image"):
        rows = episode[name][:0]
        del episode[name]
        episode[name] = rows
    episode.attrs[native.NUM_SAMPLES_ATTRIBUTE] = 0


def unsay(episode):
    del episode.attrs["language_instruction"]


def garble(episode):
    episode.attrs[native.EXTRA_ATTRIBUTE] = "{"


def miscount(episode):
    episode.attrs[native.NUM_SAMPLES_ATTRIBUTE] = 7


def link(episode):
    del episode["obs/front_image"]
    episode["obs/front_image"] = h5py.ExternalLink("/etc/passwd", "x")


EPISODE_FAULTS = {
    "lengths": shorten,
    "missing_part": lose,
    "wrong_form": write_words,
    "no_steps": empty,
    "no_instruction": unsay,
    "unreadable_fact": garble,
    "contradiction": miscount,
    "unreadable_episode": link,
}


def change(path, index, fault):
    with h5py.File(path, "r+") as file:
        fault(file[f"data/demo_{index}"])


def spoil(path, index=7):
    """A NaN, in another episode than the faults are in."""
    with h5py.File(path, "r+") as file:
        file[f"data/demo_{index}/actions"][5, 1] = np.nan


def told(found) -> dict[str, str]:
    """Rule -> where, of the errors."""
    return {each.rule: each.where for each in found.findings if each.severity == "error"}


@pytest.mark.parametrize("rule", EPISODE_FAULTS)
def test_a_fault_of_one_episode_is_a_finding_and_the_others_are_examined(demos, rule):
    change(demos, 3, EPISODE_FAULTS[rule])
    spoil(demos)
    with pytest.raises(UserError, match="demo_3"):
        open_dataset(demos)
    found = diagnose(demos)
    errors = told(found)
    assert set(errors) == {rule, "not_finite"}
    assert errors[rule].startswith(f"{demos}:")
    assert "data/demo_3" in errors[rule]
    assert errors["not_finite"] == f"{demos}:data/demo_7"
    assert [len(dataset) for dataset in found.datasets] == [11]
    assert [each.rule for each in found.unopened] == [rule]
    assert all(each.remedy.endswith((".", "?")) for each in found.unopened)
    assert any(line.why == UNOPENED for line in found.ledger)


@pytest.mark.parametrize("rule", EPISODE_FAULTS)
@pytest.mark.parametrize("index", [0, 11])
def test_the_first_and_the_last_episode_may_have_the_fault(demos, rule, index):
    change(demos, index, EPISODE_FAULTS[rule])
    spoil(demos)
    assert set(told(diagnose(demos))) == {rule, "not_finite"}


def cut(path, folder):
    path.write_bytes(path.read_bytes()[:2000])


def strip(path, folder):
    with h5py.File(path, "r+") as file:
        file.move("data", "recordings")


def misdeclare(path, folder):
    path.with_name(f"{path.name}.conventions.yaml").write_text("control_hz: -3\n")


def declare_otherwise(path, folder):
    path.with_name(f"{path.name}.conventions.yaml").write_text("state: {frame: world}\n")


FILE_FAULTS = {
    "unreadable_file": cut,
    "unknown_layout": strip,
    "wrong_declaration": misdeclare,
    "differing_files": declare_otherwise,
}


@pytest.mark.parametrize("rule", FILE_FAULTS)
def test_a_fault_of_one_file_is_a_finding_and_the_others_are_examined(demos, tmp_path, rule):
    folder = tmp_path / "demos"
    folder.mkdir()
    for name in ("a.hdf5", "b.hdf5", "c.hdf5"):
        shutil.copy(demos, folder / name)
    FILE_FAULTS[rule](folder / "b.hdf5", folder)
    spoil(folder / "c.hdf5")
    with pytest.raises(UserError, match=r"b\.hdf5"):
        open_dataset(folder)
    found = diagnose(folder)
    errors = told(found)
    assert {rule, "not_finite"} <= set(errors)
    assert "b.hdf5" in errors[rule]
    assert errors["not_finite"] == f"{folder / 'c.hdf5'}:data/demo_7"


def test_files_that_declare_other_things_are_examined_apart(demos, tmp_path):
    other = tmp_path / "other.hdf5"
    shutil.copy(demos, other)
    declare_otherwise(other, tmp_path)
    for path in (demos, other):
        spoil(path)
    found = diagnose([demos, other])
    assert [len(dataset) for dataset in found.datasets] == [12, 12]
    spoiled = [each.where for each in found.findings if each.rule == "not_finite"]
    assert spoiled == [f"{demos}:data/demo_7", f"{other}:data/demo_7"]
    # what is said of a dataset as a whole names it
    assert {str(demos), str(other)} <= {line.places[0] for line in found.ledger}


def test_files_and_a_lerobot_folder_are_examined_side_by_side(demos, make_folder):  # noqa: F811
    spoil(demos)
    folder = make_folder("v3.0", "image")
    found = diagnose([demos, folder])
    assert [len(dataset) for dataset in found.datasets] == [3, 12]
    assert told(found)["not_finite"] == f"{demos}:data/demo_7"
    (folder / "meta" / "info.json").write_text("{")
    found = diagnose([demos, folder])
    assert [len(dataset) for dataset in found.datasets] == [12]
    assert set(told(found)) == {"unreadable_file", "not_finite"}


def say_version(folder):
    info = json.loads((folder / "meta/info.json").read_text())
    (folder / "meta/info.json").write_text(json.dumps({**info, "codebase_version": "v9"}))


def say_more_frames(folder):
    info = json.loads((folder / "meta/info.json").read_text())
    (folder / "meta/info.json").write_text(json.dumps({**info, "total_frames": 22}))


LEROBOT_FAULTS = {
    "unreadable_file": lambda folder: (
        folder / "data/chunk-000/episode_000001.parquet"
    ).write_bytes(b"PAR1"),
    "missing_part": lambda folder: (
        folder / "videos/chunk-000/observation.images.front/episode_000001.mp4"
    ).unlink(),
    "wrong_declaration": lambda folder: (folder / "conventions.yaml").write_text("contrl_hz: 10\n"),
    "unknown_layout": say_version,
    "contradiction": say_more_frames,
}


@pytest.mark.parametrize("rule", LEROBOT_FAULTS)
def test_a_fault_of_a_lerobot_folder_is_of_its_kind(make_folder, rule):  # noqa: F811
    folder = make_folder("v2.1", "video")
    LEROBOT_FAULTS[rule](folder)
    found = diagnose(folder)
    assert {each.rule for each in found.unopened} == {rule}
    opened = {"unreadable_file": [2], "missing_part": [2], "contradiction": [3]}.get(rule, [])
    assert [len(dataset) for dataset in found.datasets] == opened
    with pytest.raises(UserError):
        open_dataset(folder)


def test_a_damaged_type_of_an_attribute_is_a_finding_of_its_episode(demos):
    spoil(demos)
    data = bytearray(demos.read_bytes())
    # texts of variable length, in UTF-8: their encoding becomes one that HDF5 has not
    text_type = b"\x19\x01\x01\x00\x10\x00\x00\x00"
    name = data.rfind(b"language_instruction\0")
    place = data.find(text_type, name)
    assert 0 < place - name < 64
    data[place + 2] = 0x0C
    demos.write_bytes(bytes(data))
    errors = told(diagnose(demos))
    assert set(errors) == {"unreadable_episode", "not_finite"}
    assert errors["unreadable_episode"] == f"{demos}:data/demo_11"


def test_a_filter_key_that_a_file_lacks_is_a_finding_of_that_file(demos, tmp_path):
    other = tmp_path / "other.hdf5"
    shutil.copy(demos, other)
    with h5py.File(demos, "r+") as file:
        file["mask/short"] = np.array(["demo_7"], dtype="S")
    spoil(demos)
    errors = told(diagnose([demos, other], mask="short"))
    assert errors["filter_key"] == f"{other}:mask"
    assert "not_finite" in errors


def test_a_place_without_data_is_a_finding_and_the_others_are_examined(demos, tmp_path):
    spoil(demos)
    (tmp_path / "empty").mkdir()
    errors = told(diagnose([tmp_path / "empty", demos, demos]))
    assert set(errors) == {"unreadable_file", "not_finite"}


def test_json_is_json_whatever_opens(robot_data, demos, tmp_path):
    change(demos, 3, shorten)
    spoil(demos)
    code, out, _ = robot_data("validate", demos, "--json")
    findings = json.loads(out)["findings"]
    assert (code, {"lengths", "not_finite"} <= {each["rule"] for each in findings}) == (1, True)
    (tmp_path / "page.hdf5").write_text("<!DOCTYPE html>")
    for path in (tmp_path / "page.hdf5", tmp_path / "nothing.hdf5"):
        code, out, err = robot_data("validate", path, "--json")
        (finding,) = json.loads(out)["findings"]
        assert (code, finding["rule"], finding["episode"]) == (2, "unreadable_file", str(path))
        assert str(path) in err


def test_arguments_that_are_wrong_are_json_too(robot_data, demos):
    code, out, err = robot_data("validate", demos, "--json", "--ignore", "not_finit")
    told = json.loads(out)
    assert (code, told["findings"]) == (2, [])
    assert "did you mean 'not_finite'" in told["refused"][0]
    assert "did you mean 'not_finite'" in err
    code, out, _ = robot_data("validate", demos, "--json", "--layout", "robomimc")
    assert (code, json.loads(out)["findings"]) == (2, [])
    assert "did you mean 'robomimic'" in json.loads(out)["refused"][0]


def test_fix_refuses_what_does_not_open_beside_the_findings(robot_data, demos, tmp_path):
    change(demos, 3, unsay)
    code, out, err = robot_data("validate", demos, "--fix", tmp_path / "new.hdf5", "--json")
    told = json.loads(out)
    assert code == 2
    assert [each["rule"] for each in told["findings"]] == ["no_instruction"]
    assert "Mend what does not open first" in told["refused"][0]
    assert "Mend what does not open first" in err
    assert not (tmp_path / "new.hdf5").exists()


def test_the_terminal_says_what_was_not_looked_at(robot_data, demos):
    change(demos, 3, unsay)
    code, out, _ = robot_data("validate", demos)
    assert code == 1
    assert f"every rule: {UNOPENED} ({demos}:data/demo_3)" in out
    assert "what does not open (1) was not looked at" in out.splitlines()[-1]
    assert "in 11 episodes" in out.splitlines()[-1]


def test_what_validation_data_lacks_is_a_finding(robot_data, demos, tmp_path):
    other = tmp_path / "other.hdf5"
    shutil.copy(demos, other)
    change(other, 3, unsay)
    code, out, _ = robot_data("validate", demos, "--validation", other, "--json")
    rules = {each["rule"] for each in json.loads(out)["findings"]}
    assert (code, rules) == (1, {"no_instruction", "split_overlap"})


def test_an_ignored_fault_of_opening_is_still_in_the_ledger(demos):
    change(demos, 3, unsay)
    found = diagnose(demos, ignore=["no_instruction"])
    assert found.findings == ()
    assert [line.places for line in found.ledger if line.why == UNOPENED]


def test_a_damaged_group_leaves_the_other_episodes_of_its_file(tmp_path, conventions, make_episode):
    path = Path(tmp_path) / "push.hdf5"
    with EpisodeWriter(path, conventions, source="a test") as writer:
        for seed in range(6):
            writer.add(**make_episode(seed))
    with h5py.File(path, "r") as file:
        place = h5py.h5o.get_info(file["data/demo_2"].id).addr
    data = bytearray(path.read_bytes())
    data[place : place + 4] = b"\0\0\0\0"
    path.write_bytes(bytes(data))
    errors = told(diagnose(path))
    assert errors == {"unreadable_episode": f"{path}:data/demo_2"}


@pytest.mark.parametrize("layout", [robomimic, libero, isaaclab, maniskill])
@pytest.mark.parametrize("lost", ["actions", "obs", "everything"])
def test_a_first_episode_that_lacks_a_part_does_not_make_the_layout_unknown(tmp_path, layout, lost):
    path = layout.write(tmp_path / "four.hdf5", episodes=4)
    with h5py.File(path, "r+") as file:
        above = file.get("data", file)
        first = above[sorted(above)[0]]
        for name in [*first] if lost == "everything" else [lost]:
            del first[name]
        place = f"{path}:{first.name.strip('/')}"
    found = diagnose(path)
    assert [len(dataset) for dataset in found.datasets] == [3]
    assert {(each.rule, each.where) for each in found.unopened} == {("missing_part", place)}


def test_what_has_an_episodes_name_and_is_none_is_told(tmp_path):
    path = maniskill.write(tmp_path / "four.hdf5", episodes=4)
    with h5py.File(path, "r+") as file:
        del file["traj_3"]
        file["traj_3"] = np.zeros(3)
    assert told(diagnose(path)) == {"wrong_form": f"{path}:traj_3"}
