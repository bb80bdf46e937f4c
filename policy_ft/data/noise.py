"""Randomness without state: a draw is a function of what it is for, not of who draws it or when.

Philox (Salmon et al. 2011) is a counter-based generator: key and counter alone decide its output.
The key is the run's seed and the counter names the purpose, the epoch and the sample, so that
workers, ranks, batch sizes and resumed runs all draw the same numbers, and there is no generator
state to save.

Every random number of a run comes from here, but for these, which other generators make: random
weights from torch's, seeded with the run's seed (models/build.py); the masks of dropout from
torch's, seeded with `dropout_seed`; and whatever an environment draws, from its own generator,
which it seeds with the episode's seed.
"""

from enum import IntEnum
from typing import Literal

import numpy as np
import numpy.typing as npt


class Purpose(IntEnum):
    """What random numbers are for; two purposes share none. Resumed runs rely on the values."""

    FLOW = 0
    SHUFFLE = 1
    SPLIT = 2
    VALIDATION = 3
    MIXTURE = 4
    LIMIT = 5
    ROLLOUT = 6
    LWF = 7
    LWF_CHUNK = 8
    AUGMENT = 9


def generator(seed: int, purpose: Purpose, epoch: int, sample_id: int = 0) -> np.random.Generator:
    """A fresh generator that depends on these four values alone."""
    key = np.array([seed, 0], dtype=np.uint64)
    # the first word counts the numbers drawn; the others are ours
    counter = np.array([0, purpose, sample_id, epoch], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def flow_noise(
    seed: int,
    epoch: int,
    sample_id: int,
    num_draws: int,
    chunk_shape: tuple[int, int],
    purpose: Literal[Purpose.FLOW, Purpose.VALIDATION] = Purpose.FLOW,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Noise and uniform numbers for the flow times of one sample.

    Args:
        seed: of the run.
        epoch: pass over the data, counted from 0.
        sample_id: of the window.
        num_draws: k. Draw i is the same for every k > i.
        chunk_shape: (h, a), the action chunk.
        purpose: training, or validation, which would else repeat the first epoch's noise.

    Returns:
        noise float32[k, h, a], standard normal, and uniform float32[k] in [0, 1).
    """
    draws = generator(seed, purpose, epoch, sample_id)
    noise = np.empty((num_draws, *chunk_shape), dtype=np.float32)
    uniform = np.empty(num_draws, dtype=np.float32)
    for draw in range(num_draws):
        uniform[draw] = draws.random(dtype=np.float32)
        draws.standard_normal(dtype=np.float32, out=noise[draw])
    return noise, uniform


def rollout_noise(
    episode_seed: int, chunk_index: int, shape: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Standard normal float32[h, a], a pure function of episode seed and chunk number.

    So an episode comes out the same whichever other episodes share its batch, in whatever order;
    and no run whose seed is an episode's has trained on the noise that the episode starts from.
    """
    draws = generator(episode_seed, Purpose.ROLLOUT, epoch=0, sample_id=chunk_index)
    return draws.standard_normal(shape, dtype=np.float32)


def dropout_seed(seed: int, train_step: int, rank: int) -> int:
    """The seed of torch's generator for the dropout of one train step on one rank, 64 bits."""
    return int(np.random.SeedSequence((seed, train_step, rank)).generate_state(1, np.uint64)[0])
