"""The index files below `meta`: a row an episode, and the tasks; v2.1 as lines, v3.0 as tables."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
from pydantic import JsonValue

from data_tools.errors import UserError, describe, raise_faults, shown
from data_tools.finding import Finding
from data_tools.formats.lerobot.info import Info
from data_tools.formats.lerobot.parquet_files import open_parquet, read_groups
from data_tools.rules import UNREADABLE_FILE
from data_tools.storage.files.paths import DataFiles, hidden_files, visible

Row = dict[str, JsonValue]

EPISODES_JSONL: Final = "meta/episodes.jsonl"
TASKS_JSONL: Final = "meta/tasks.jsonl"
EPISODES_FOLDER: Final = "meta/episodes"
TASKS_PARQUET: Final = "meta/tasks.parquet"
TASK_COLUMNS: Final = ("task", "__index_level_0__")
# Of 800,000 episodes. As Python's objects they take ten times as much.
MAX_INDEX_BYTES: Final = 256 << 20

CORRECT: Final = "Correct the one that is wrong, or download the dataset again."


def episode_rows(folder: Path, info: Info) -> tuple[Path, list[Row]]:
    """Where the episodes are listed, and a row an episode; UserError when that is broken."""
    if not info.is_v3:
        return folder / EPISODES_JSONL, _read_jsonl(folder / EPISODES_JSONL)
    return folder / EPISODES_FOLDER, list(_read_episodes(folder / EPISODES_FOLDER, info))


def total_faults(where: Path, info: Info, rows: Sequence[Row]) -> list[str]:
    """Totals of info.json that are not those of an index whose lengths are whole numbers."""
    frames = sum(length for row in rows if isinstance(length := row["length"], int))
    totals = [
        _total_fault(where, "total_episodes", len(rows), info.total_episodes),
        _total_fault(where, "total_frames", frames, info.total_frames),
    ]
    return [fault for fault in totals if fault]


def _total_fault(where: Path, name: str, found: int, said: int | None) -> str:
    """The fault of an index that counts otherwise than info.json; '' where it does not."""
    if said is None or found == said:
        return ""
    return describe(f"{where}, {name}", f"{found}", f"{said} as meta/info.json says", CORRECT)


def tasks_by_number(folder: Path, info: Info) -> dict[int, str]:
    """The text of each task; nothing where the folder has no list of them.

    Raises:
        UserError: a number or a text is missing, or a number is there twice.
    """
    path = folder / (TASKS_PARQUET if info.is_v3 else TASKS_JSONL)
    if not path.is_file():
        return {}
    tasks: dict[int, str] = {}
    for row in _read_tasks(path) if info.is_v3 else _read_jsonl(path):
        number, text = row.get("task_index"), row.get("task")
        if type(number) is not int or not isinstance(text, str) or number in tasks:
            expected = "a new whole number task_index and a text task"
            raise UserError(describe(str(path), shown(row, 200), expected, "Mend the file."))
        tasks[number] = text
    return tasks


def _read_jsonl(path: Path) -> list[Row]:
    """The mappings of a file with one a line; UserError when it is missing or broken."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
    except FileNotFoundError as error:
        remedy = "Download or copy the dataset again, with its whole `meta`."
        rule = UNREADABLE_FILE.name
        raise UserError(describe(str(path), "no such file", "the index", remedy, rule)) from error
    except (OSError, ValueError, RecursionError) as error:
        found = f"no readable JSON lines ({type(error).__name__}: {error})"
        expected, rule = "one mapping a line", UNREADABLE_FILE.name
        raise UserError(describe(str(path), found, expected, "Copy it again.", rule)) from error
    if not all(isinstance(row, dict) for row in rows):
        found, remedy = "a line that is no mapping", "Copy it again."
        expected, rule = "one mapping a line", UNREADABLE_FILE.name
        raise UserError(describe(str(path), found, expected, remedy, rule))
    return rows


def _read_episodes(folder: Path, info: Info) -> Iterator[Row]:
    paths = _listed(folder).read
    if not paths:
        found, remedy = "no Parquet file", "Download or copy the dataset again, with its `meta`."
        rule = UNREADABLE_FILE.name
        raise UserError(describe(str(folder), found, "the index", remedy, rule))
    num_rows, left = sum(map(_num_rows, paths)), MAX_INDEX_BYTES
    # before anything is unpacked: a total that is wrong may be one of an index that fills memory
    fault = _total_fault(folder, "total_episodes", num_rows, info.total_episodes)
    raise_faults([fault] if fault else [])
    for path in paths:
        with open_parquet(path) as file:
            # the statistics are most of the file and say nothing about where things are
            columns = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
            table = read_groups(path, file, range(file.num_row_groups), columns, left)
        left -= table.nbytes
        yield from table.to_pylist()


def left_out(folder: Path) -> tuple[Finding, ...]:
    """A warning where hidden files lie among those that list the episodes of a dataset."""
    return hidden_files(folder, _listed(folder / EPISODES_FOLDER).hidden)


def _listed(folder: Path) -> DataFiles:
    return visible(sorted(folder.glob("*/*.parquet")), folder)


def _num_rows(path: Path) -> int:
    with open_parquet(path) as file:
        return int(file.metadata.num_rows)


def _read_tasks(path: Path) -> list[Row]:
    with open_parquet(path) as file:
        groups, columns = range(file.num_row_groups), file.schema_arrow.names
        table = read_groups(path, file, groups, columns, MAX_INDEX_BYTES)
    texts = [
        each.name
        for each in table.schema
        if pa.types.is_string(each.type) or pa.types.is_large_string(each.type)
    ]
    named = [name for name in texts if name in TASK_COLUMNS]
    texts = named if len(named) == 1 else texts
    if table.column_names.count("task_index") != 1 or len(texts) != 1:
        found, expected = f"the columns {table.column_names}", "task_index and one of texts"
        raise UserError(describe(str(path), found, expected, "Download it again."))
    # pandas keeps the text as the index of the rows, under a name of its own
    return [
        {"task_index": number, "task": text}
        for number, text in zip(
            table["task_index"].to_pylist(), table[texts[0]].to_pylist(), strict=True
        )
    ]
