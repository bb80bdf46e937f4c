"""Unfinished: work that the same command goes on with after a kill, and that never looks finished.

pick.hdf5.partial/            while `pick.hdf5` is being made; gone when it is there
    lock                      locked by the process that makes it
    plan.json                 what is being made of what: another plan may not go on with it
    parts/000003.hdf5         a finished part, on the disk
    parts/000004.hdf5.tmp     what was being written when the process died; written again
"""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TextIO

from data_tools.errors import UserError, describe, raise_faults
from data_tools.rewrite.provenance import sidecar_beside
from data_tools.storage.files.disk import (
    PARTIAL_SUFFIX,
    existing_faults,
    finished_file,
    flush_to_disk,
    give_name,
    try_to_lock,
)

LOCK = "lock"
PLAN = "plan.json"
PARTS = "parts"
TEMPORARY_SUFFIX = ".tmp"
SPARE_BYTES = 1 << 20

# HDF5 raises either when the disk is full.
WRITE_ERRORS = (OSError, RuntimeError)

_UNFINISHED_SUFFIXES = (TEMPORARY_SUFFIX, PARTIAL_SUFFIX)
MAX_TOLD: Final = 100

Advance = Callable[[int, int], None]


def silently(done: int, total: int) -> None:
    """Tell nobody how much is done."""


class Unfinished:
    """The parts of a file or folder that is being made; `publish` gives it its name at once.

    A part is written under another name, flushed to the disk and renamed, so a part that is there
    is whole. Parts of an earlier process that died are kept when its plan is the same; whatever
    else it left is removed. When the `with` block ends with an exception, finished parts stay and
    the error says so.

    Args:
        target: the file or folder to make.
        plan: what is being made of what, in values that JSON keeps; compared when work goes on.

    Raises:
        UserError: the target exists, another process is making it, or finished parts of another
            plan, or of one that cannot be read, lie in its place.
    """

    def __init__(self, target: Path, plan: Mapping[str, object]) -> None:
        raise_faults(existing_faults(target))
        self.target = target
        self.folder = target.with_name(target.name + PARTIAL_SUFFIX)
        self.parts = self.folder / PARTS
        self._plan = json.dumps(plan, indent=1, sort_keys=True)
        self._lock: TextIO | None = None

    def __enter__(self) -> Self:
        try:
            self.parts.mkdir(parents=True, exist_ok=True)
            # kept open: the lock lives as long as the process
            self._lock = (self.folder / LOCK).open("a", encoding="utf-8")
        except OSError as error:
            found, remedy = f"{error.strerror}", "Choose a folder that can be written to."
            raise UserError(describe(str(self.folder), found, "a new folder", remedy)) from error
        _lock(self._lock, self.target)
        try:
            self._begin()
        except BaseException:
            self._lock.close()
            raise
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
        kept = [] if self.target.exists() else self._finished()
        note = (
            f"{self.folder}: keeps {len(kept)} finished parts. "
            "Give the same command again to go on, or delete it."
        )
        if not kept:
            shutil.rmtree(self.folder)
            note = f"{self.target}: no part was finished; the same command begins again."
        notes = [note] if kept else []
        if isinstance(error, UserError):
            if kept:
                raise UserError([*error.faults, *notes]) from error
        elif isinstance(error, WRITE_ERRORS):
            raise UserError([write_fault(self.target, error), *notes]) from error
        else:
            error.add_note(note)

    def _begin(self) -> None:
        """Make sure that what is there is of this plan, and that the plan is on the disk."""
        raise_faults(existing_faults(self.target))  # of a process that was done just now
        finished, plan = self._finished(), self.folder / PLAN
        if finished:
            raise_faults(_other_plan(plan, json.loads(self._plan)))
        kept = {self.folder / LOCK, self.parts, *finished}
        for left in (*self.folder.iterdir(), *self.parts.iterdir()):
            if left not in kept:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        with finished_file(plan) as partial:
            partial.write_text(self._plan, encoding="utf-8")

    def _finished(self) -> list[Path]:
        return [p for p in self.parts.glob("*") if p.suffix not in _UNFINISHED_SUFFIXES]

    def part(self, name: str, write: Callable[[Path], None]) -> Path:
        """The finished part of this name; `write` makes it at the path it is given, if need be."""
        finished = self.parts / name
        if finished.exists():
            return finished
        temporary = self.parts / (name + TEMPORARY_SUFFIX)
        write(temporary)
        flush_to_disk(temporary)
        os.replace(temporary, finished)
        flush_to_disk(self.parts)
        return finished

    def publish(self, whole: Path, sidecar: bytes | None = None) -> Path:
        """The target: `whole`, a file or folder below `folder`, renamed; the rest is deleted.

        Args:
            whole: what was made.
            sidecar: what must lie beside it, of `sidecar_for_copy`.
        """
        flush_to_disk(whole)
        raise_faults(existing_faults(self.target))
        with sidecar_beside(self.target, sidecar):
            give_name(whole, self.target, is_new=True)
        flush_to_disk(self.target.parent)
        shutil.rmtree(self.folder)
        return self.target


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A place to write a file that gets its name when the block ends well.

    Raises:
        UserError: the file exists, or cannot be written there.
    """
    raise_faults(existing_faults(path))
    try:
        with finished_file(path, is_new=True) as partial:
            yield partial
    except WRITE_ERRORS as error:
        raise UserError(write_fault(path, error)) from error


def require_room(path: Path, num_bytes: int) -> None:
    """OSError unless the disk has room for this much, and as much as a file needs besides.

    HDF5 can end the whole process when a file with many open parts meets the disk's end.
    """
    if shutil.disk_usage(path.parent).free < num_bytes + SPARE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def write_fault(path: Path, error: Exception) -> str:
    """What to do about an error of writing a file, or of reading what goes into it."""
    found = f"{type(error).__name__} ({' '.join(str(error).split())[:200]})"
    expected = "a disk that takes the data, and sources that can be read"
    remedy = "Choose another place, or free space there; robot-data salvage looks at a source."
    return describe(str(path), found, expected, remedy)


def _lock(file: TextIO, target: Path) -> None:
    try:
        try_to_lock(file)
    except BlockingIOError as error:
        file.close()
        remedy = "Wait until it is done, or choose another name."
        found = "another process that makes it now"
        raise UserError(describe(str(target), found, "to be the only one", remedy)) from error


def _other_plan(path: Path, plan: Mapping[str, object]) -> list[str]:
    """One fault for each part of the plan that differs from the one that was begun."""
    try:
        begun = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        begun = None
    if not isinstance(begun, dict):
        remedy = f"Delete {path.parent} to start again."
        found = "no plan that can be read, beside finished parts"
        return [describe(str(path), found, "what the parts were made of", remedy)]
    remedy = "Give the command it was begun with to go on, or delete that folder to start again."
    return [
        describe(f"{path.parent}, {key}", found, expected, remedy)
        for key, found, expected in _differences(begun, plan)
    ]


def _differences(
    begun: Mapping[str, object], plan: Mapping[str, object], above: str = ""
) -> Iterator[tuple[str, str, str]]:
    """Key, with those above it, and both values of each part that differs."""
    for key in sorted({*begun, *plan}):
        old, new = begun.get(key), plan.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{above}{key}.")
        elif old != new:
            yield f"{above}{key}", _short(old), _short(new)


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= MAX_TOLD else f"{text[:MAX_TOLD]} ..."
