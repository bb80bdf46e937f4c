"""The order of samples: a pure function of seed and epoch, so a run can go on from any sample."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from policy_ft.data.noise import Purpose, generator


def sample_at(
    positions: npt.NDArray[np.int64], num_samples: int, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Which sample stands at each position of an endless run over the data.

    With 3 samples, positions 0..2 are a permutation of the samples (epoch 0), positions 3..5
    another one (epoch 1).

    Args:
        positions: int64[n], samples since the start of the run, counted from 0.
        num_samples: samples in the data.
        seed: of the run.

    Returns:
        epoch int64[n] and sample_id int64[n] in [0, num_samples).
    """
    epochs, places = np.divmod(np.asarray(positions, dtype=np.int64), num_samples)
    sample_ids = np.empty_like(places)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        sample_ids[here] = _permutation(num_samples, seed, int(epoch))[places[here]]
    return epochs, sample_ids


@lru_cache(maxsize=2)  # a batch spans two epochs at their border
def _permutation(num_samples: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    return generator(seed, Purpose.SHUFFLE, epoch).permutation(num_samples)
