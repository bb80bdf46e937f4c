"""The order of samples: a pure function of seed and position, so a run can go on from anywhere."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from policy_ft.data.noise import Purpose, generator

BLOCK: Final = 1000
"""Positions in which the shares of several sources are honoured to the sample."""

Ints = npt.NDArray[np.int64]


def sample_at(positions: Ints, num_samples: int, seed: int, source: int = 0) -> tuple[Ints, Ints]:
    """Which sample stands at each position of an endless run over the data.

    With 3 samples, positions 0..2 are a permutation of the samples (epoch 0), positions 3..5
    another one (epoch 1).

    Args:
        positions: int64[n], samples since the start of the run, counted from 0.
        num_samples: samples in the data.
        seed: of the run.
        source: number of the dataset; two are shuffled differently.

    Returns:
        epoch int64[n] and sample_id int64[n] in [0, num_samples).
    """
    epochs, places = np.divmod(np.asarray(positions, dtype=np.int64), num_samples)
    sample_ids, permutation = np.empty_like(places), _permutations(source)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        sample_ids[here] = permutation(num_samples, seed, int(epoch))[places[here]]
    return epochs, sample_ids


class Order(Protocol):
    """Which sample stands at each position of an endless run: a pure function, and picklable.

    What it says of a position must not depend on what else was asked, nor on when and where: ranks
    and workers ask for their own parts, and a resumed run for what is left. Noise and time are
    functions of epoch and sample_id, so a pair of them that comes twice brings the same noise: an
    order that draws with replacement counts a sample's epochs up.
    """

    def __call__(self, positions: Ints) -> tuple[Ints, Ints]:
        """The epoch int64[n], at least 0, and the sample_id int64[n] at each position int64[n]."""


@dataclass(frozen=True)
class Shuffled:
    """An `Order` over one or several sources, each gone through in epochs and mixed by its share.

    The positions are cut into blocks of 1000. After each block every source has had its share of
    all samples so far, less than one sample off; within a block the sources are mixed at random.
    Inside a source the order is `sample_at`'s, so each has epochs of its own.

    Attributes:
        sizes: samples of each source; sample ids count through the sources in order.
        shares: of each source in the samples; together 1, each at least 1 / BLOCK.
        seed: of the run.
    """

    sizes: tuple[int, ...]
    shares: tuple[float, ...]
    seed: int

    def __call__(self, positions: Ints) -> tuple[Ints, Ints]:
        """The epoch int64[n] in its own source, and the sample_id int64[n], of each position."""
        if len(self.sizes) == 1:
            return sample_at(positions, self.sizes[0], self.seed)
        sources, ranks = self._within_sources(np.asarray(positions, dtype=np.int64))
        epochs, sample_ids = np.empty_like(ranks), np.empty_like(ranks)
        firsts = np.cumsum((0, *self.sizes))
        for source in np.unique(sources).tolist():
            here = sources == source
            epoch, local = sample_at(ranks[here], self.sizes[source], self.seed, source)
            epochs[here], sample_ids[here] = epoch, local + firsts[source]
        return epochs, sample_ids

    def _within_sources(self, positions: Ints) -> tuple[Ints, Ints]:
        """The source of each position, and how many samples that source had before."""
        blocks, places = np.divmod(positions, BLOCK)
        sources, ranks = np.empty_like(places), np.empty_like(places)
        for block in np.unique(blocks):
            here = blocks == block
            of_block = _block(self.shares, self.seed, int(block))
            sources[here], ranks[here] = (each[places[here]] for each in of_block)
        return sources, ranks


@lru_cache(maxsize=4)
def _block(shares: tuple[float, ...], seed: int, block: int) -> tuple[Ints, Ints]:
    """Source int64[BLOCK] of each place of a block, and its rank among that source's samples."""
    before, after = _drawn(shares, block), _drawn(shares, block + 1)
    counts = after - before
    sources = np.repeat(np.arange(len(shares)), counts)
    sources = generator(seed, Purpose.MIXTURE, epoch=block).permutation(sources)
    ranks = np.empty_like(sources)
    for source, (start, count) in enumerate(zip(before, counts, strict=True)):
        ranks[sources == source] = start + np.arange(count)
    return sources, ranks


def _drawn(shares: tuple[float, ...], blocks: int) -> Ints:
    """int64[n]: samples of each source in the first blocks, within one of the exact share.

    The rounded sums of the shares, and their differences: with exact fractions and shares of at
    least 1 / BLOCK no source ever loses what it had.
    """
    whole = sum(map(Fraction, shares))
    sums = [sum(map(Fraction, shares[: i + 1])) / whole for i in range(len(shares))]
    ends = [int(each * BLOCK * blocks) for each in sums]
    return np.array(ends, dtype=np.int64) - np.array([0, *ends[:-1]], dtype=np.int64)


@cache
def _permutations(source: int) -> Callable[[int, int, int], npt.NDArray[np.signedinteger]]:
    """(samples, seed, epoch) -> permutation; keeps two of a source, as a batch may span epochs."""

    def permutation(num_samples: int, seed: int, epoch: int) -> npt.NDArray[np.signedinteger]:
        # 40 MB for ten million samples, in each worker; the order is that of 64-bit numbers.
        dtype = np.int32 if num_samples < 1 << 31 else np.int64
        order: npt.NDArray[np.signedinteger] = np.arange(num_samples, dtype=dtype)
        generator(seed, Purpose.SHUFFLE, epoch, source).shuffle(order)
        return order

    return lru_cache(maxsize=2)(permutation)
