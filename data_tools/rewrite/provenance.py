"""Provenance: of what, by which command and version a file was made; kept in the file."""

import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final

import h5py

ATTRIBUTE: Final = "provenance"
DISTRIBUTION: Final = "policy_ft"

Provenance = Mapping[str, object]


def provenance(
    command: str, sources: Iterable[str | Path], settings: Mapping[str, object]
) -> Provenance:
    """Command, settings, version, and each source file's path, size and time of change.

    The same for the same command on unchanged files, so it is also the plan by which interrupted
    work knows whether it may go on. A folder stands for every file in it.

    Args:
        command: its name, e.g. 'repack'.
        sources: the files read; what does not exist on this machine is kept by its name only.
        settings: every setting that changes the result, in values that JSON keeps.
    """
    files = [file for source in sources for file in _files(source)]
    return {
        "command": command,
        "settings": dict(settings),
        "version": version(DISTRIBUTION),
        "sources": [_identity(file) for file in files],
    }


def write_provenance(file: h5py.File, made: Provenance, earlier: h5py.File | None = None) -> None:
    """Keep the provenance in the file's root attribute, after what its only source kept itself."""
    history = [] if earlier is None else _history(earlier)
    file.attrs[ATTRIBUTE] = json.dumps([*history, made])


def _history(file: h5py.File) -> list[object]:
    """What the file says of its making; an attribute that is not ours stays as a text in it."""
    stored = file.attrs.get(ATTRIBUTE)
    if stored is None:
        return []
    try:
        history = json.loads(stored)
    except (TypeError, ValueError):
        history = None
    return history if isinstance(history, list) else [{"text": str(stored)}]


def _files(source: str | Path) -> list[str | Path]:
    path = Path(source)
    if path.is_dir():
        return [file for file in sorted(path.rglob("*")) if file.is_file()]
    return [source]


def _identity(source: str | Path) -> dict[str, object]:
    path = Path(source)
    if not path.is_file():
        return {"path": str(source)}
    status = path.stat()
    return {"path": str(path), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
