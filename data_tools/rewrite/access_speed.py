"""How fast random frames of an HDF5 file can be read and decoded: measured, not guessed."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import h5py
import numpy as np

from data_tools.rewrite.frame_storage import Frames, find_frames
from data_tools.storage.hdf5.opening import open_hdf5

MEASURE_S: Final = 1.0
MAX_READS: Final = 1000
MIN_READS: Final = 3


@dataclass(frozen=True)
class AccessSpeed:
    """Size of a file, and its random frames a second, decode included; None without frames.

    Each frame is one of any camera, chosen at random, in one thread, with the file in the page
    cache as far as it fits: what is measured is the storage's work, not the disk.
    """

    num_bytes: int
    frames_per_s: float | None

    def __str__(self) -> str:
        speed = "no frames" if self.frames_per_s is None else f"{self.frames_per_s:.0f} frames/s"
        return f"{self.num_bytes / 1e6:.1f} MB, {speed}"


def measure_access(path: Path, seconds: float = MEASURE_S, seed: int = 0) -> AccessSpeed:
    """Size and random-access speed of a file; the same frames are read for the same seed."""
    with open_hdf5(path) as file:
        cameras = _cameras(file)
        if not cameras:
            return AccessSpeed(path.stat().st_size, None)
        rng = np.random.default_rng(seed)
        num_reads = 0
        cameras[0].pixels(0)  # what is loaded once is not counted
        start = time.perf_counter()
        while num_reads < MIN_READS or (
            num_reads < MAX_READS and time.perf_counter() - start < seconds
        ):
            frames = cameras[rng.integers(len(cameras))]
            frames.pixels(int(rng.integers(len(frames))))
            num_reads += 1
        rate = num_reads / (time.perf_counter() - start)
    return AccessSpeed(path.stat().st_size, rate)


def _cameras(file: h5py.File) -> list[Frames]:
    found: list[Frames] = []

    def visit(_: str, item: h5py.HLObject) -> None:
        frames = find_frames(item) if isinstance(item, h5py.Dataset) else None
        if frames is not None:
            found.append(frames)

    file.visititems(visit)
    return found
