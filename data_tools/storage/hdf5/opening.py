"""Opening HDF5 files for reading, with a plain sentence for every way a file can be broken."""

import errno
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  # registers Blosc, LZ4 and Zstandard, which labs compress with

from data_tools.errors import UserError, describe, nearest
from data_tools.storage.files.cache import LruCache
from data_tools.storage.files.disk import NO_LOCKS_HERE, PARTIAL_SUFFIX
from data_tools.storage.files.remote import RemotePath, path_of

MAX_OPEN_FILES = 64
# HDF5 2.0 caches 8 MiB for every open dataset, half a gigabyte for a hundred episode files. A frame
# is read once, so the cache only has to hold one compressed chunk while it is decoded.
CHUNK_CACHE_BYTES = 1 << 20
LOCK_RETRY_DELAYS_S = (0.05, 0.1, 0.2, 0.4)
APPLE_DOUBLE = b"\x00\x05\x16\x07"  # RFC 1740

Stamp = tuple[int, int]


def open_hdf5(path: str | Path) -> h5py.File:
    """The file, open for reading.

    Waits a moment for a writer's lock, and does without locks where the file system has none. A URL
    is read in blocks (see `data_tools.storage.files.remote`), and has no locks.

    Raises:
        UserError: the file is missing, empty, not HDF5 (a web page or a Git LFS pointer saved under
            its name), cut short, or held by a writer; or a URL cannot be read; the message says
            which and what to do.
    """
    path = path_of(path)
    if isinstance(path, RemotePath):
        return _open_remote(path)
    _require_hdf5_signature(path)
    for delay in (*LOCK_RETRY_DELAYS_S, None):
        try:
            return _open_with_locks_if_any(path)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise UserError(_unopenable(path, error)) from error
            if delay is None:
                raise UserError(
                    describe(
                        str(path),
                        f"a file locked by another process ({error})",
                        "a finished file",
                        "Wait until the process that writes it is done, or copy the file.",
                    )
                ) from error
            time.sleep(delay)
    raise AssertionError("unreachable: the last delay is None")


def stamp_of(path: str | Path) -> Stamp | None:
    """Size and time of the last change [ns] of a file on this machine; None of anything else."""
    place = path_of(path)
    if isinstance(place, RemotePath):
        return None
    try:
        about = place.stat()
    except OSError:  # whoever opens it says what is wrong
        return None
    return about.st_size, about.st_mtime_ns


class FileHandles:
    """HDF5 files kept open for reading in this process; beyond 64 the least recently used closes.

    Picklable and safe to inherit: a handle made by another process is forgotten, not shared. HDF5
    keeps file state in process memory, so sharing one across a fork or a pickle is how loaders used
    to crash.

    Args:
        stamps: of files when they were looked at first; they must not have changed since.
    """

    def __init__(self, stamps: Mapping[str, Stamp]) -> None:
        self.stamps = stamps
        self.lock = threading.RLock()
        self._forget()

    def open(self, path: str) -> h5py.File:
        """The open file; use it while holding `lock`, so that no other thread's open closes it.

        Raises:
            UserError: it cannot be opened, or is not the file it was.
        """
        if self._pid != os.getpid():
            self._forget()
        return self._files.get_or_make(path, lambda: self._opened(path))

    def _opened(self, path: str) -> h5py.File:
        if path in self.stamps and stamp_of(path) != self.stamps[path]:
            found = "a file that was changed or replaced since the dataset was opened"
            remedy = "Open the dataset again; while a run reads, give new data a new name."
            raise UserError(describe(path, found, "the same file", remedy))
        return open_hdf5(path)

    def __len__(self) -> int:
        return len(self._files)

    def __getstate__(self) -> Mapping[str, Stamp]:
        return self.stamps

    def __setstate__(self, stamps: Mapping[str, Stamp]) -> None:
        self.__init__(stamps)  # type: ignore[misc]

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._files: LruCache[h5py.File] = LruCache(
            MAX_OPEN_FILES, weigh=lambda _: 1, on_evict=h5py.File.close
        )


