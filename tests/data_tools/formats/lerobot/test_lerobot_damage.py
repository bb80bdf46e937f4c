"""Damage to LeRobot folders that libraries below us answer with errors of their own."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_tools.errors import UserError
from data_tools.formats.lerobot import meta_files, open_lerobot, parquet_files
from tests.data_tools.formats.lerobot.conftest import LENGTHS


def data_file(folder):
    return sorted((folder / "data").rglob("*.parquet"))[0]


def everything(folder):
    dataset = open_lerobot(folder)
    for index in range(len(dataset)):
        dataset[index].actions()
        for step in range(dataset[index].num_steps):
            dataset[index].image("front", step)


@pytest.mark.parametrize("column", ["observation.images.front", "action", "frame_index"])
def test_a_column_that_is_there_twice_is_told(make_folder, column):
    folder = make_folder()
    table = pq.read_table(data_file(folder))
    pq.write_table(table.append_column(column, table[column]), data_file(folder))
    with pytest.raises(UserError, match=rf"\['{column}'\], each once. Name other features in conv"):
        everything(folder)


def test_a_task_table_with_two_numbers_a_task_is_told(make_folder):
    path = make_folder() / "meta/tasks.parquet"
    table = pq.read_table(path)
    pq.write_table(table.append_column("task_index", table["task_index"]), path)
    with pytest.raises(UserError, match=r"expected task_index and one of texts. Download it"):
        open_lerobot(path.parent.parent)


@pytest.mark.parametrize("time", [np.inf, np.nan, 1e30])
def test_a_time_no_video_has_is_told(make_folder, time):
    folder = make_folder(mode="video")
    table = pq.read_table(data_file(folder))
    place = table.column_names.index("timestamp")
    times = pa.array(np.full(len(table), time, np.float32))
    pq.write_table(table.set_column(place, "timestamp", times), data_file(folder))
    with pytest.raises(UserError, match=r"expected .*frame_index / .*clock: frame_index"):
        everything(folder)


def test_a_video_of_an_unknown_codec_is_told(make_folder):
    folder = make_folder(mode="video")
    (video,) = (folder / "videos").rglob("*.mp4")
    video.write_bytes(video.read_bytes().replace(b"avc1", b"zzz1"))
    with pytest.raises(UserError, match=r"Download it again|Copy or download it again"):
        everything(folder)


@pytest.mark.parametrize("name", ["a" * 300, "a\0b"])
@pytest.mark.parametrize("mode", ["image", "video"])
def test_a_template_of_names_there_cannot_be_is_told(make_folder, mode, name):
    folder = make_folder(mode=mode)
    info = json.loads((folder / "meta/info.json").read_text())
    info["data_path" if mode == "image" else "video_path"] = f"{name}/{{chunk_index}}.parquet"
    (folder / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match=r"no such file.*again, with"):
        open_lerobot(folder)


def test_an_index_of_other_lengths_than_info_says_is_not_unpacked(make_folder, monkeypatch):
    (path,) = ((folder := make_folder()) / "meta/episodes").rglob("*.parquet")
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table] * 2), path)
    read = meta_files.read_groups

    def read_tasks_only(path, *others):
        assert "episodes" not in str(path)
        return read(path, *others)

    monkeypatch.setattr("data_tools.formats.lerobot.meta_files.read_groups", read_tasks_only)
    with pytest.raises(UserError, match=r"total_episodes: found 6; expected 3 as meta/info.json"):
        open_lerobot(folder)


@pytest.mark.parametrize("part", ["meta/tasks.parquet", "meta/episodes"])
def test_an_index_that_unpacks_to_more_than_memory_should_hold_is_refused(
    make_folder, monkeypatch, part
):
    """One long text that repeats: 50 kB of a file, and 20 MB of memory."""
    folder = make_folder()
    path = next((folder / part).rglob("*.parquet"), folder / part)
    rows, text = 5000, "push the block " * 270
    column = pa.array([text] * rows)
    if part == "meta/episodes":
        info = json.loads((folder / "meta/info.json").read_text())
        (folder / "meta/info.json").write_text(json.dumps(info | {"total_episodes": rows}))
        table = pa.table({"episode_index": np.arange(rows), "note": column})
    else:
        table = pa.table({"task_index": np.zeros(rows, int), "task": column})
    pq.write_table(table, path, compression="zstd")
    assert path.stat().st_size < 50_000
    monkeypatch.setattr(meta_files, "MAX_INDEX_BYTES", 8 << 20)
    with pytest.raises(UserError, match=r"columns of 12 MiB or more.*at most 8 MiB"):
        open_lerobot(folder)


def test_numbers_that_unpack_to_more_than_memory_should_hold_are_not_read(tmp_path, monkeypatch):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"a": np.zeros(1_000_000), "a.b": np.zeros(1_000_000)}), path)
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(parquet_files, "MAX_GROUP_BYTES", 7 << 20)
    monkeypatch.setattr(parquet_files, "BATCH_ROWS", None)  # no row is read
    with pytest.raises(UserError, match=r"columns of 8 MiB or more.*at most 7 MiB"):
        parquet_files.ParquetFiles().rows(str(path), 0, 1, ("a.b",))


def test_a_damaged_part_of_one_row_group_leaves_the_others(make_folder):
    folder = make_folder()
    path = data_file(folder)
    place = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[place : place + 40] = bytes(40)
    path.write_bytes(data)
    dataset = open_lerobot(folder)
    assert dataset[0].actions().shape == (7, 2)
    with pytest.raises(UserError, match=r"a damaged file"):
        dataset[1].state()


@pytest.mark.parametrize("fps", [1e300, 20_000, 0, True, "fast"])
def test_a_rate_that_no_robot_has_is_told(make_folder, fps):
    folder = make_folder()
    info = json.loads((folder / "meta/info.json").read_text())
    (folder / "meta/info.json").write_text(json.dumps(info | {"fps": fps}))
    with pytest.raises(UserError, match=r"info\.json.*fps"):
        open_lerobot(folder)


def test_a_hidden_index_file_of_a_lerobot_folder_is_left_out_and_told(make_folder):
    folder = make_folder("v3.0")
    (listed,) = folder.glob("meta/episodes/*/*.parquet")
    listed.with_name(f"._{listed.name}").write_bytes(b"\x00\x05\x16\x07")
    dataset = open_lerobot(folder)
    assert len(dataset) == len(LENGTHS)
    (finding,) = [each for each in dataset.inspected.warnings if each.rule == "hidden_files"]
    assert f"._{listed.name}" in finding.value
