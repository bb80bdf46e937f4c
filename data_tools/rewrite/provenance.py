"""Provenance: of what, by which command and version a file was made; kept in the file.

The sidecar of a new file: what declares a source goes with its copy, or the copy is refused.
"""

import glob
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Final

import h5py
import yaml

from data_tools.errors import Faults, UserError, describe
from data_tools.formats.layouts.sidecar import (
    FOLDER_SIDECAR,
    Sidecar,
    folder_sidecars_of,
    is_there,
    read_sidecars,
    sidecar_of,
    with_farther,
)
from data_tools.storage.files.disk import PARTIAL_SUFFIX, finished_file
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


def declaring_sidecar(
    path: Path, *, is_native: bool, places: Iterable[Path] = ()
) -> Sidecar | None:
    """What sidecars say of a file, its own and its folders' together; None when there is none.

    Args:
        path: the file.
        is_native: whether it declares itself: then only a sidecar of its own goes before that.
        places: what the dataset was opened from; folders' sidecars are looked for up to there.

    Raises:
        UserError: a sidecar is no YAML or no mapping, or names a layout that we do not know.
    """
    top = next((place for place in places if place in path.parents), path.parent)
    return read_sidecars([sidecar_of(path), *([] if is_native else folder_sidecars_of(path, top))])


def content_of(sidecar: Sidecar) -> bytes:
    """What one file must hold to say what a sidecar says: its bytes, or what several say merged."""
    if len(sidecar.files) == 1:
        return sidecar.path.read_bytes()
    layout = {"preset": sidecar.preset} if sidecar.preset else {}
    layout |= sidecar.layout or {}
    content = {**({"layout": layout} if layout else {}), **sidecar.overrides}
    # an alias, which a sidecar may not have, would be made of what stands in two places
    dumper = type("_Plain", (yaml.SafeDumper,), {"ignore_aliases": lambda *_: True})
    return yaml.dump(content, Dumper=dumper, sort_keys=False, allow_unicode=True).encode()


def sidecar_for_copy(target: Path, sidecar: Sidecar | None, *, is_native: bool) -> bytes | None:
    """What must lie beside a copy so that it is read as its source; None when nothing is needed.

    Args:
        target: the copy, not yet there.
        sidecar: what declares the source, of `declaring_sidecar`.
        is_native: whether source and copy declare themselves.

    Raises:
        UserError: sidecars that are there already would speak for the copy, and say something else;
            nothing that a person may have written is ever written over.
    """
    content = None if sidecar is None else content_of(sidecar)
    own, in_the_way = sidecar_of(target), sidecar_of(target)
    of_folders = [] if is_native else folder_sidecars_of(target, target.parent)
    if not is_there(own):
        others = read_sidecars(of_folders)
        if others is None or (sidecar and said(with_farther(sidecar, others)) == said(sidecar)):
            return content
        in_the_way = others.path
    elif own.read_bytes() == content or _says_as(sidecar, [own, *of_folders]):
        return None
    found = f"a declaration that would speak for {target}"
    expected = "none, as for its source" if sidecar is None else f"what {sidecar.name} says"
    remedy = "Delete it if it is left over, or choose another name or folder."
    raise UserError(describe(str(in_the_way), found, expected, remedy))


def _says_as(sidecar: Sidecar | None, paths: Sequence[Path]) -> bool:
    """Whether sidecars say what another one says; False where they cannot be read."""
    there = Faults().of(lambda: read_sidecars(paths))
    return sidecar is not None and there is not None and said(there) == said(sidecar)


def said(sidecar: Sidecar) -> tuple[object, object, object]:
    """What a sidecar says, whichever file says it."""
    return sidecar.overrides, sidecar.preset, sidecar.layout


@contextmanager
def sidecar_beside(target: Path, content: bytes | None) -> Iterator[None]:
    """The sidecar of a file that gets its name in the block; removed again where that fails.

    First the sidecar, then the file: a kill in between leaves nothing that is read wrongly.
    """
    if content is None:
        yield
        return
    own = sidecar_of(target)
    with finished_file(own, is_new=True) as partial:
        partial.write_bytes(content)
    try:
        yield
    except BaseException:
        own.unlink(missing_ok=True)
        raise
