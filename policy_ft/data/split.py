"""Training and validation episodes: chosen by a person, or at random."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property

from data_tools.columns import columns_of_all
from data_tools.conventions import Conventions
from data_tools.episode import Dataset, Episode, Inspected, holding_numbers
from data_tools.rewrite.split import joined
from policy_ft.data.noise import Purpose, generator
from policy_ft.errors import UserError, describe


class DividedDataset:
    """The episodes a person chose to train on, and then those to validate on: a `Dataset`.

    Attributes:
        training: the episodes to train on.
        validation: the episodes to validate on, with the same conventions.
    """

    def __init__(self, training: Dataset, validation: Dataset) -> None:
        self.training = training
        self.validation = validation

    def with_parts(self, change: Callable[[Dataset], Dataset]) -> "DividedDataset":
        """The same division of what `change` makes of each part."""
        return DividedDataset(change(self.training), change(self.validation))

    @property
    def conventions(self) -> Conventions:
        """What the data declares about its cameras, state and actions."""
        return self.training.conventions

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that episodes of either part have."""
        return columns_of_all((self.training, self.validation))

    @property
    def inspected(self) -> Inspected:
        """What was learned about the files when they were opened."""
        return self.training.inspected

    def holding(self) -> AbstractContextManager[object]:
        """Within it numbers that were read stay in memory, all of them."""
        return holding_numbers(self.training, self.validation)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hex over the fingerprints of the parts."""
        both = f"{self.training.fingerprint} {self.validation.fingerprint}"
        return hashlib.sha256(both.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.training) + len(self.validation)

    def __getitem__(self, index: int) -> Episode:
        if not 0 <= index < len(self):
            raise IndexError(f"episode {index}; there are {len(self)}")
        beyond = index - len(self.training)
        return self.training[index] if beyond < 0 else self.validation[beyond]


def split_episodes(
    episodes: Dataset,
    validation_fraction: float,
    seed: int,
    where: str = "data.path",
    groups: Sequence[str] = (),
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Indices of the training and of the validation episodes, both ascending.

    Of a `DividedDataset` its parts; otherwise at random. Whole episodes, at least one of each:
    neighbouring steps of one episode look almost alike, so steps are never divided.

    Args:
        episodes: all demonstrations.
        validation_fraction: share of the episodes that goes to validation, rounded to the nearest
            number.
        seed: two seeds are two splits.
        where: the setting that names the episodes, for messages.
        groups: attributes whose value must not be on both sides; see `data_tools.rewrite.split`.

    Raises:
        UserError: fewer than two episodes, or all of them in one group.
    """
    count = len(episodes)
    if isinstance(episodes, DividedDataset):
        num_training = len(episodes.training)
        return tuple(range(num_training)), tuple(range(num_training, count))
    if count < 2:
        raise UserError(
            describe(
                where,
                f"{count} episodes",
                "at least 2, one to train on and one to validate on",
                f"Record more demonstrations, or add a file to {where}.",
            )
        )
    together = joined(episodes, groups)
    if len(together) < 2:
        found = f"{count} episodes that all belong together by {list(groups)}"
        remedy = "Choose them yourself (validation_mask), or set data.split_groups to []."
        raise UserError(describe(where, found, "at least two groups of episodes", remedy))
    num_validation = min(max(round(count * validation_fraction), 1), count - 1)
    order = generator(seed, Purpose.SPLIT, epoch=0).permutation(len(together))
    held_out: list[int] = []
    for place in order[:-1]:
        if len(held_out) >= num_validation:
            break
        held_out += together[place]
    kept = sorted({*range(count)} - {*held_out})
    return tuple(kept), tuple(sorted(held_out))
