"""Changes of LeRobot folders that tests have in common."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml


def read_info(folder: Path) -> dict:
    return json.loads((folder / "meta/info.json").read_text())


def change_info(folder: Path, **changes: object) -> None:
    """Replace keys of info.json; the value 'absent' removes one."""
    content = read_info(folder) | changes
    content = {key: value for key, value in content.items() if value != "absent"}
    (folder / "meta/info.json").write_text(json.dumps(content))


def change_features(folder: Path, **changes: dict | None) -> None:
    """Replace keys of features; a None in place of the mapping removes the feature."""
    features = read_info(folder)["features"]
    for name, change in changes.items():
        features.pop(name, None) if change is None else features[name].update(change)
    change_info(folder, features=features)


def change_tables(folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    for path in sorted((folder / "data").rglob("*.parquet")):
        pq.write_table(change(pq.read_table(path)), path)


def sidecar(folder: Path, **content: object) -> None:
    (folder / "conventions.yaml").write_text(yaml.safe_dump(content))


def write_lines(folder: Path, name: str, rows: list[dict]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"meta/{name}.jsonl").write_text(text)
