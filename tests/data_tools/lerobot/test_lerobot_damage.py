"""Damage to LeRobot folders that libraries below us answer with errors of their own."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_tools.errors import UserError
from data_tools.lerobot import open_lerobot


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
    with pytest.raises(UserError, match=rf"\['{column}'\], each once. Download the dataset again"):
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
    with pytest.raises(UserError, match=r"expected (a whole video|one within)"):
        everything(folder)


def test_a_video_of_an_unknown_codec_is_told(make_folder):
    folder = make_folder(mode="video")
    (video,) = (folder / "videos").rglob("*.mp4")
    video.write_bytes(video.read_bytes().replace(b"avc1", b"zzz1"))
    with pytest.raises(UserError, match=r"Download it again|Copy or download it again"):
        everything(folder)
