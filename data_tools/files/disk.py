"""Waiting for the disk, and files that appear only when they are whole."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL_SUFFIX}")
    try:
        yield partial
        flush_to_disk(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    flush_to_disk(path.parent)
