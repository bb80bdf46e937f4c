"""Several files repacked into a folder: which goes where, and what comes along."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from data_tools.errors import UserError, describe, raise_faults
from data_tools.rewrite.unfinished import new_file
from data_tools.storage.files.paths import visible

# Larger files that were copied earlier are told by their size alone.
MAX_COMPARED_BYTES: Final = 1 << 20


def targets_in(out: Path, files: Sequence[Path], sources: Sequence[Path]) -> dict[Path, Path]:
    """Source -> where it goes below the folder `out`, in the folders the sources are in.

    Args:
        out: the folder to make.
        files: the files and folders that were named.
        sources: the HDF5 files in them.

    Raises:
        UserError: `out` lies in a folder that is copied, and would be copied into itself.
    """
    for folder in filter(Path.is_dir, files):
        if out.resolve().is_relative_to(folder.resolve()):
            found, remedy = f"a place in {folder}, which is copied", "Choose a folder beside it."
            raise UserError(describe(str(out), found, "a folder of its own", remedy))
    shared = _shared(files, sources)
    return {source: out / source.resolve().relative_to(shared) for source in sources}


def copy_others(out: Path, files: Sequence[Path], sources: Sequence[Path]) -> list[str]:
    """Copy what lies in the folders beside their HDF5 files, unless it is there already.

    Returns:
        a line that says which hidden files were not, if there are any.

    Raises:
        UserError: something else of its name is there, such as a sidecar that was corrected since.
    """
    repacked = {source.resolve() for source in sources}
    shared = _shared(files, sources)
    faults = []
    hidden: list[Path] = []
    for folder in filter(Path.is_dir, files):
        found = visible(sorted(folder.rglob("*")), folder)
        hidden += filter(Path.is_file, found.hidden)
        for file in found.read:
            target = out / folder.resolve().relative_to(shared) / file.relative_to(folder)
            if not file.is_file() or file.resolve() in repacked:
                continue
            if not target.exists():
                with new_file(target) as partial:
                    shutil.copyfile(file, partial)
            elif not _is_same(file, target):
                remedy = "Delete the copy, or repack into another folder."
                faults.append(describe(str(target), f"not what {file} is", "a copy", remedy))
    raise_faults(faults)
    return [f"{out}: without {len(hidden)} hidden files, first {hidden[0]}\n"] if hidden else []


def _shared(files: Sequence[Path], sources: Sequence[Path]) -> Path:
    """The folder above all sources whose inner folders are kept."""
    above = [path for path in files if path.is_dir()] or [source.parent for source in sources]
    return Path(os.path.commonpath([folder.resolve() for folder in above]))


def _is_same(first: Path, second: Path) -> bool:
    size = first.stat().st_size
    if not second.is_file() or second.stat().st_size != size:
        return False
    return size > MAX_COMPARED_BYTES or first.read_bytes() == second.read_bytes()
