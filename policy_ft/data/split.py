"""Training and validation episodes."""

import numpy as np

from data_tools.episode import Dataset
from policy_ft.data.noise import Purpose, generator
from policy_ft.errors import UserError, describe


def split_episodes(
    episodes: Dataset, validation_fraction: float, seed: int, where: str = "data.path"
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Indices of the training and of the validation episodes, both ascending.

    Whole episodes, at least one of each. Neighbouring steps of one episode look almost alike, so
    steps are never divided.

    Args:
        episodes: all demonstrations.
        validation_fraction: share of the episodes that goes to validation, rounded to the nearest
            number.
        seed: two seeds are two splits.
        where: the setting that names the episodes, for messages.

    Raises:
        UserError: fewer than two episodes.
    """
    count = len(episodes)
    if count < 2:
        raise UserError(
            describe(
                where,
                f"{count} episodes",
                "at least 2, one to train on and one to validate on",
                f"Record more demonstrations, or add a file to {where}.",
            )
        )
    num_validation = min(max(round(count * validation_fraction), 1), count - 1)
    order = generator(seed, Purpose.SPLIT, epoch=0).permutation(count)
    held_out = np.sort(order[:num_validation])
    kept = np.sort(order[num_validation:])
    return tuple(kept.tolist()), tuple(held_out.tolist())
