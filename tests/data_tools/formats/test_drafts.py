"""robot-data inspect --draft: the sidecar of a file, which opens it when its blanks are filled."""

import re

import h5py
import numpy as np
import pytest
import yaml

from data_tools.cli import main
from data_tools.errors import UserError
from data_tools.formats.drafts.draft import draft_for
from data_tools.formats.reader import open_dataset
from tests.data_tools.fixtures import aloha, isaaclab, maniskill, robomimic, unknown
from tests.data_tools.fixtures.unknown import filled, moves


class Case:
    """A file, what a person keeps of its draft, and what the data then is."""

    def __init__(self, write, kept, episodes, steps, widths, cameras=()):
        self.write, self.kept, self.episodes = write, kept, episodes
        self.steps, self.widths, self.cameras = steps, widths, cameras


CASES = [
    Case(unknown.flat_pairs, (), 12, 20, (5, 3)),
    Case(unknown.dump_of_a_replay_buffer, ("observations_{number}",), 3, 8, (11, 3)),
    Case(unknown.tree_by_kind, (), 4, 9, (7, 7), ("image",)),
    Case(unknown.rows_with_their_episode, ("robot_state",), 3, 10, (7, 6)),
    Case(unknown.rows_with_their_ends, (), 3, 13, (2, 2), ("img",)),
    Case(unknown.rows_with_lengths, ("ep_len",), 3, 10, (4, 2), ("pixels",)),
    Case(unknown.rows_with_lengths, ("ep_offset",), 3, 10, (4, 2), ("pixels",)),
    Case(unknown.rows_with_marks, (), 3, 10, (4, 2)),
    Case(unknown.names_with_points, (), 3, 10, (6, 6), ("observation.image.left",)),
    Case(
        unknown.two_arms,
        [f"{kind}/robot_{arm}" for kind in ("qaction", "observations/qpos") for arm in (1, 2)],
        *(2, 10, (14, 14), ("sensor_1", "sensor_2")),
    ),
    Case(
        unknown.groups_named_by_time, ("ee_pose", "gripper", "cmd_vel"), 3, 11, (8, 6), ("front",)
    ),
    Case(unknown.one_observation_more, ("data/ctrl",), 4, 9, (9, 8), ("left",)),
    Case(unknown.many_at_the_root, (), 20, 30, (4, 1)),
    Case(unknown.renamed_robomimic, (), 5, 12, (3, 7), ("cam",)),
]


@pytest.fixture
def draft(monkeypatch, capsys):
    """Runs `robot-data inspect PLACE --draft`; gives exit code, stdout and stderr."""

    def run(*places):
        monkeypatch.setattr("sys.argv", ["robot-data", "inspect", *map(str, places), "--draft"])
        try:
            main()
        except SystemExit as ended:
            return ended.code or 0, *capsys.readouterr()
        return 0, *capsys.readouterr()

    return run


def written(case, tmp_path):
    """The data of a case, and where its sidecar belongs."""
    if case.write in (unknown.names_with_points, unknown.two_arms):
        case.write(tmp_path)
        return tmp_path, tmp_path / "conventions.yaml"
    case.write(tmp_path / "data.h5")
    return tmp_path / "data.h5", tmp_path / "data.h5.conventions.yaml"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.write.__name__)
def test_a_filled_draft_opens_what_nobody_knows(case, draft, tmp_path):
    place, sidecar = written(case, tmp_path)
    code, out, err = draft(place)
    assert (code, sidecar.read_text()) == (0, out), err
    assert err.startswith(f"wrote {sidecar}: fill in ")
    sidecar.write_text(filled(out, case.kept))
    dataset = open_dataset(place)
    assert dataset.inspected.undeclared == ()
    assert [w for w in dataset.inspected.warnings if w.severity == "error"] == []
    assert (len(dataset), dataset[0].num_steps) == (case.episodes, case.steps)
    assert (dataset[0].state().shape[1], dataset[0].actions().shape[1]) == case.widths
    assert dataset.conventions.camera_names == case.cameras
    assert dataset[0].instruction == "tidy the table"
    for camera in case.cameras:
        last = dataset[len(dataset) - 1]
        assert last.image(camera, last.num_steps - 1).shape == (24, 32, 3)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.write.__name__)
def test_a_draft_with_a_blank_is_refused_and_each_blank_named(case, draft, tmp_path):
    place, sidecar = written(case, tmp_path)
    _, out, _ = draft(place)
    with pytest.raises(UserError) as caught:
        open_dataset(place)
    blanks = draft_blanks(out)
    assert len(caught.value.faults) == len(blanks)
    first = caught.value.faults[0]
    assert first == (
        f"{sidecar}, control_hz: found the blank <control steps a second>; expected a value. "
        "Fill it in."
    )


