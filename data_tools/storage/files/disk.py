"""Waiting for the disk, and files that appear only when they are whole.

Locks of the operating system, which go with the process that holds them, and disks without.
"""

import errno
import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from data_tools.errors import UserError, describe

PARTIAL_SUFFIX = ".partial"

_NO_LINKS_HERE = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK}


def flush_to_disk(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def give_name(partial: Path, path: Path, *, is_new: bool) -> None:
    """Rename a finished file.

    Args:
        partial: what was written, on the same disk.
        path: its name.
        is_new: whether nothing of that name may be replaced, be it made at this very moment. Disks
            without hard links (FAT) are only asked before.

    Raises:
        UserError: `is_new`, and there is something of that name.
        OSError: the disk refuses.
    """
    if not is_new:
        os.replace(partial, path)
        return
    try:
        os.link(partial, path)  # unlike a renaming, this replaces nothing
    except FileExistsError as error:
        raise UserError(_exists(path)) from error
    except OSError as error:
        if error.errno not in _NO_LINKS_HERE:
            raise
        if path.exists():
            raise UserError(_exists(path)) from error
        os.replace(partial, path)
    else:
        partial.unlink()


@contextmanager
def finished_file(path: Path, *, is_new: bool = False) -> Iterator[Path]:
    """A place to write to; the file gets its name when the block ends well, and is removed if not.

    The folder is made. The place is beside the file, so a process that is killed leaves at most a
    file whose name ends in .partial.

    Args:
        path: the file to make.
        is_new: whether a file that is there by the end of the block stays, and this one is refused.

    Raises:
        UserError: nothing can be written there, the disk is full, or a file is there that is to
            stay.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        flush_to_disk(partial)
        give_name(partial, path, is_new=is_new)
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


def existing_faults(path: Path, expected: str = "a new name") -> list[str]:
    """A fault when something of this name exists already: nothing is ever written over."""
    # a file whose name is too long is none, and a link that leads nowhere is something
    return [_exists(path, expected)] if os.path.lexists(path) else []


def _exists(path: Path, expected: str = "a new name") -> str:
    remedy = "Choose another name, or delete it first."
    return describe(str(path), "something that exists already", expected, remedy)


NO_LOCKS_HERE = frozenset({errno.ENOLCK, errno.EBADFD, errno.ENOSYS, errno.EOPNOTSUPP})
"""What file systems without locks answer: NFS without a lock daemon, Lustre mounted without."""


def try_to_lock(file: IO[Any], *, is_shared: bool = False) -> bool:
    """Lock an open file until it is closed; False where its file system keeps no locks.

    Raises:
        BlockingIOError: another process holds a lock that does not go with this one.
        OSError: the disk refuses for another reason.
    """
    kind = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in NO_LOCKS_HERE:
            raise
        return False
    return True
