"""bench: how many training samples a second a dataset gives, where the time goes, and what helps.

A sample is what training reads at a random step: one frame of each camera, the state, and the
actions of the next `horizon` steps.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from multiprocessing.synchronize import Barrier
from typing import Final

import h5py
import numpy as np

from data_tools.declaration import Declaration
from data_tools.episode import Dataset, Episode
from data_tools.errors import UserError, describe
from data_tools.storage.hdf5.opening import open_hdf5

WARM_UP_SAMPLES: Final = 4
START_TIMEOUT_S: Final = 300.0
MIN_READS: Final = 3
# A frame of which more than this multiple is read and unpacked is stored badly for training.
WASTEFUL: Final = 2.0
# Below the slowest JPEG reader measured on one core; see docs/experiments.md.
SLOW_SAMPLES_PER_S: Final = 400.0


class CameraCost(Declaration):
    """What one random frame of a camera costs."""

    camera: str
    encoding: str
    storage: str
    frame_ms: float
    bytes_read: int | None
    bytes_unpacked: int | None
    decode_share: float | None


class BenchResult(Declaration):
    """Speed of random access, by number of processes; what it consists of; and what would help.

    Attributes of a camera that are None cannot be told for its storage (video files).
    """

    samples_per_s: dict[int, float]
    sample_ms: float
    images_share: float
    bytes_per_sample: int | None
    cameras: tuple[CameraCost, ...]
    advice: tuple[str, ...]


@dataclass(frozen=True)
class Sampling:
    """Which samples are read: of these cameras, with so many actions, from this seed."""

    cameras: tuple[str, ...]
    horizon: int = 50
    seconds: float = 3.0
    seed: int = 0


def bench(
    dataset: Dataset,
    sampling: Sampling,
    workers: Sequence[int] = (1,),
    advance: Callable[[str], None] = lambda done: None,
) -> BenchResult:
    """Measure random access with each number of processes, one after another.

    Files are read as they are, mostly from the operating system's memory once they were touched: on
    a slow disk the first epoch is slower.

    Args:
        dataset: what is read; every worker opens it anew.
        sampling: what a sample is, and how long each measurement takes.
        workers: numbers of processes.
        advance: called with each measurement that is done.

    Raises:
        UserError: a worker cannot read the data.
    """
    rates: dict[int, float] = {}
    for count in workers:
        rates[count] = _rate(dataset, sampling, count)
        advance(f"{count} processes")
    blind = Sampling((), sampling.horizon, min(1.0, sampling.seconds), sampling.seed)
    sample_ms = 1000 / _measure(dataset, sampling)
    without_images_ms = 1000 / _measure(dataset, blind)
    costs = []
    for camera in sampling.cameras:
        costs.append(_camera_cost(dataset, camera, sampling))
        advance(camera)
    read = [cost.bytes_read for cost in costs]
    numbers = 4 * (_width(dataset[0].state()) + sampling.horizon * _width(dataset[0].actions()))
    known = [each for each in read if each is not None]
    return BenchResult(
        samples_per_s={count: round(rate, 1) for count, rate in rates.items()},
        sample_ms=round(sample_ms, 3),
        images_share=round(max(0.0, 1 - without_images_ms / sample_ms), 3),
        bytes_per_sample=numbers + sum(known) if len(known) == len(read) else None,
        cameras=tuple(costs),
        advice=tuple(_advice(dataset, costs, rates)),
    )


def read_samples(dataset: Dataset, sampling: Sampling) -> Iterator[None]:
    """Read one random sample at each step of the iterator, without end."""
    lengths = np.array([dataset[index].num_steps for index in range(len(dataset))])
    ends = np.cumsum(lengths)
    rng = np.random.default_rng(sampling.seed)
    while True:
        frame = int(rng.integers(ends[-1]))
        index = int(np.searchsorted(ends, frame, side="right"))
        step = frame - int(ends[index] - lengths[index])
        episode = dataset[index]
        episode.observation(step, sampling.cameras)
        # a copy, as a batch makes one
        np.array(episode.actions()[step : step + sampling.horizon])
        yield


def _measure(dataset: Dataset, sampling: Sampling) -> float:
    """Samples a second in this process."""
    samples = read_samples(dataset, sampling)
    for _ in range(WARM_UP_SAMPLES):
        next(samples)
    count, start = 0, time.perf_counter()
    while count < MIN_READS or time.perf_counter() - start < sampling.seconds:
        next(samples)
        count += 1
    return count / (time.perf_counter() - start)


def _rate(dataset: Dataset, sampling: Sampling, workers: int) -> float:
    """Samples a second of so many processes together; they begin at the same moment."""
    if workers == 1:
        return _measure(dataset, sampling)
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(workers), context.SimpleQueue()
    processes = [
        context.Process(
            target=_work,
            args=(dataset, Sampling(sampling.cameras, sampling.horizon, sampling.seconds, seed)),
            kwargs={"barrier": barrier, "results": results},
        )
        for seed in range(sampling.seed, sampling.seed + workers)
    ]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            codes = [process.exitcode for process in processes]
            remedy = "Look at the traceback above; measure with --workers 1."
            raise UserError(describe("workers", f"exit codes {codes}", "0 of each", remedy))
        return float(sum(results.get() for _ in processes))
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
                process.join()


def _work(
    dataset: Dataset,
    sampling: Sampling,
    *,
    barrier: Barrier,
    results: "multiprocessing.queues.SimpleQueue[float]",
) -> None:
    try:
        next(read_samples(dataset, sampling))
        barrier.wait(START_TIMEOUT_S)
        results.put(_measure(dataset, sampling))
    except BaseException:
        barrier.abort()  # or the other workers would wait for this one
        raise


def _camera_cost(dataset: Dataset, camera: str, sampling: Sampling) -> CameraCost:
    """Time and bytes of random frames of one camera."""
    rng = np.random.default_rng(sampling.seed)
    seconds = min(1.0, sampling.seconds) / 2
    frame_ms = _mean_ms(lambda: _random_frame(dataset, rng, camera), seconds)
    episode = dataset[0]
    stored = episode.stored_frames(camera)
    if not stored.dataset:
        return CameraCost(
            camera=camera, encoding=stored.encoding, storage="not HDF5", frame_ms=frame_ms,
            bytes_read=None, bytes_unpacked=None, decode_share=None,
        )  # fmt: skip
    with open_hdf5(stored.path) as file:
        frames = file[stored.dataset]
        step = episode.num_steps // 2
        pieces = list(_chunks_of(frames, step))
        fetch_ms = _mean_ms(lambda: _fetch(frames, pieces, step), seconds)
        read, unpacked = _touched_bytes(frames, pieces, step)
        storage = _storage(frames, len(pieces))
    share = None if pieces == [] and frames.dtype.hasobject else max(0.0, 1 - fetch_ms / frame_ms)
    return CameraCost(
        camera=camera,
        encoding=stored.encoding,
        storage=storage,
        frame_ms=round(frame_ms, 3),
        bytes_read=read,
        bytes_unpacked=unpacked,
        decode_share=None if share is None else round(share, 3),
    )


def _random_frame(dataset: Dataset, rng: np.random.Generator, camera: str) -> None:
    episode: Episode = dataset[int(rng.integers(len(dataset)))]
    episode.image(camera, int(rng.integers(episode.num_steps)))


def _chunks_of(frames: h5py.Dataset, step: int) -> Iterator[tuple[int, ...]]:
    """Where each chunk begins that holds part of a frame; nothing for data in one piece."""
    if frames.chunks is None:
        return
    first = step // frames.chunks[0] * frames.chunks[0]
    rest = zip(frames.shape[1:], frames.chunks[1:], strict=True)
    for others in product(*(range(0, size, chunk) for size, chunk in rest)):
        yield (first, *others)


def _fetch(frames: h5py.Dataset, pieces: Sequence[tuple[int, ...]], step: int) -> None:
    """Read a frame's bytes as they lie in the file, without unpacking them."""
    if not pieces:
        frames[step]
    for place in pieces:
        frames.id.read_direct_chunk(place)


