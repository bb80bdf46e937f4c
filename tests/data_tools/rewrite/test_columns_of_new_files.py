"""Columns go along into new files, keep-files and LeRobot folders, or are told to be lost."""

import json

import h5py
import numpy as np
import pytest

from data_tools.columns import column_faults, fingerprint_with
from data_tools.errors import UserError
from data_tools.formats.keep_files import keep_steps, read_keep
from data_tools.formats.lerobot import LeRobotOptions, write_lerobot
from data_tools.formats.reader import open_dataset
from data_tools.rewrite.convert import convert
from data_tools.rewrite.edited import Edit, EditedDataset, all_with
from data_tools.rewrite.merge import merge
from data_tools.rewrite.repack import repack
from tests.data_tools.column_cases import LENGTHS, WEIGHTS, declare, rising, weights_of


def test_a_keep_file_weighs_episodes_and_steps(columned, tmp_path):
    path = columned(weight=WEIGHTS)
    dataset = open_dataset(path)
    kept = [np.arange(length) != 0 for length in LENGTHS]
    given = [0.5, np.array([0, 1, 2, 3.0]), 2.0]
    file = tmp_path / "keep.json"
    file.write_text(keep_steps(dataset, kept, "by hand", given).model_dump_json())
    opened = open_dataset(path, keep=file)
    assert weights_of(opened) == [[0.5] * 6, [0.0, 1.0, 2.0, 3.0], [2.0] * 5]
    assert [len(opened[index].starts()) for index in range(3)] == [5, 3, 4]
    assert fingerprint_with(opened, ["weight"]) != opened.fingerprint


def test_a_keep_file_without_weights_leaves_them_to_the_data(columned, tmp_path):
    path = columned(weight=WEIGHTS)
    dataset = open_dataset(path)
    file = tmp_path / "keep.json"
    every = [np.ones(length, dtype=bool) for length in LENGTHS]
    file.write_text(keep_steps(dataset, every, "all").model_dump_json())
    assert weights_of(open_dataset(path, keep=file)) == WEIGHTS


def test_weights_go_with_their_episodes_when_the_file_gets_another_name(columned, tmp_path):
    path = columned()
    every = [np.ones(length, dtype=bool) for length in LENGTHS]
    keep = keep_steps(open_dataset(path), every, "all", [1.0, 2.0, 3.0])
    (tmp_path / "keep.json").write_text(keep.model_dump_json())
    moved = path.rename(tmp_path / "moved.hdf5")
    opened = open_dataset(moved, keep=tmp_path / "keep.json")
    assert [each[0] for each in weights_of(opened)] == [1.0, 2.0, 3.0]


def test_an_episode_that_a_keep_file_does_not_weigh_counts_1(columned, tmp_path):
    path = columned()
    every = [np.ones(length, dtype=bool) for length in LENGTHS]
    said = json.loads(keep_steps(open_dataset(path), every, "all").model_dump_json())
    said["weights"] = {"push.hdf5:data/demo_1": 3}
    (tmp_path / "keep.json").write_text(json.dumps(said))
    opened = open_dataset(path, keep=tmp_path / "keep.json")
    assert [each[0] for each in weights_of(opened)] == [1.0, 3.0, 1.0]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"push.hdf5:data/demo_9": 1}, "demo_9: found the episode .*one of the 3 episodes"),
        ({"push.hdf5:data/demo_1": [1, 2]}, "demo_1: found 2 rows; expected 4, one a step"),
        ({"push.hdf5:data/demo_1": -1}, "demo_1, step 0: found -1.0 .4 such steps.; expected wei"),
        ({"push.hdf5:data/demo_1": [1, "NaN", 1, 1]}, "demo_1, step 1: found nan"),
        ({"push.hdf5:data/demo_1": True}, r"weights\.push\.hdf5:data/demo_1.*a number"),
        ({"push.hdf5:data/demo_1": 1e300}, "demo_1, step 0: found inf"),
    ],
)
def test_weights_of_a_keep_file_that_fit_no_episode_are_refused(
    columned, tmp_path, weights, message
):
    path = columned()
    every = [np.ones(length, dtype=bool) for length in LENGTHS]
    said = json.loads(keep_steps(open_dataset(path), every, "all").model_dump_json())
    (tmp_path / "keep.json").write_text(json.dumps({**said, "weights": weights}))
    with pytest.raises(UserError, match=message):
        open_dataset(path, keep=tmp_path / "keep.json")


def test_a_keep_file_says_of_weights_only_where_there_are_some(columned):
    every = [np.ones(length, dtype=bool) for length in LENGTHS]
    dataset = open_dataset(columned())
    assert keep_steps(dataset, every, "all").weights == {}


def test_a_keep_file_reads_as_it_was_written(columned, tmp_path):
    every = [np.ones(length, dtype=bool) for length in LENGTHS]
    keep = keep_steps(open_dataset(columned()), every, "all", [1, rising(4), 2.5])
    (tmp_path / "keep.json").write_text(keep.model_dump_json())
    assert read_keep(tmp_path / "keep.json") == keep


@pytest.mark.parametrize("to", ["native", "lerobot-v2.1", "lerobot-v3"])
def test_formats_with_room_for_columns_keep_them(columned, tmp_path, to):
    pairs = [np.arange(2 * length).reshape(length, 2).astype(np.float32) for length in LENGTHS]
    dataset = open_dataset(columned(weight=WEIGHTS, phase=pairs))
    images = "png" if to.startswith("lerobot") else "video"
    made = convert(dataset, tmp_path / "new.hdf5", to, images=images)
    again = open_dataset(made)
    assert sorted(again.columns) == ["phase", "weight"]
    assert weights_of(again) == WEIGHTS
    assert weights_of(again, "phase") == [each.tolist() for each in pairs]


