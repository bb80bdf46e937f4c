"""Directories and files that appear complete or not at all, whatever happens meanwhile."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_tools.storage.files.disk import flush_to_disk
from policy_ft.errors import UserError, describe

UNFINISHED_SUFFIX = ".unfinished"


@contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """A new directory to write into, which becomes `target` when the block ends without an error.

    Everything is written to a hidden sibling, flushed to the disk and renamed, so a process that is
    killed leaves either the complete directory or a hidden rest, which the next write of the same
    target removes. One writer a target.

    Args:
        target: must not exist yet, or be an empty directory; a link stands for what it leads to.

    Raises:
        UserError: the target holds files, or there is no place for it.
    """
    target = target.resolve()
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise UserError(
            describe(
                str(target),
                "files there already",
                "a new directory",
                "Choose another directory, or remove this one first.",
            )
        )
    unfinished = target.with_name(f".{target.name}{UNFINISHED_SUFFIX}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
    except OSError as error:
        found = f"no place for a directory ({error.strerror}: {error.filename})"
        remedy = "Choose another directory."
        raise UserError(describe(str(target), found, "one that can be made", remedy)) from None
    try:
        yield unfinished
        sync_directory(unfinished)
        os.replace(unfinished, target)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    flush_to_disk(target.parent)


def is_unfinished(directory: Path) -> bool:
    """Whether this is the rest of a directory that a killed process was writing."""
    return directory.name.startswith(".") and directory.name.endswith(UNFINISHED_SUFFIX)


def write_atomically(path: Path, text: str) -> None:
    """Write a file in UTF-8 so that a kill or a power cut leaves the old content or the new."""
    unfinished = path.with_name(f".{path.name}{UNFINISHED_SUFFIX}")
    unfinished.write_text(text, encoding="utf-8")
    flush_to_disk(unfinished)
    os.replace(unfinished, path)
    flush_to_disk(path.parent)


def sync_directory(directory: Path) -> None:
    """Wait until every file below a directory, and its own names, are on the disk."""
    for path in directory.rglob("*"):
        flush_to_disk(path)
    flush_to_disk(directory)
