"""Unfinished: work that the same command goes on with after a kill, and that never looks finished.

pick.hdf5.partial/            while `pick.hdf5` is being made; gone when it is there
    plan.json                 what is being made of what: another plan may not go on with it
    parts/000003.hdf5         a finished part, on the disk
    parts/000004.hdf5.tmp     what was being written when the process died; written again
"""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from data_tools.errors import UserError, describe, raise_faults
from data_tools.files.disk import flush_to_disk
from data_tools.files.hdf5 import PARTIAL_SUFFIX

PLAN = "plan.json"
PARTS = "parts"
TEMPORARY_SUFFIX = ".tmp"

_UNFINISHED_SUFFIXES = (TEMPORARY_SUFFIX, PARTIAL_SUFFIX)
_NO_LOCKS_HERE = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}

Advance = Callable[[int, int], None]


def silently(done: int, total: int) -> None:
    """Tell nobody how much is done."""


class Unfinished:
    """The parts of a file or folder that is being made; `publish` gives it its name at once.

    A part is written under another name, flushed to the disk and renamed, so a part that is there
    is whole. Parts of an earlier process that died are kept when its plan is the same. When the
    `with` block ends with an exception, finished parts stay and the error says so.

    Args:
        target: the file or folder to make.
        plan: what is being made of what, in values that JSON keeps; compared when work goes on.

    Raises:
        UserError: the target exists, another process is making it, or an interrupted work with
            another plan lies in its place.
    """

    def __init__(self, target: Path, plan: Mapping[str, object]) -> None:
        self.target = target
        self.folder = target.with_name(target.name + PARTIAL_SUFFIX)
        self.parts = self.folder / PARTS
        self._plan = json.dumps(plan, indent=1, sort_keys=True)
        self._lock: TextIO | None = None
        raise_faults(existing_faults(target))

    def __enter__(self) -> Self:
        try:
            self.parts.mkdir(parents=True, exist_ok=True)
            # kept open: the lock lives as long as the process
            self._lock = (self.folder / PLAN).open("a+", encoding="utf-8")
        except OSError as error:
            found, remedy = f"{error.strerror}", "Choose a folder that can be written to."
            raise UserError(describe(str(self.folder), found, "a new folder", remedy)) from error
        _lock(self._lock, self.target)
        self._lock.seek(0)
        begun = self._lock.read()
        if begun and begun != self._plan and any(self.parts.iterdir()):
            self._lock.close()
            raise UserError(_other_plan(self.folder, json.loads(begun), json.loads(self._plan)))
        self._lock.truncate(0)
        self._lock.write(self._plan)
        self._lock.flush()
        os.fsync(self._lock.fileno())
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._lock is not None:
            self._lock.close()
        if error is None or not self.folder.exists():
            return
        kept = [p for p in self.parts.iterdir() if p.suffix not in _UNFINISHED_SUFFIXES]
        if not kept:
            shutil.rmtree(self.folder)
            return
        note = (
            f"{self.folder}: keeps {len(kept)} finished parts. "
            "Give the same command again to go on, or delete it."
        )
        if isinstance(error, UserError):
            raise UserError([*error.faults, note]) from error
        error.add_note(note)

    def part(self, name: str, write: Callable[[Path], None]) -> Path:
        """The finished part of this name; `write` makes it at the path it is given, if need be."""
        finished = self.parts / name
        if finished.exists():
            return finished
        temporary = self.parts / (name + TEMPORARY_SUFFIX)
        temporary.unlink(missing_ok=True)
        try:
            write(temporary)
            flush_to_disk(temporary)
        except (OSError, RuntimeError) as error:  # h5py raises either when the disk is full
            found, remedy = f"{type(error).__name__} ({error})", "Free space there, and go on."
            raise UserError(
                describe(str(self.target), found, "a disk that takes the data", remedy)
            ) from error
        os.replace(temporary, finished)
        flush_to_disk(self.parts)
        return finished

    def publish(self, whole: Path) -> Path:
        """The target: `whole`, a file or folder below `folder`, renamed; the rest is deleted."""
        flush_to_disk(whole)
        raise_faults(existing_faults(self.target))
        os.replace(whole, self.target)
        flush_to_disk(self.target.parent)
        shutil.rmtree(self.folder)
        return self.target


def existing_faults(target: Path) -> list[str]:
    """A fault when something of this name exists already: nothing is ever written over."""
    if not target.exists():
        return []
    remedy = "Choose another name, or delete it first."
    return [describe(str(target), "something that exists already", "a new name", remedy)]


def _lock(file: TextIO, target: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        remedy = "Wait until it is done, or choose another name."
        found = "another process that makes it now"
        raise UserError(describe(str(target), found, "to be the only one", remedy)) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            raise


def _other_plan(folder: Path, begun: Mapping[str, object], plan: Mapping[str, object]) -> list[str]:
    """One fault for each part of the plan that differs."""
    remedy = "Give the command it was begun with to go on, or delete that folder to start again."
    return [
        describe(f"{folder}, {key}", json.dumps(begun.get(key)), json.dumps(plan.get(key)), remedy)
        for key in sorted({*begun, *plan})
        if begun.get(key) != plan.get(key)
    ]
