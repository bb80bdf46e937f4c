"""One run at a time in an output directory."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from data_tools.storage.files.disk import try_to_lock
from policy_ft.errors import UserError, describe

LOCK_FILE = ".lock"


def require_writable(directory: Path) -> None:
    """UserError when the directory does not exist and cannot be made, or cannot be written to."""
    present = next(each for each in (directory, *directory.absolute().parents) if each.exists())
    if not present.is_dir() or not os.access(present, os.W_OK | os.X_OK):
        kind = "which cannot be written to" if present.is_dir() else "which is a file"
        raise UserError(
            describe(
                f"output_dir {str(directory)!r}",
                f"{str(present)!r}, {kind}",
                "a directory that can be made and written to",
                "Set output_dir to another directory.",
            )
        )


def require_no_run_at_work(directory: Path) -> None:
    """UserError when a run is at work in the directory; writes nothing, and keeps nobody out."""
    path = directory / LOCK_FILE
    if path.exists():
        with path.open("a+", encoding="ascii") as lock:
            _lock(lock, directory)


@contextmanager
def lock_output_dir(directory: Path) -> Iterator[bool]:
    """Makes the directory and keeps every other run out of it until the block ends.

    The lock is the operating system's and goes with the process, also when that is killed. Yields
    whether there is one: where the file system keeps none, nothing keeps other runs out.

    Raises:
        UserError: another run is at work there, or the directory cannot be made or locked.
    """
    require_writable(directory)
    where, elsewhere = f"output_dir {str(directory)!r}", "Set output_dir to another directory."
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / LOCK_FILE).open("a+", encoding="ascii")
    except OSError as error:
        raise UserError(describe(where, str(error), "a directory to write to", elsewhere)) from None
    with lock:
        is_locked = _lock(lock, directory)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield is_locked


def _lock(lock: IO[str], directory: Path) -> bool:
    """Whether the file could be locked; False on a disk without locks. UserError if it is held."""
    where = f"output_dir {str(directory)!r}"
    try:
        return try_to_lock(lock)
    except BlockingIOError:
        lock.seek(0)
        found = f"the run of process {lock.read() or 'unknown'} at work there"
        remedy = (
            "Wait for it, stop it, or set output_dir to another directory. Several processes "
            "share one run where a launcher starts them: `torchrun --nproc-per-node N -m "
            "policy_ft train CONFIG`."
        )
        raise UserError(describe(where, found, "no other run", remedy)) from None
    except OSError as error:
        found = f"a disk that refuses a lock ({error.strerror})"
        remedy = "Set output_dir to another directory."
        raise UserError(describe(where, found, "a lock, or none", remedy)) from None