def _open_with_locks_if_any(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r", locking="best-effort", rdcc_nbytes=CHUNK_CACHE_BYTES)
    except OSError as error:
        if error.errno not in NO_LOCKS_HERE:
            raise
        return h5py.File(path, "r", locking=False, rdcc_nbytes=CHUNK_CACHE_BYTES)


def _open_remote(path: RemotePath) -> h5py.File:
    remedy = "Correct the URL, or give this process access to it; or download the file."
    try:
        stream = path.open("rb")
        start = stream.read(256)
        stream.seek(0)
    except UserError:
        raise
    except Exception as error:  # each store has its own, from aiohttp's to botocore's
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(describe(str(path), found, "a readable file", remedy)) from error
    found, remedy = _look_of(start)
    if found:
        raise UserError(describe(str(path), found, "an HDF5 file", remedy))
    try:
        return h5py.File(stream, "r", rdcc_nbytes=CHUNK_CACHE_BYTES)
    except OSError as error:
        found = f"no HDF5 file, or one that is cut short or damaged ({error})"
        remedy = "Upload it again."
        raise UserError(describe(str(path), found, "a whole one", remedy)) from error


def _require_hdf5_signature(path: Path) -> None:
    if not os.path.isfile(path):  # nor is there a file whose name is too long
        raise UserError(_missing(path))
    try:
        with path.open("rb") as file:
            start = file.read(256)
    except OSError as error:
        remedy = "Ask for permission to read it, or copy it."
        raise UserError(
            describe(str(path), f"{error.strerror}", "a readable file", remedy)
        ) from error
    found, remedy = _look_of(start)
    if found == "" and not h5py.is_hdf5(path):
        found = f"a file that starts with {start[:8]!r}"
        remedy = "Give an HDF5 file; if this should be one, copy, download or record it again."
    if found:
        raise UserError(describe(str(path), found, "an HDF5 file", remedy))


def _look_of(start: bytes) -> tuple[str, str]:
    """What a file that is not HDF5 is, and what to do; ("", "") when its start tells nothing."""
    if not start:
        return "an empty file (0 bytes)", "Copy, download or record it again."
    if start.startswith(APPLE_DOUBLE):
        found = "what macOS keeps beside a file (AppleDouble), and not that file"
        return found, "Open the file whose name has no '._' before it, and delete this one."
    if start.startswith(b"version https://git-lfs"):
        found = "a Git LFS pointer, a text that stands for the data"
        return found, "Run `git lfs pull` in its repository."
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        found = f"a web page (it starts with {start[:15]!r})"
        return found, "Download it again, from its direct link and with the login it needs."
    return "", ""


def _missing(path: Path) -> str:
    is_listed = os.path.isdir(path.parent) and os.access(path.parent, os.R_OK)
    siblings = sorted(os.listdir(path.parent)) if is_listed else []
    partial = [
        name for name in siblings if name.startswith(path.name) and name.endswith(PARTIAL_SUFFIX)
    ]
    if partial:
        return describe(
            str(path),
            f"no such file, only the interrupted recording {partial[0]!r}",
            "a finished HDF5 file",
            f"Record it again, or open {partial[0]!r} for the episodes added before.",
        )
    hint = nearest(path.name, [name for name in siblings if name != path.name])
    return describe(
        str(path),
        "a link that leads nowhere" if os.path.islink(path) else "no such file or folder",
        "an HDF5 file, a folder of them or a glob",
        f"Correct the path{f'; {hint}' if hint else '.'}",
    )


def _unopenable(path: Path, error: OSError) -> str:
    size = path.stat().st_size
    return describe(
        str(path),
        f"an HDF5 file of {size} bytes that is cut short or damaged ({error})",
        "a whole one",
        "Copy, download or record it again; robot-data salvage takes what is left of it.",
    )
