"""Waiting for the disk, and files that appear only when they are whole."""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_tools.errors import UserError, describe
from data_tools.files.hdf5 import PARTIAL_SUFFIX


def flush_to_disk(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def finished_file(path: Path) -> Iterator[Path]:
    """A place to write to; the file gets its name when the block ends well, and is removed if not.

    The folder is made. The place is beside the file, so a process that is killed leaves at most a
    file whose name ends in .partial.

    Raises:
        UserError: nothing can be written there, or the disk is full.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        flush_to_disk(partial)
        os.replace(partial, path)
        flush_to_disk(path.parent)
    except OSError as error:
        # an error of something else, say of reading what is to be written, has another name
        if error.errno != errno.ENOSPC and str(error.filename) not in {
            str(place) for place in (path, partial, *path.parents)
        }:
            raise
        remedy = "Choose another name, or make room."
        raise UserError(
            describe(str(path), str(error.strerror), "a place to write to", remedy)
        ) from error
    finally:
        if partial.parent.is_dir():
            partial.unlink(missing_ok=True)
