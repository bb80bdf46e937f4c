"""The files below `meta`: the index of episodes with their statistics, the tasks, info.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from data_tools.formats.lerobot.info import INFO_FILE
from data_tools.formats.lerobot.lerobot_options import LeRobotOptions
from data_tools.formats.lerobot.meta_files import (
    EPISODES_FOLDER,
    EPISODES_JSONL,
    TASKS_JSONL,
    TASKS_PARQUET,
)
from data_tools.formats.lerobot.statistics import QUANTILES, Statistics

EPISODES_STATS_JSONL: Final = "meta/episodes_stats.jsonl"
STATS_JSON: Final = "meta/stats.json"
BATCH: Final = 100
MIB: Final = 1 << 20
INDEX_COLUMN: Final = "__index_level_0__"


class EpisodeLines:
    """The index of v2.1: a line of JSON an episode, and one with its statistics."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, row: Mapping[str, Any], statistics: Mapping[str, Statistics]) -> None:
        """Write one episode; v2.1 knows no quantiles."""
        plain = {
            feature: {name: value for name, value in each.items() if name not in QUANTILES}
            for feature, each in statistics.items()
        }
        index = {"episode_index": row["episode_index"], "stats": plain}
        for name, line in ((EPISODES_JSONL, row), (EPISODES_STATS_JSONL, index)):
            with (self._folder / name).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, allow_nan=False) + "\n")

    def close(self) -> None:
        """Nothing is left to write."""


class EpisodeTable:
    """The index of v3.0: Parquet files with a row an episode, its statistics among the columns."""

    def __init__(self, folder: Path, options: LeRobotOptions) -> None:
        self._folder, self._options = folder / EPISODES_FOLDER, options
        self._rows: list[dict[str, Any]] = []
        self._file = 0
        self._writer: pq.ParquetWriter | None = None

    def add(self, row: Mapping[str, Any], statistics: Mapping[str, Statistics]) -> None:
        """Write one episode."""
        flat = {
            f"stats/{feature}/{name}": value
            for feature, each in statistics.items()
            for name, value in each.items()
        }
        chunk, file = divmod(self._file, self._options.chunks_size)
        place = {"meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file}
        self._rows.append({**row, **flat, **place})
        if len(self._rows) == BATCH:
            self._flush()

    def close(self) -> None:
        """Write what is left, and the footer."""
        if self._rows:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        chunk, file = divmod(self._file, self._options.chunks_size)
        path = self._folder / f"chunk-{chunk:03d}" / f"file-{file:03d}.parquet"
        inferred = pa.Table.from_pylist(self._rows[:1]).schema
        place = inferred.get_field_index("success")
        schema = inferred.set(place, pa.field("success", pa.bool_()))
        if self._writer is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(path, schema, compression="snappy")
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=schema))
        self._rows = []
        if path.stat().st_size >= self._options.data_files_size_in_mb * MIB:
            self._writer.close()
            self._writer = None
            self._file += 1


def write_task_lines(folder: Path, tasks: Mapping[str, int]) -> None:
    """The tasks of v2.1, from text to number."""
    lines = [json.dumps({"task_index": number, "task": text}) for text, number in tasks.items()]
    (folder / TASKS_JSONL).write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_task_table(folder: Path, tasks: Mapping[str, int]) -> None:
    """The tasks of v3.0: a table of pandas whose rows are named by the texts."""
    numpy_type = {"pandas_type": "int64", "numpy_type": "int64", "metadata": None}
    text_type = {"pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    names = {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object"}
    described = {
        "index_columns": [INDEX_COLUMN],
        "column_indexes": [{**names, "metadata": {"encoding": "UTF-8"}}],
        "columns": [
            {"name": "task_index", "field_name": "task_index", **numpy_type},
            {"name": None, "field_name": INDEX_COLUMN, **text_type},
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    schema = pa.schema(
        [("task_index", pa.int64()), (INDEX_COLUMN, pa.string())],
        metadata={"pandas": json.dumps(described)},
    )
    columns = [pa.array(list(tasks.values()), pa.int64()), pa.array(list(tasks), pa.string())]
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), folder / TASKS_PARQUET)


def write_info(folder: Path, info: Mapping[str, Any]) -> None:
    """info.json."""
    _write_json(folder / INFO_FILE, info)


def write_statistics(folder: Path, statistics: Mapping[str, Statistics]) -> None:
    """stats.json, of the whole dataset."""
    _write_json(folder / STATS_JSON, statistics)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=4, ensure_ascii=False, allow_nan=False)
    path.write_text(text, encoding="utf-8")