def draft_blanks(text):
    def walk(value):
        if isinstance(value, dict):
            return [each for inner in value.values() for each in walk(inner)]
        if isinstance(value, list):
            return [each for inner in value for each in walk(inner)]
        return [value] if isinstance(value, str) and value.startswith("<") else []

    return walk(yaml.safe_load(text))


def test_nothing_is_guessed_where_names_tell_nothing(draft, tmp_path):
    unknown.names_that_tell_nothing(tmp_path / "data.h5")
    _, out, _ = draft(tmp_path / "data.h5")
    layout = yaml.safe_load(out)["layout"]
    offered = [{"dataset": f"<{name}>", "units": "<unit>"} for name in "abc"]
    assert (layout["actions"], layout["state"]) == (offered, offered)
    assert layout["episodes"] == "file"


def test_groups_of_two_names_that_hold_the_same_are_episodes(draft, tmp_path):
    with h5py.File(tmp_path / "data.h5", "w") as file:
        for name in ("demo", "failed"):
            for number in range(5):
                file[f"{name}_{number}/action"] = moves(10 + number, 2)
                file[f"{name}_{number}/q"] = moves(10 + number, 3)
        file["notes/camera_matrix"] = np.eye(3)
    _, out, _ = draft(tmp_path / "data.h5")
    layout = yaml.safe_load(out)["layout"]
    assert (layout["episodes"], layout["episode_names"]) == ("groups", r"demo_\d+|failed_\d+")
    (tmp_path / "data.h5.conventions.yaml").write_text(filled(out))
    assert len(open_dataset(tmp_path / "data.h5")) == 10


def test_names_that_yaml_would_misread_are_quoted(draft, tmp_path):
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["a{ct}ion, #1"], file["it's: q"] = moves(10, 2), moves(10, 3)
        file.attrs["note: #"] = "two\nlines: {x}"
    _, out, _ = draft(tmp_path / "data.h5")
    assert "  # or {attribute: 'note: #'}  # there: 'two\\nlines: {x}'" in out
    said = yaml.safe_load(out)["layout"]
    assert [each["dataset"] for each in said["state"]] == ["<a{ct}ion, #1>", "<it's: q>"]


def test_a_fact_that_lies_in_the_file_is_offered_and_not_taken(draft, tmp_path):
    unknown.names_with_points(tmp_path)
    _, out, _ = draft(tmp_path)
    assert "  # or {attribute: task}  # there: 'open the drawer'" in out
    assert "  # rate: {attribute: fps}  # there: 20" in out
    assert "  # times: {dataset: t_ns, unit_s: <seconds in one unit>}" in out
    sidecar = tmp_path / "conventions.yaml"
    text = filled(out).replace("{text: tidy the table}", "{attribute: task}")
    sidecar.write_text(text.replace("control_hz: 20\n", "").replace("# rate", "rate"))
    dataset = open_dataset(tmp_path)
    assert (dataset[0].instruction, dataset.conventions.control_hz) == ("open the drawer", 20)


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (
            unknown.steps_in_groups,
            r"a group a step, step_0000 \(and 19 more.*Stack the steps first",
        ),
        (unknown.groups_of_episodes, r"groups in groups, traj_0 \(and 2 more.*one file a group"),
        (unknown.stacked, r"stacks of episodes, actions \[20, 50, 7\], .*a group of its own"),
        (lambda file: file.create_group("empty"), r"found no dataset; .*Record something first"),
    ],
    ids=["steps", "groups of groups", "stacks", "nothing"],
)
def test_what_no_sidecar_can_declare_is_said_and_nothing_written(write, told, draft, tmp_path):
    with h5py.File(tmp_path / "data.h5", "w") as file:
        write(file)
    code, out, err = draft(tmp_path / "data.h5")
    assert (code, out) == (2, "")
    assert re.search(told, err)
    assert [path.name for path in tmp_path.iterdir()] == ["data.h5"]


