"""Damage to LeRobot folders: bytes of every file, JSON of every kind, tables and videos."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.data_tools.fuzz.byte_damage import EDITS, Rng, damage_bytes
from tests.data_tools.fuzz.touched import Touched

JSON_VALUES = [
    None, True, -1, 0, 2**63, 1e400, float("nan"), "", "x" * 100_000, [], {}, [[]], "0",
    "../../../../etc/passwd", "/etc/passwd", "{0}", "{episode_index.__class__}",
    "{episode_index:999999999d}", "{video_key!r}", "data/{chunk_index", "a\x00b",
    {"motors": 5}, [None] * 3, [2**40, 2**40, 3], [3, -1], ["x"] * 10_000,
]  # fmt: skip


def damage_lerobot(folder: Path, rng: Rng) -> tuple[str, Touched]:
    """Damage a folder in a way drawn from the generator; the way, and what was changed."""
    kind = str(rng.choice(["bytes", "json", "table", "files"], p=[0.4, 0.25, 0.25, 0.1]))
    return {"bytes": _bytes, "json": _json, "table": _table, "files": _files}[kind](folder, rng)


def _name(folder: Path, path: Path) -> str:
    return str(path.relative_to(folder.parent))


def _files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _bytes(folder: Path, rng: Rng) -> tuple[str, Touched]:
    files = _files_of(folder)
    path = files[int(rng.integers(len(files)))]
    chosen = str(rng.choice(list(EDITS)))
    columns = _column_extents(path) if path.suffix == ".parquet" else {}
    before = path.stat().st_size
    offsets = damage_bytes(path, EDITS[chosen], rng)
    name = _name(folder, path)
    touched = Touched(has_facts="meta" in name)
    if path.suffix == ".mp4":
        touched.places.add((name, "/"))
    if path.suffix == ".parquet" and path.stat().st_size == before:
        for column, (start, stop) in columns.items():
            if any(start <= offset < stop for offset in offsets):
                touched.places.add((name, "/" + column))
    return f"{chosen} in {path.suffix}", touched


def _column_extents(path: Path) -> dict[str, tuple[int, int]]:
    """The bytes of each column's pages, which have no checksum of their own."""
    found: dict[str, tuple[int, int]] = {}
    metadata = pq.read_metadata(path)
    for group in range(metadata.num_row_groups):
        for i in range(metadata.num_columns):
            column = metadata.row_group(group).column(i)
            start = min(filter(None, (column.dictionary_page_offset, column.data_page_offset)))
            name = column.path_in_schema.split(".list")[0].split(".bytes")[0].split(".path")[0]
            old = found.get(name, (start, start))
            stop = start + column.total_compressed_size
            found[name] = (min(old[0], start), max(old[1], stop))
    return found


def _json(folder: Path, rng: Rng) -> tuple[str, Touched]:
    """Another value, or none, anywhere in info.json or in a line of the index."""
    touched = Touched(has_facts=True)
    files = [p for p in _files_of(folder) if p.suffix in (".json", ".jsonl")]
    path = files[int(rng.integers(len(files)))]
    if path.suffix == ".jsonl":
        return f"lines of {path.name}: {_change_lines(path, rng)}", touched
    content = json.loads(path.read_text())
    key = _change_value(content, rng)
    path.write_text(json.dumps(content))
    return f"{path.name}, {key}", touched


def _change_value(content: dict[str, object], rng: Rng) -> str:
    holder: object = content
    trail: list[str] = []
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))  # type: ignore[arg-type,call-overload]
        key = keys[int(rng.integers(len(keys)))]
        trail.append(str(key))
        value = holder[key]  # type: ignore[index]
        if not (isinstance(value, dict | list) and value) or rng.random() < 0.3:
            break
        holder = value
    if rng.random() < 0.15 and isinstance(holder, dict):
        del holder[key]
    else:
        holder[key] = JSON_VALUES[int(rng.integers(len(JSON_VALUES)))]  # type: ignore[index]
    return ".".join(trail)


def _change_lines(path: Path, rng: Rng) -> str:
    lines = path.read_text().splitlines()
    how = int(rng.integers(6))
    place = int(rng.integers(len(lines)))
    if how == 0:
        lines.append(lines[place])
    elif how == 1:
        del lines[place]
    elif how == 2:
        lines.reverse()
    elif how == 3:
        row = json.loads(lines[place])
        row[str(rng.choice(list(row)))] = JSON_VALUES[int(rng.integers(len(JSON_VALUES)))]
        lines[place] = json.dumps(row)
    elif how == 4:
        lines[place] = "[" * 50_000
    else:
        lines[place] = lines[place] + lines[0]
    path.write_text("\n".join(lines) + "\n")
    names = ("repeated", "missing", "reversed", "another value", "deep", "joined")
    return names[how]


