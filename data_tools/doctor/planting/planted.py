"""What was planted, and why something cannot be."""

from typing import NamedTuple


class UnfitError(ValueError):
    """This episode, or this dataset, has no place for the fault; the message says what it lacks."""


class Planted(NamedTuple):
    """One thing that was done: the episode, '' for the dataset as a whole, and what was done."""

    episode: str
    change: str