def _touched_bytes(
    frames: h5py.Dataset, pieces: Sequence[tuple[int, ...]], step: int
) -> tuple[int, int]:
    """Bytes read from the file for one frame, and bytes they unpack to."""
    if not pieces or frames.dtype.hasobject:
        size = len(bytes(frames[step])) if frames.dtype.hasobject else frames[step].nbytes
        return size, size
    read = sum(frames.id.get_chunk_info_by_coord(place).size for place in pieces)
    return read, len(pieces) * int(np.prod(frames.chunks)) * frames.dtype.itemsize


def _storage(frames: h5py.Dataset, num_pieces: int) -> str:
    """How the frames lie: '1 chunk a frame, gzip' or 'in one piece'."""
    if frames.chunks is None:
        return "in one piece"
    packed = f", {frames.compression}" if frames.compression else ""
    if num_pieces == 1 and frames.chunks[0] == 1:
        return f"1 chunk a frame{packed}"
    return f"{num_pieces} chunks of {frames.chunks[0]} frames{packed}"


def _advice(
    dataset: Dataset, costs: Sequence[CameraCost], rates: dict[int, float]
) -> Iterator[str]:
    remedy = "`robot-data repack` stores one frame a chunk."
    for cost in costs:
        spec = dataset.conventions.camera(cost.camera)
        pixels = spec.height * spec.width * 3
        if cost.bytes_unpacked is not None and cost.bytes_unpacked > WASTEFUL * pixels:
            factor = cost.bytes_unpacked / pixels
            yield (
                f"{cost.camera}: one frame of {pixels / 1e3:.0f} kB unpacks "
                f"{cost.bytes_unpacked / 1e3:.0f} kB, {factor:.0f} times its size "
                f"({cost.storage}). {remedy}"
            )
        elif cost.encoding in ("raw", "video", "png") and max(rates.values()) < SLOW_SAMPLES_PER_S:
            yield (
                f"{cost.camera}: {cost.frame_ms:.1f} ms a frame ({cost.encoding}, {cost.storage}). "
                "`robot-data repack` to JPEG, one frame a chunk, is faster to decode or smaller "
                "to read."
            )
    if len(rates) > 1:
        one, most = min(rates), max(rates)
        gain = rates[most] / rates[one] * one
        if gain < 0.8 * most:
            yield (
                f"{most} processes read {gain:.1f} times what {one} reads, on "
                f"{os.cpu_count()} cores: more workers than that will not help."
            )


def _mean_ms(read: Callable[[], None], seconds: float) -> float:
    read()
    count, start = 0, time.perf_counter()
    while count < MIN_READS or time.perf_counter() - start < seconds:
        read()
        count += 1
    return 1000 * (time.perf_counter() - start) / count


def _width(array: np.ndarray) -> int:
    return array.shape[1]