KNOWN = {
    "robomimic": lambda folder: robomimic.write(folder / "lift.hdf5", 2, 12),
    "aloha": lambda folder: aloha.write(folder / "aloha", 2, 12) and folder / "aloha",
    "isaaclab_wxyz": lambda folder: isaaclab.write(folder / "stack.hdf5", 2, 12),
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_draft_of_a_known_layout_is_what_is_to_be_declared(name, draft, tmp_path):
    place = KNOWN[name](tmp_path)
    before = open_dataset(place, allow_undeclared=True)
    asked = before.inspected.undeclared
    _, out, _ = draft(place)
    said = yaml.safe_load(out)
    layout = said.pop("layout")
    assert name in (layout, layout["preset"] if isinstance(layout, dict) else "")
    places = {f"{part}.{key}" for part in ("state", "action") for key in said.pop(part, {})}
    places |= {f"cameras.*.{key}" for key in said.pop("cameras", [{}])[0] if key != "name"}
    places |= {*said} | ({"layout.instruction"} if isinstance(layout, dict) else set())
    assert all(f"{place}: " in asked[0] for place in places)
    assert asked[0].split("nothing that tells ")[1].split("; expected")[0].count(": ") >= len(
        places
    )
    sidecar = draft_for_place(place)
    text = filled(out)
    for part, width in (("state", before.conventions.state), ("action", before.conventions.action)):
        text = re.sub(rf"({part}:\n(?:  .*\n)*?  names: )\[\]", rf"\1{list(width.names)}", text)
    sidecar.write_text(text)
    assert open_dataset(place).inspected.undeclared == ()


def draft_for_place(place):
    return (
        place / "conventions.yaml"
        if place.is_dir()
        else place.with_name(f"{place.name}.conventions.yaml")
    )


def test_where_all_is_declared_there_is_nothing_to_draft(draft, demos):
    assert draft(demos) == (0, "", "nothing to draft: nothing is to be declared\n")
    assert not demos.with_name(f"{demos.name}.conventions.yaml").exists()


def test_a_sidecar_that_is_there_is_not_written_over(draft, tmp_path):
    path = robomimic.write(tmp_path / "lift.hdf5", 2, 12)
    sidecar = tmp_path / "lift.hdf5.conventions.yaml"
    sidecar.write_text("control_hz: 20\n")
    code, _, err = draft(path)
    assert (code, sidecar.read_text()) == (2, "control_hz: 20\n")
    assert "expected no sidecar yet, for a draft writes over nothing" in err


def test_the_sidecar_of_a_lerobot_folder_is_not_written_over(draft, tmp_path):
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/info.json").write_text('{"codebase_version": "v3.0"}')
    (tmp_path / "conventions.yaml").write_text("control_hz: 20\n")
    code, _, err = draft(tmp_path)
    assert code == 2
    assert "conventions.yaml: found something that exists already; expected no sidecar yet" in err


def test_an_empty_file_that_a_shell_made_for_the_draft_is_none(draft, tmp_path):
    unknown.flat_pairs(tmp_path / "data.h5")
    sidecar = tmp_path / "data.h5.conventions.yaml"
    sidecar.touch()
    code, out, _ = draft(tmp_path / "data.h5")
    assert (code, sidecar.read_text()) == (0, out)


def test_a_mistake_in_a_sidecar_is_not_hidden_by_a_draft(draft, tmp_path):
    (tmp_path / "takes").mkdir()
    unknown.flat_pairs(tmp_path / "takes" / "data.h5")
    (tmp_path / "takes" / "conventions.yaml").write_text("contro_hz: 20\n")
    code, _, err = draft(tmp_path / "takes" / "data.h5")
    assert code == 2
    assert "contro_hz" in err


def test_a_recording_without_observations_gets_its_remedy_and_no_draft(draft, tmp_path):
    path = tmp_path / "traj.h5"
    maniskill.write_unrendered(path)
    code, out, err = draft(path)
    assert (code, out) == (2, "")
    assert "replay_trajectory" in err


def test_a_draft_is_of_one_kind_of_files(tmp_path):
    robomimic.write(tmp_path / "a.hdf5", 2, 12)
    isaaclab.write(tmp_path / "b.hdf5", 2, 12)
    with pytest.raises(UserError, match=r"b\.hdf5, "):
        draft_for([str(tmp_path)])


def test_files_that_a_draft_does_not_fit_are_told_with_what_they_have(draft, tmp_path):
    unknown.names_with_points(tmp_path)
    with h5py.File(tmp_path / "take_2.hdf5", "r+") as file:
        file["observation.image.right"] = file.pop("observation.image.left")
    code, _, err = draft(tmp_path)
    assert code == 0
    assert err.splitlines()[1] == (
        "it does not fit all: 1 of 3 files are not like take_0.hdf5, the first "
        f"{tmp_path / 'take_2.hdf5'}: it has ['observation.image.right'] and lacks "
        "['observation.image.left']"
    )


def test_a_draft_speaks_for_the_data_and_not_for_a_part_of_it(monkeypatch, capsys, tmp_path):
    unknown.flat_pairs(tmp_path / "data.h5")
    arguments = ["robot-data", "inspect", str(tmp_path / "data.h5"), "--draft"]
    for more in (["--json"], ["--mask", "train"]):
        monkeypatch.setattr("sys.argv", [*arguments, *more])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        assert f"{more[0]}: found it beside --draft" in capsys.readouterr().err
