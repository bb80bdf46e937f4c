"""Micro-batches with their noise, from any train step on, for any number of workers and ranks."""

import os
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from policy_ft.data.noise import flow_noise
from policy_ft.data.shuffle import Order
from policy_ft.data.windows import MixedWindows, WindowDataset
from policy_ft.errors import UserError, describe
from policy_ft.models.flow_path import time_from_uniform
from policy_ft.transforms import stacked

Batch = dict[str, Tensor]


class BatchLoader:
    """The batches of one rank.

    The global batch of train step i holds the positions [i * batch_size, (i + 1) * batch_size) of
    the order. It is cut into accumulation_steps micro-batches and each of those into one part a
    rank, so the union over ranks and micro-batches does not depend on their numbers. With
    batch_size 8, 2 micro-batches and 2 ranks, rank 1 gets the positions 2, 3 and then 6, 7 of step
    0.

    Args:
        windows: the samples, of one source or several.
        order: which window stands at each position, e.g. `windows.order(seed)`.
        seed: of the noise.
        batch_size: samples of one train step over all ranks and micro-batches.
        num_draws: noise draws per sample, k.
        rank: of this process.
        world_size: number of processes.
        accumulation_steps: micro-batches of a train step.
        keeps_homes: whether a window goes to the same rank in every epoch as far as the ranks'
            parts stay equal, for a cache of each rank's own; the global batch stays the same.
        num_workers: processes that encode; 0 encodes here.
        prefetch: micro-batches each worker prepares ahead.

    Raises:
        UserError: batch_size does not divide into equal micro-batches and ranks.
    """

    def __init__(
        self,
        windows: WindowDataset | MixedWindows,
        *,
        order: Order,
        seed: int,
        batch_size: int,
        num_draws: int = 1,
        rank: int = 0,
        world_size: int = 1,
        accumulation_steps: int = 1,
        keeps_homes: bool = False,
        num_workers: int = 0,
        prefetch: int = 4,
    ) -> None:
        parts = world_size * accumulation_steps
        if batch_size % parts:
            raise UserError(
                describe(
                    "training.batch_size",
                    f"{batch_size} for {world_size} processes x {accumulation_steps} micro-batches",
                    f"a multiple of {parts}",
                    "Change training.batch_size, training.accumulation_steps or the number of "
                    "processes.",
                )
            )
        self.windows = windows
        self.batch_size = batch_size
        self._samples = _Samples(windows, order, seed, num_draws)
        self._parts = (accumulation_steps, world_size, batch_size // parts)
        self._rank = rank
        self._keeps_homes = keeps_homes
        self._num_workers = num_workers
        self._prefetch = prefetch

    def iter_from(self, train_step: int) -> Generator[list[Batch], None, None]:
        """The micro-batches of this rank for train_step, train_step + 1, and so on without end.

        Each holds the arrays of Transforms.encode stacked (images uint8), sample_id and epoch
        int64[b], noise float32[b, k, h, a], time float32[b, k], and of each column of the windows
        `columns.<name>` float32[b]. Closing the iterator ends its workers.

        Raises:
            UserError: a sample cannot be encoded; names the episode and the step.
        """
        has_workers = self._num_workers > 0
        batches: DataLoader[Batch | UserError] = DataLoader(
            self._samples,  # type: ignore[arg-type]  # map-style by __getitems__ alone
            batch_sampler=_Positions(
                self._samples if self._keeps_homes else None,
                train_step,
                self.batch_size,
                self._parts,
                self._rank,
            ),
            collate_fn=_unchanged,
            num_workers=self._num_workers,
            prefetch_factor=self._prefetch if has_workers else None,
            multiprocessing_context=_worker_context() if has_workers else None,
            worker_init_fn=_end_with_parent,
            pin_memory=torch.cuda.is_available(),
        )
        iterator = iter(batches)
        try:
            while True:
                step = [next(iterator) for _ in range(self._parts[0])]
                yield [_raised(batch) for batch in step]
        finally:
            # ends the workers now: the traceback of an error would keep them alive
            del iterator, batches


@dataclass(frozen=True)
class _Positions:
    """The positions of each micro-batch of one rank, from a train step on, without end.

    With `homes` those come first that hold a window whose home the rank is.
    """

    homes: "_Samples | None"
    first_step: int
    batch_size: int
    parts: tuple[int, int, int]
    rank: int

    def __iter__(self) -> Iterator[list[int]]:
        train_step = self.first_step
        while True:
            start = train_step * self.batch_size
            positions = np.arange(start, start + self.batch_size)
            if self.homes is None:
                yield from positions.reshape(self.parts)[:, self.rank].tolist()
            else:
                num_micro_batches, world_size, _ = self.parts
                homes = self.homes.sample_ids(positions) % world_size
                part = positions[parts_by_home(homes, world_size)[self.rank]]
                yield from part.reshape(num_micro_batches, -1).tolist()
            train_step += 1


def parts_by_home(homes: npt.NDArray[np.int64], world_size: int) -> npt.NDArray[np.int64]:
    """The places of a batch that each rank takes: equal parts, at home wherever there is room.

    With homes [0, 0, 0, 1] of 2 ranks, rank 0 takes the places 0 and 1, rank 1 takes 3 and then 2.

    Args:
        homes: int64[n], the rank that each place would go to; n is a multiple of world_size.
        world_size: number of ranks.

    Returns:
        int64[world_size, n / world_size].
    """
    size = len(homes) // world_size
    by_home = np.argsort(homes, kind="stable")
    counts = np.bincount(homes, minlength=world_size)
    fits = np.arange(len(homes)) - (np.cumsum(counts) - counts)[homes[by_home]] < size
    at_home, guests = by_home[fits], by_home[~fits]
    room = np.repeat(np.arange(world_size), size - np.minimum(counts, size))
    places, ranks = np.concatenate([at_home, guests]), np.concatenate([homes[at_home], room])
    return places[np.argsort(ranks, kind="stable")].reshape(world_size, size)


@dataclass(frozen=True)
class _Samples:
    """Turns the positions of a micro-batch into the batch, in a worker or here."""

    windows: WindowDataset | MixedWindows
    order: Order
    seed: int
    num_draws: int

    def __getitems__(self, positions: Sequence[int]) -> Batch | UserError:
        try:
            epochs, sample_ids = self._placed(np.asarray(positions, dtype=np.int64))
            samples = [self.windows[sample_id] for sample_id in sample_ids.tolist()]
        except UserError as error:
            # raised by the loader: DataLoader would wrap it into a traceback of the worker
            return error
        noise, time = self._flow(epochs, sample_ids)
        epoch = torch.from_numpy(epochs)
        return {**stacked(samples), "epoch": epoch, "noise": noise, "time": time}

    def sample_ids(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """int64[n], which window stands at each position."""
        return self._placed(positions)[1]

    def _placed(
        self, positions: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Epochs and sample ids at some positions; UserError where an order says no such thing."""
        placed, num_windows = self.order(positions), len(self.windows)
        epochs, sample_ids = (np.asarray(values) for values in placed)
        is_sound = (
            {epochs.shape, sample_ids.shape} == {positions.shape}
            and {epochs.dtype.kind, sample_ids.dtype.kind} <= {"i"}
            and (epochs >= 0).all()
            and ((sample_ids >= 0) & (sample_ids < num_windows)).all()
        )
        if not is_sound:
            where = f"{type(self.order).__name__} at positions {_ends(positions)}"
            found = f"epochs {_ends(epochs)} and sample ids {_ends(sample_ids)}"
            expected = (
                f"an epoch int64 from 0 and a sample id int64 from 0 to {num_windows - 1} for "
                f"each of the {len(positions)} positions"
            )
            remedy = "Correct the order, or build it for these windows."
            raise UserError(describe(where, found, expected, remedy))
        return epochs.astype(np.int64), sample_ids.astype(np.int64)

    def _flow(
        self, epochs: npt.NDArray[np.int64], sample_ids: npt.NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        shape = self.windows.transforms.shape
        chunk = (shape.action_horizon, shape.action_dim)
        drawn = [
            flow_noise(self.seed, epoch, sample_id, self.num_draws, chunk)
            for epoch, sample_id in zip(epochs.tolist(), sample_ids.tolist(), strict=True)
        ]
        noise, uniform = (torch.from_numpy(np.stack(values)) for values in zip(*drawn, strict=True))
        return noise, time_from_uniform(uniform)


def _ends(values: npt.NDArray[Any]) -> str:
    """What messages show of an array: type, shape and extremes."""
    extremes = f" from {values.min()} to {values.max()}" if values.size else ""
    return f"{values.dtype}{list(values.shape)}{extremes}"


def _worker_context() -> BaseContext:
    """Workers are forked from a server without threads, which has imported this module once.

    Forked from the training process they would inherit locks that no thread of theirs releases;
    spawned ones abort at their end, where some native library does not survive an orderly exit.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _end_with_parent(worker_id: int) -> None:
    """End this worker when the training process dies, even by SIGKILL.

    DataLoader's own watchdog watches the fork server, which in turn waits for its workers.
    """

    def wait() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _unchanged(batch: Any) -> Any:
    """__getitems__ has stacked the batch already."""
    return batch


def _raised(batch: Batch | UserError) -> Batch:
    if isinstance(batch, UserError):
        raise batch
    return batch
