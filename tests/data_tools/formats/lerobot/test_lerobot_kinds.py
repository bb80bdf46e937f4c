"""Folders as other projects' converters write them: versions, and what they leave out."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_tools.doctor.examination import validate
from data_tools.errors import UserError
from data_tools.formats.lerobot import is_lerobot, open_lerobot
from data_tools.formats.reader import open_dataset
from tests.data_tools.formats.lerobot.changes import (
    change_features,
    change_info,
    change_tables,
    read_info,
    sidecar,
    write_lines,
)

FRONT = "observation.images.front"
LENGTHS = [7, 5, 9]


@pytest.fixture
def groot_folder(make_folder):
    """A v2.0 folder as GR00T's converters write it, with what is in no LeRobot of v2.1.

    A camera of which no file was kept, video_info for info, float64 for numbers and times, no
    frame_index, shapes without names, and an index of tasks that lists annotations, too.
    """
    folder = make_folder("v2.1", "video")

    def change(table):
        names = table.column_names
        table = table.set_column(
            names.index("timestamp"), "timestamp", table["timestamp"].cast(pa.float64())
        )
        state = table["observation.state"].cast(pa.list_(pa.float64(), 3))
        table = table.set_column(names.index("observation.state"), "observation.state", state)
        table = table.append_column("annotation.human.validity", pa.array([2] * len(table)))
        table = table.append_column("next.done", pa.array([False] * len(table)))
        return table.drop_columns(["frame_index"])

    change_tables(folder, change)
    features = read_info(folder)["features"]
    del features["frame_index"]
    features[FRONT]["video_info"] = {"video.fps": 10.0, "video.codec": "h264"}
    features["observation.images.egoview"] = features[FRONT] | {"shape": [800, 1280, 3]}
    features["observation.state"] |= {"dtype": "float64"}
    features["annotation.human.validity"] = {"dtype": "int64", "shape": [1]}
    features["next.done"] = {"dtype": "bool", "shape": [1]}
    features["task_index"] = {"dtype": "int64", "shape": [1]}
    change_info(folder, codebase_version="v2.0", fps=10.0, features=features, total_videos=2)
    tasks = ["task 0", "task 1", "valid"]
    write_lines(folder, "tasks", [{"task_index": i, "task": t} for i, t in enumerate(tasks)])
    episodes = [
        {"episode_index": i, "tasks": [tasks[i % 2], "valid"], "length": length}
        for i, length in enumerate(LENGTHS)
    ]
    write_lines(folder, "episodes", episodes)
    return folder


def test_a_folder_of_v20_opens_with_one_word_about_the_camera_it_lacks(
    groot_folder, true_frame, true_numbers
):
    with pytest.raises(UserError) as caught:
        open_lerobot(groot_folder)
    (fault,) = caught.value.faults
    assert "for 3 of 3 episodes" in fault
    line = "layout: {images: {front: observation.images.front}}"
    assert f"`{line}`" in fault
    (groot_folder / "conventions.yaml").write_text(line + "\n")
    dataset = open_lerobot(groot_folder)
    assert dataset.inspected.layouts == ("lerobot_v2.0",)
    assert [dataset[i].instruction for i in range(3)] == ["task 0", "task 1", "task 0"]
    for episode, length in enumerate(LENGTHS):
        state, actions = true_numbers(episode)
        np.testing.assert_array_equal(dataset[episode].state(), state)
        np.testing.assert_array_equal(dataset[episode].actions(), actions)
        for step in range(length):
            error = dataset[episode].image("front", step).astype(int) - true_frame(episode, step)
            assert np.abs(error).mean() < 4
    rules = {finding.rule for finding in validate(dataset)}
    assert not rules & {"wrong_clock", "frame_count", "undecodable_frame", "camera_not_read"}


def test_the_sentence_may_be_numbered_by_another_column(groot_folder):
    sidecar(groot_folder, layout={"images": {"front": FRONT}, "task": "annotation.human.validity"})
    dataset = open_lerobot(groot_folder)
    assert {dataset[i].instruction for i in range(3)} == {"valid"}
    sidecar(groot_folder, layout={"images": {"front": FRONT}, "task": "annotation.validity"})
    with pytest.raises(UserError, match=r"did you mean 'annotation\.human\.validity'"):
        open_lerobot(groot_folder)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_videos_of_cameras_that_are_not_read_need_not_be_there(make_folder, version):
    folder = make_folder(version, "video")
    features = read_info(folder)["features"]
    features["observation.images.wrist"] = features[FRONT]
    change_info(folder, features=features)
    sidecar(folder, layout={"images": {"front": FRONT}})
    dataset = open_lerobot(folder)
    assert dataset.conventions.camera_names == ("front",)
    assert dataset.inspected.warnings == ()


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize("column", ["frame_index", "episode_index", "index", "timestamp"])
def test_columns_that_the_order_of_rows_tells_need_not_be_there(
    make_folder, true_frame, version, column
):
    folder = make_folder(version, "video")
    change_tables(folder, lambda table: table.drop_columns([column]))
    change_features(folder, **{column: None})
    dataset = open_lerobot(folder)
    for episode, length in enumerate(LENGTHS):
        np.testing.assert_allclose(dataset[episode].times(), np.arange(length) / 10, atol=1e-6)
        for step in range(length):
            error = dataset[episode].image("front", step).astype(int) - true_frame(episode, step)
            assert np.abs(error).mean() < 4


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_tasks_are_known_from_the_index_or_from_the_rows(make_folder, version):
    folder = make_folder(version)
    name = "tasks.jsonl" if version == "v2.1" else "tasks.parquet"
    listed = (folder / "meta" / name).read_bytes()
    (folder / "meta" / name).unlink()
    assert [open_lerobot(folder)[i].instruction for i in range(3)] == ["task 0", "task 1", "task 0"]
    change_tables(folder, lambda table: table.drop_columns(["task_index"]))
    assert [open_lerobot(folder)[i].instruction for i in range(3)] == ["task 0", "task 1", "task 0"]
    (folder / "meta" / name).write_bytes(listed)
    assert open_lerobot(folder)[1].observation(2, ()).instruction == "task 1"


def test_without_any_task_the_sidecar_says_the_sentence(make_folder):
    folder = make_folder("v2.1")
    write_lines(
        folder, "episodes", [{"episode_index": i, "length": n} for i, n in enumerate(LENGTHS)]
    )
    assert [open_lerobot(folder)[i].instruction for i in range(3)] == ["task 0", "task 1", "task 0"]
    rows = [{"episode_index": i, "length": n, "tasks": "task 1"} for i, n in enumerate(LENGTHS)]
    (folder / "meta/tasks.jsonl").unlink()
    change_tables(folder, lambda table: table.drop_columns(["task_index"]))
    write_lines(folder, "episodes", rows)
    assert open_lerobot(folder)[0].instruction == "task 1"
    write_lines(folder, "episodes", [{**row, "tasks": []} for row in rows])
    with pytest.raises(UserError, match="a list of texts"):
        open_lerobot(folder)
    for row in rows:
        del row["tasks"]
    write_lines(folder, "episodes", rows)
    with pytest.raises(UserError, match=r"layout: \{instruction: \{text: \.\.\.\}\}"):
        open_lerobot(folder)
    sidecar(folder, layout={"instruction": {"text": "push the block"}})
    assert open_lerobot(folder)[1].observation(2, ()).instruction == "push the block"


@pytest.mark.parametrize("key", ["total_episodes", "total_frames", "chunks_size", "robot_type"])
@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_what_info_json_counts_or_repeats_need_not_be_there(make_folder, version, key):
    folder = make_folder(version, "video")
    change_info(folder, **{key: "absent"})
    assert open_lerobot(folder)[2].actions().shape == (9, 2)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_files_lie_where_lerobot_puts_them_when_nobody_says_where(make_folder, version):
    folder = make_folder(version, "video")
    change_info(folder, data_path="absent", video_path=None)
    assert open_lerobot(folder)[2].image("front", 8).shape == (48, 64, 3)


def test_some_episodes_of_a_v2_folder_are_read_without_the_others(make_folder, true_frame):
    folder = make_folder("v2.1", "video")
    lines = (folder / "meta/episodes.jsonl").read_text().splitlines()
    for path in [*(folder / "videos").rglob("episode_00000[01].*")]:
        path.unlink()
    with pytest.raises(UserError, match=r"for 2 of 3 .*take these out of meta/episodes"):
        open_lerobot(folder)
    (folder / "meta/episodes.jsonl").write_text(lines[2] + "\n")
    with pytest.raises(UserError, match=r"found 1; expected 3 .*Correct the one that is wrong"):
        open_lerobot(folder)
    change_info(folder, total_episodes=1, total_frames=9)
    dataset = open_lerobot(folder)
    assert (len(dataset), dataset[0].name[-9:]) == (1, "episode_2")
    error = dataset[0].image("front", 4).astype(int) - true_frame(2, 4)
    assert np.abs(error).mean() < 4


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_a_folder_is_read_without_any_camera(make_folder, version):
    folder = make_folder(version, "video")
    shutil.rmtree(folder / "videos")
    with pytest.raises(UserError, match=r"write `layout: \{images: \{\}\}` into conventions"):
        open_lerobot(folder)
    (folder / "conventions.yaml").write_text("layout: {images: {}}\n")
    dataset = open_lerobot(folder)
    assert dataset.conventions.camera_names == ()
    assert dataset[2].actions().shape == (9, 2)


def test_a_length_that_the_rows_contradict_can_be_corrected_in_the_index(make_folder):
    folder = make_folder("v2.1")
    path = folder / "data/chunk-000/episode_000001.parquet"
    pq.write_table(pq.read_table(path).slice(0, 4), path)
    with pytest.raises(UserError, match=r"found 4 rows; expected 5.*correct the lengths in its"):
        open_lerobot(folder)
    rows = [json.loads(line) for line in (folder / "meta/episodes.jsonl").read_text().splitlines()]
    rows[1]["length"] = 4
    write_lines(folder, "episodes", rows)
    change_info(folder, total_frames=20)
    assert open_lerobot(folder)[1].num_steps == 4


def test_another_place_of_the_videos_can_be_written_into_info_json(make_folder):
    folder = make_folder("v3.0", "video")
    (folder / "videos").rename(folder / "video")
    with pytest.raises(UserError, match=r"correct info\.json: video_path"):
        open_lerobot(folder)
    path = "video/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    change_info(folder, video_path=path)
    assert open_lerobot(folder)[2].image("front", 8).shape == (48, 64, 3)


def test_ends_of_videos_need_not_be_there_or_right(make_folder, true_frame):
    """Some converters write the time of the last frame, one step before the next episode."""
    folder = make_folder("v3.0", "video")
    path = folder / "meta/episodes/chunk-000/file-000.parquet"
    rows = pq.read_table(path).to_pylist()
    for end in (-0.1, None):
        for row in rows:
            key = f"videos/{FRONT}/to_timestamp"
            row[key] = None if end is None else row[key] + end
        pq.write_table(pa.Table.from_pylist(rows), path)
        frame = open_lerobot(folder)[2].image("front", 8).astype(int)
        assert np.abs(frame - true_frame(2, 8)).mean() < 4


def test_all_faults_of_a_folder_are_told_at_once(make_folder):
    folder = make_folder("v2.1", "video")
    (folder / "meta/tasks.jsonl").write_text("{}\n")
    write_lines(folder, "episodes", [{"episode_index": 0, "tasks": ["task 0"], "length": "7"}])
    sidecar(folder, layout={"state": ["stat"], "clock": "sun"}, action={"references": "sideways"})
    with pytest.raises(UserError) as caught:
        open_lerobot(folder)
    text = str(caught.value)
    assert "layout.clock" in text
    assert "task_index" in text
    assert "length '7'" in text
    sidecar(folder, layout={"state": ["stat"]})
    with pytest.raises(UserError) as caught:
        open_lerobot(folder)
    assert "the feature 'stat'" in str(caught.value)
    assert "length '7'" in str(caught.value)


def test_faults_of_many_files_are_told_once_with_a_count(make_folder):
    folder = make_folder("v2.1", "video")
    change_tables(folder, lambda table: table.drop_columns(["action"]))
    for path in (folder / "videos").rglob("*.mp4"):
        path.unlink()
    with pytest.raises(UserError) as caught:
        open_lerobot(folder)
    columns, videos = caught.value.faults
    assert "episode_000000.parquet and 2 more files: found the columns" in columns
    assert "for 3 of 3 episodes" in videos
    change_info(folder, fps=0, codebase_version="v9")
    with pytest.raises(UserError) as caught:
        open_lerobot(folder)
    assert len(caught.value.faults) == 2


FOREIGN = {"dataset_name": "painting", "total_episodes": 6, "files": {"mcap": "data/{id}.mcap"}}


def test_an_info_json_of_another_kind_is_no_lerobot_folder(make_folder, demos, tmp_path):
    folder = tmp_path / "foreign"
    (folder / "meta").mkdir(parents=True)
    (folder / "meta/info.json").write_text(json.dumps(FOREIGN))
    assert not is_lerobot(folder)
    with pytest.raises(
        UserError, match=r"HDF5 files .*, or a folder with LeRobot's meta/info\.json"
    ) as caught:
        open_dataset(folder)
    assert "lerobot." not in str(caught.value)
    shutil.copy(demos, folder / "demos.hdf5")
    assert len(open_dataset(folder)) == len(open_dataset(demos))


@pytest.mark.parametrize("content", [{"features": {}, "fps": 10}, {"codebase_version": "v2.1"}])
def test_an_info_json_that_lacks_something_is_still_a_lerobot_folders(make_folder, content):
    folder = make_folder()
    (folder / "meta/info.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"info\.json.*(no version|no value)"):
        open_dataset(folder)


def test_a_folder_with_a_foreign_info_and_no_data_says_that_it_is_there(tmp_path):
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/info.json").write_text('{"dataset_name": "painting"}')
    with pytest.raises(UserError, match=r"a meta/info.json that names no version.*Convert it"):
        open_dataset(tmp_path)
