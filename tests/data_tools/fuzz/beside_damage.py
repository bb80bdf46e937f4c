"""Damage to the files beside HDF5 data: videos, instructions in JSON, descriptions."""

import json
from pathlib import Path

from tests.data_tools.fuzz.byte_damage import EDITS, Rng, damage_bytes
from tests.data_tools.fuzz.touched import Touched

VALUES = [None, 5, -1e308, "../../outside", "/etc/passwd", "a/b", "..", "", [], {}, "x" * 100_000]


def damage_beside(folder: Path, path: Path, rng: Rng) -> tuple[str, Touched]:
    """Damage one file; the way, and what was changed on purpose."""
    name = str(path.relative_to(folder))
    touched = Touched(places={(name, "/")}, has_facts=True)
    if path.suffix == ".json" and rng.random() < 0.6:
        content = json.loads(path.read_text())
        _change(content, rng)
        path.write_text(json.dumps(content))
        return f"another value in {path.suffix}", touched
    if rng.random() < 0.1:
        path.unlink()
        return f"no {path.suffix}", touched
    chosen = str(rng.choice(list(EDITS)))
    damage_bytes(path, EDITS[chosen], rng)
    return f"{chosen} in {path.suffix}", touched


def _change(content: object, rng: Rng) -> None:
    while isinstance(content, dict | list) and content:
        keys = list(content) if isinstance(content, dict) else list(range(len(content)))
        key = keys[int(rng.integers(len(keys)))]
        value = content[key]  # type: ignore[index,call-overload]
        if not (isinstance(value, dict | list) and value):
            content[key] = VALUES[int(rng.integers(len(VALUES)))]  # type: ignore[index,call-overload]
            return
        content = value