def _files(folder: Path, rng: Rng) -> tuple[str, Touched]:
    """A file that is missing, exchanged with one of its kind, or another kind of file."""
    files = _files_of(folder)
    path = files[int(rng.integers(len(files)))]
    alike = [p for p in files if p.suffix == path.suffix and p != path]
    how = int(rng.integers(4))
    if how == 0 or not alike:
        path.unlink()
        return f"no {path.suffix}", Touched()
    other = alike[int(rng.integers(len(alike)))]
    if how == 1:
        kept = path.read_bytes()
        shutil.copy(other, path)
        other.write_bytes(kept)
        return f"two {path.suffix} exchanged", _moved(folder, path, other)
    if how == 2:
        shutil.copy(other, path)
        return f"one {path.suffix} for another", _moved(folder, path, other)
    path.unlink()
    path.mkdir()
    return f"a folder for a {path.suffix}", Touched()


def _moved(folder: Path, *paths: Path) -> Touched:
    """Nothing in a video says which episode it shows, so videos of one length are alike."""
    return Touched(places={(_name(folder, p), "/") for p in paths if p.suffix == ".mp4"})


def _table(folder: Path, rng: Rng) -> tuple[str, Touched]:
    files = [p for p in _files_of(folder) if p.suffix == ".parquet"]
    path = files[int(rng.integers(len(files)))]
    table = pq.read_table(path)
    chosen = str(rng.choice(list(TABLE_EDITS)))
    column = str(rng.choice(table.column_names))
    changed, is_column = TABLE_EDITS[chosen](table, column, rng)
    pq.write_table(changed, path)
    touched = Touched(has_facts="meta" in str(path.relative_to(folder)))
    if is_column:
        touched.places.add((_name(folder, path), "/" + column))
    return f"{chosen} {column}", touched


TableEdit = Callable[[pa.Table, str, Rng], tuple[pa.Table, bool]]


def _set(table: pa.Table, column: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(column), column, values)


def drop_column(table: pa.Table, column: str, rng: Rng) -> tuple[pa.Table, bool]:
    return table.drop_columns([column]), False


def nulls(table: pa.Table, column: str, rng: Rng) -> tuple[pa.Table, bool]:
    values = table[column].to_pylist()
    values[int(rng.integers(len(values)))] = None
    return _set(table, column, pa.array(values, table[column].type)), False


def texts(table: pa.Table, column: str, rng: Rng) -> tuple[pa.Table, bool]:
    return _set(table, column, pa.array([str(i) for i in range(len(table))])), False


def doubled(table: pa.Table, column: str, rng: Rng) -> tuple[pa.Table, bool]:
    """Lists of twice the length, numbers of twice the value."""
    values = table[column].to_pylist()
    changed = [v * 2 if isinstance(v, int | float | list) else v for v in values]
    return _set(table, column, pa.array(changed)), True


def other_numbers(table: pa.Table, column: str, rng: Rng) -> tuple[pa.Table, bool]:
    choices = [float("nan"), float("inf"), -1.0, 2.0**40]
    value = choices[int(rng.integers(len(choices)))]
    return _set(table, column, pa.array([value] * len(table))), True


def unsigned(table: pa.Table, column: str, rng: Rng) -> tuple[pa.Table, bool]:
    try:
        return _set(table, column, table[column].cast(pa.uint8())), True
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return texts(table, column, rng)


def fewer_rows(table: pa.Table, column: str, rng: Rng) -> tuple[pa.Table, bool]:
    return table.slice(0, len(table) - 1), False


def no_rows(table: pa.Table, column: str, rng: Rng) -> tuple[pa.Table, bool]:
    return table.slice(0, 0), False


def more_rows(table: pa.Table, column: str, rng: Rng) -> tuple[pa.Table, bool]:
    return pa.concat_tables([table, table.slice(0, 1)]), False


def other_order(table: pa.Table, column: str, rng: Rng) -> tuple[pa.Table, bool]:
    return table.take(rng.permutation(len(table))), False


def column_order(table: pa.Table, column: str, rng: Rng) -> tuple[pa.Table, bool]:
    return table.select(table.column_names[::-1]), False


def double_column(table: pa.Table, column: str, rng: Rng) -> tuple[pa.Table, bool]:
    return table.append_column(column, table[column]), False


def shifted_rows(table: pa.Table, column: str, rng: Rng) -> tuple[pa.Table, bool]:
    """One column one row later than the others."""
    order = np.roll(np.arange(len(table)), 1)
    return _set(table, column, table[column].take(pa.array(order))), True


TABLE_EDITS: dict[str, TableEdit] = {
    edit.__name__: edit
    for edit in (
        drop_column,
        nulls,
        texts,
        doubled,
        other_numbers,
        unsigned,
        fewer_rows,
        no_rows,
        more_rows,
        other_order,
        column_order,
        double_column,
        shifted_rows,
    )
}
