"""A directory that appears complete or not at all, whatever happens while it is written."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from policy_ft.errors import UserError, describe


@contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """A new directory to write into, which becomes `target` when the block ends without an error.

    Everything is written to a hidden sibling, flushed to the disk and renamed, so a process that is
    killed leaves either the complete directory or a hidden rest, which the next write of the same
    target removes. One writer a target.

    Args:
        target: must not exist yet, or be an empty directory.

    Raises:
        UserError: the target holds files.
    """
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise UserError(
            describe(
                str(target),
                "files there already",
                "a new directory",
                "Choose another directory, or remove this one first.",
            )
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        yield unfinished
        sync_directory(unfinished)
        os.replace(unfinished, target)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    _flush(target.parent)


def sync_directory(directory: Path) -> None:
    """Wait until every file below a directory, and its own names, are on the disk."""
    for path in directory.rglob("*"):
        _flush(path)
    _flush(directory)


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
