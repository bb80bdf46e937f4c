"""A file of no known layout: what is near, what is in it, and what is wrong, each told once."""

import io

import h5py
import numpy as np
import pytest
from rich.console import Console

from data_tools.cli import main
from data_tools.doctor.report import Report, print_report
from data_tools.errors import Fault, UserError, describe, told_once
from data_tools.finding import Rule
from data_tools.formats.reader import open_dataset


def refusal(path):
    with pytest.raises(UserError) as caught:
        open_dataset(path)
    return str(caught.value)


def inspected(capsys, monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["robot-data", "inspect", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, capsys.readouterr()


@pytest.fixture
def many(tmp_path):
    """100 episodes at the root, with no mark of any layout."""
    path = tmp_path / "many.hdf5"
    with h5py.File(path, "w") as file:
        for number in range(100):
            demo = file.create_group(f"demo_{number}")
            demo["action"] = np.zeros((30, 1), np.float32)
            demo["observation"] = np.zeros((30, 4), np.float32)
            demo.attrs["task"] = "push"
    return path


@pytest.fixture
def renamed(tmp_path):
    """The skeleton of robomimic with none of its names of readings, in 120 episodes."""
    path = tmp_path / "renamed.hdf5"
    with h5py.File(path, "w") as file:
        file.create_group("data").attrs["env_args"] = "{}"
        for number in range(120):
            demo = file.create_group(f"data/demo_{number}")
            demo["actions"] = np.zeros((30, 7))
            demo["obs/ee"] = np.zeros((30, 3))
    return path


def test_a_file_without_any_mark_has_no_nearest_layout(many):
    told = refusal(many)
    assert "nearest" not in told
    assert "in its root: demo_0 (and 99 more to demo_99)" in told
    assert f"`robot-data inspect {many} --draft`" in told


@pytest.mark.parametrize(
    ("places", "attributes", "nearest"),
    [
        (["data/demo_0/actions", "data/demo_0/obs/a"], {}, "robomimic is nearest"),
        (["traj_0/actions"], {}, "maniskill is nearest"),
        (["puppet/joint_position", "observations/rgb_images/top"], {}, "robomind is nearest"),
        (["joint_action/vector"], {}, "robotwin is nearest"),
        (["observation/robot_state/joint_positions"], {}, "droid is nearest"),
        (["q", "u"], {"sim": True}, "aloha is nearest"),
        (["q", "u"], {}, ""),
    ],
)
def test_the_nearest_layout_is_the_one_of_whose_marks_most_are_met(
    tmp_path, places, attributes, nearest
):
    path = tmp_path / "odd.hdf5"
    with h5py.File(path, "w") as file:
        file.attrs.update(attributes)
        for place in places:
            file[place] = np.zeros((4, 2))
    told = refusal(path)
    assert nearest in told
    if nearest:
        assert f"{nearest}: the file " in told
        assert ", but not " in told
    else:
        assert "is nearest" not in told


def test_the_tree_of_what_is_refused_is_shown_with_equal_episodes_told_once(
    many, capsys, monkeypatch
):
    code, said = inspected(capsys, monkeypatch, many)
    assert code == 2
    assert said.out.splitlines() == [
        f"tree of {many}:",
        "  demo_0/ (and 99 more to demo_99), attributes: task",
        "    action  float32[30, 1], 120 bytes",
        "    observation  float32[30, 4], 480 bytes",
    ]
    assert said.err.startswith(f"{many}: found no conventions")


def test_a_program_gets_no_tree_before_its_json(many, capsys, monkeypatch):
    code, said = inspected(capsys, monkeypatch, many, "--json")
    assert (code, said.out) == (2, "")


def test_a_file_that_is_none_has_no_tree(tmp_path, capsys, monkeypatch):
    path = tmp_path / "page.hdf5"
    path.write_text("<html>")
    code, said = inspected(capsys, monkeypatch, path)
    assert (code, said.out) == (2, "")
    assert "a web page" in said.err


def test_what_is_wrong_with_every_episode_is_told_once_with_their_number(renamed):
    with pytest.raises(UserError) as caught:
        open_dataset(renamed)
    assert len(caught.value.faults) == 720
    lines = str(caught.value).splitlines()
    assert len(lines) == 6
    assert all("(120 episodes: data/demo_0, data/demo_1, " in line for line in lines)
    assert all(line.startswith(f"{renamed}:data/demo_0: found the datasets") for line in lines)
    assert "... and" not in lines[-1]


def test_files_with_one_fault_are_told_once(tmp_path):
    for number in range(6):
        with h5py.File(tmp_path / f"episode_{number}.hdf5", "w") as file:
            file["action"] = np.zeros((5, 2))
            file["q"] = np.zeros((5 + number, 2))
    (tmp_path / "conventions.yaml").write_text(
        """
control_hz: 10
cameras: []
state: {names: [a, b], units: [m, m]}
action: {names: [a, b], units: m, references: absolute, low: -.inf, high: .inf}
layout: {episodes: file, root: "", observations: "", actions: action, state: q,
         instruction: {text: go}}
"""
    )
    (line,) = [each for each in refusal(tmp_path).splitlines() if "6 states" in each]
    first, last = tmp_path / "episode_1.hdf5", tmp_path / "episode_5.hdf5"
    assert line.startswith(f"{first}: found 5 actions and 6 states; expected as many of each.")
    assert line.endswith(f"..., {last}; the numbers are those of the first)")
    assert "(5 files: " in line


ALIKE = [
    describe(
        f"a.hdf5:data/demo_{i}, /data/demo_{i}/obs/x_{c}", f"{i + 31} rows", "30 rows", "Trim."
    )
    for i in (0, 3)
    for c in (0, 1)
]


def test_two_cameras_of_one_episode_are_two_faults():
    first, second = told_once(ALIKE)
    assert first == (
        "a.hdf5:data/demo_0, /data/demo_0/obs/x_0: found 31 rows; expected 30 rows. Trim. "
        "(2 episodes: data/demo_0, data/demo_3; the numbers are those of the first)"
    )
    assert "/data/demo_0/obs/x_1" in second


@pytest.mark.parametrize(
    "places",
    [
        ("run.yaml:3, optimizer.lr", "run.yaml:4, optimizer.lr"),
        ("c.yaml, cameras.0.height", "c.yaml, cameras.1.height"),
        ("a.hdf5:data/demo_0, actions", "a.hdf5:data/demo_0, state"),
    ],
)
def test_what_is_no_episode_or_says_something_else_is_told_apart(places):
    faults = [describe(place, "1", "2", "Correct it.") for place in places]
    assert told_once(faults) == faults
    assert all(isinstance(fault, Fault) for fault in told_once(faults))


def test_a_report_of_many_findings_tells_what_they_share_and_hides_none():
    rule = Rule(name="r", severity="error", sentence="s", threshold="whole images", remedy="Do.")
    findings = [
        rule.found(f"a.hdf5:data/demo_{number}", f"{camera} that hangs")
        for camera in ("front", "wrist")
        for number in range(60)
    ]
    console = Console(record=True, width=200, file=io.StringIO())
    print_report(Report(("a.hdf5",), {"episodes": "60"}, tuple(findings)), console)
    text = console.export_text()
    assert text.count("(60 episodes: data/demo_0, ") == 2
    assert "wrist that hangs" in text
    assert "... and" not in text