@pytest.mark.parametrize("to", ["robomimic", "minari"])
def test_a_format_without_room_for_columns_is_told(robot_data, columned, tmp_path, to):
    code, told, _ = robot_data(
        "convert", columned(weight=WEIGHTS), tmp_path / "new.hdf5", "--to", to
    )
    assert code == 0
    assert f"without the columns weight, which {to} cannot hold" in told


def test_columns_follow_the_rows_that_an_edit_keeps(columned, tmp_path):
    dataset = open_dataset(columned(weight=WEIGHTS))
    edit = Edit(rows=np.array([1, 3]))
    edited = EditedDataset(dataset, all_with(dataset, edit), dataset.conventions)
    expected = [[weights[1], weights[3]] for weights in WEIGHTS]
    assert weights_of(edited) == expected
    assert weights_of(open_dataset(convert(edited, tmp_path / "new.hdf5", "native"))) == expected


def test_lerobot_writes_columns_that_every_episode_has_alike(columned, tmp_path):
    path = columned(weight=WEIGHTS)
    with h5py.File(path, "r+") as file:
        del file["data/demo_1/columns/weight"]
    with pytest.raises(UserError, match=r"demo_1: found the columns .*'weight' too"):
        convert(open_dataset(path), tmp_path / "new", "lerobot-v3", images="png")
    assert not (tmp_path / "new").exists()


def test_repacked_and_merged_files_keep_columns(columned, tmp_path):
    first, second = (
        columned("a.hdf5", weight=WEIGHTS),
        columned("b.hdf5", weight=WEIGHTS[:3]),
    )
    repack(first, tmp_path / "repacked.hdf5")
    assert weights_of(open_dataset(tmp_path / "repacked.hdf5")) == WEIGHTS
    both = merge(open_dataset([first, second]), tmp_path / "both.hdf5")
    assert weights_of(open_dataset(both)) == [*WEIGHTS, *WEIGHTS]


def test_a_repair_that_gives_episodes_other_names_does_not_exchange_their_numbers(
    robot_data, bare, tmp_path
):
    """demo_0, demo_1, demo_5 become demo_0, demo_1, demo_2, of which the sidecar says otherwise."""
    with h5py.File(bare, "r+") as file:
        file.move("data/demo_2", "data/demo_5")
    said = "{weight: {episodes: {demo_0: 1, demo_1: 2, demo_2: 7, demo_5: 3}}}"
    assert [each[0] for each in weights_of(open_dataset(declare(bare, said)))] == [1.0, 2.0, 3.0]
    code, _, told = robot_data("validate", bare, "--fix", tmp_path / "fixed.hdf5")
    assert code == 2
    assert "demo_5: found a copy that is not read as this episode is" in told
    assert not (tmp_path / "fixed.hdf5").exists()


def test_a_merge_refuses_numbers_by_names_that_it_would_change(bare, tmp_path):
    other = tmp_path / "other.hdf5"
    other.write_bytes(bare.read_bytes())
    said = "{weight: {episodes: {demo_0: 1, demo_1: 2, demo_2: 3}}}"
    dataset = open_dataset([declare(bare, said), declare(other, said)])
    with pytest.raises(
        UserError, match=r"demo_3, column 'weight'.*Add it to layout.columns.weight"
    ):
        merge(dataset, tmp_path / "both.hdf5")
    assert not (tmp_path / "both.hdf5").exists()


@pytest.fixture
def folder(columned, tmp_path):
    source = open_dataset(columned(weight=WEIGHTS))
    episodes = (source[index] for index in range(3))
    made = write_lerobot(
        tmp_path / "lerobot",
        source.conventions,
        episodes,
        LeRobotOptions(images="png"),
        {"weight": 1},
    )
    (made / "conventions.yaml").write_text(source.conventions.model_dump_json())
    return made


def in_folder(folder, declared):
    path = folder / "conventions.yaml"
    text = path.read_text().removeprefix("{")
    path.write_text('{"layout": {"columns": ' + declared + "}, " + text)
    return folder


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("{weight: weight}", WEIGHTS),
        ("{weight: 0.5}", [[0.5] * length for length in LENGTHS]),
        ('{weight: {episodes: {"0": 1, "1": 2, "2": 3}}}', [[1.0] * 6, [2.0] * 4, [3.0] * 5]),
        ("{weight: {attribute: seed}}", [[0.0] * 6, [1.0] * 4, [2.0] * 5]),
    ],
)
def test_the_sidecar_of_a_lerobot_folder_says_where_a_column_is(folder, declared, expected):
    assert open_dataset(folder).columns == ()
    dataset = open_dataset(in_folder(folder, declared))
    assert dataset.columns == dataset[0].columns == ("weight",)
    assert weights_of(dataset) == expected


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("{weight: wieght}", "found the feature 'wieght'.*did you mean 'weight'"),
        ("{weight: {file: x.json}}", "expected a feature, a number, or a mapping with one of"),
        ("{'*': observation/*}", r"found \*.*expected a feature, a number"),
        ("{weight: [1]}", "layout.columns.weight: found"),
    ],
)
def test_a_declaration_that_fits_no_lerobot_folder_is_refused(folder, declared, message):
    with pytest.raises(UserError, match=message):
        open_dataset(in_folder(folder, declared))


def test_an_episode_of_a_folder_without_its_number_is_told(folder):
    dataset = open_dataset(in_folder(folder, '{weight: {episodes: {"0": 1}}}'))
    faults = column_faults(dataset, ("weight",))
    assert "episode_1, column 'weight': found None (OfEpisodes); expected a number" in faults[0]
    assert len(faults) == 2
