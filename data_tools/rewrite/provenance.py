"""Provenance: of what, by which command and version a file was made; kept in the file."""

import glob
import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final

import h5py

from data_tools.formats.layouts.sidecar import FOLDER_SIDECAR, sidecar_of
from data_tools.storage.files.disk import PARTIAL_SUFFIX
from data_tools.storage.files.paths import expand, visible

ATTRIBUTE: Final = "provenance"
DISTRIBUTION: Final = "policy_ft"

Provenance = Mapping[str, object]


def provenance(
    command: str, sources: Iterable[str | Path], settings: Mapping[str, object]
) -> Provenance:
    """Command, settings, version, and each source file's path, size and time of change.

    The same for the same command on unchanged files, so it is also the plan by which interrupted
    work knows whether it may go on. A folder stands for every file in it, a file for the sidecars
    beside it, too, which are known by their content: they decide how its frames are turned.

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


def is_made_so(file: h5py.File, made: Provenance) -> bool:
    """Whether the file was made last as this says, by any version, from the same files anywhere."""
    history = _history(file)
    last = history[-1] if history else None
    return isinstance(last, dict) and _essence(last) == _essence(made)


def _essence(made: Provenance) -> tuple[object, ...]:
    sources = made.get("sources")
    listed = sources if isinstance(sources, list) else []
    about = [{k: v for k, v in each.items() if k != "path"} for each in listed]
    return made.get("command"), made.get("settings"), about


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
        # but not what an interrupted command left there, which may be the one that goes on
        return [
            file
            for file in visible(sorted(path.rglob("*")), path).read
            if file.is_file()
            and not any(part.endswith(PARTIAL_SUFFIX) for part in file.relative_to(path).parts)
        ]
    is_pattern = glob.has_magic(str(source)) and not path.exists()
    files = expand([source]).read if is_pattern else [path]
    sidecars = [
        beside
        for file in files
        for beside in (sidecar_of(file), file.with_name(FOLDER_SIDECAR))
        if beside.is_file()
    ]
    return [*(files if is_pattern else [source]), *dict.fromkeys(sidecars)]


def _identity(source: str | Path) -> dict[str, object]:
    path = Path(source)
    if not path.is_file():
        return {"path": str(source)}
    status = path.stat()
    if path.name.endswith(FOLDER_SIDECAR):
        return {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    return {"path": str(path), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
