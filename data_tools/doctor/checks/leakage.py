"""Checks of splits: does training already hold what validation asks for?"""

from collections.abc import Iterator, Mapping
from typing import Final

from data_tools.doctor.checks.collection import numbers_digest
from data_tools.doctor.checks.recording import Recording
from data_tools.episode import Dataset, Episode
from data_tools.finding import DATASET, Finding, Rule

SOURCE_ATTRIBUTE: Final = "source_demo"
SPLIT_ATTRIBUTE: Final = "split"

SPLIT_OVERLAP = Rule(
    name="split_overlap",
    severity="error",
    sentence="An episode is in training and in validation.",
    threshold="no episode on both sides",
    remedy="Take it out of one of them: validation would praise memory.",
)
SPLIT_LEAKAGE = Rule(
    name="split_leakage",
    severity="error",
    sentence="Episodes generated from one human demonstration are in training and in validation.",
    threshold="all children of a demonstration on one side",
    remedy="Split again by source demonstration: robot-data split --group source_demo.",
)
RULES = (SPLIT_OVERLAP, SPLIT_LEAKAGE)


def check_leakage(training: Dataset, validation: Dataset) -> Iterator[Finding]:
    """Episodes of validation that training holds, or of which it holds a sibling."""
    sides = {
        "training": [training[index] for index in range(len(training))],
        "validation": [validation[index] for index in range(len(validation))],
    }
    yield from _check_sides(sides)


def check_declared_splits(episodes: Mapping[str, list[Episode]]) -> Iterator[Finding]:
    """The same within one dataset whose episodes say to which split they belong.

    Args:
        episodes: value of the attribute 'split' -> the episodes that carry it.
    """
    yield from _check_sides(episodes)


def _check_sides(sides: Mapping[str, list[Episode]]) -> Iterator[Finding]:
    seen: dict[bytes, tuple[str, str]] = {}
    parents: dict[str, dict[str, list[str]]] = {}
    for side, episodes in sides.items():
        for episode in episodes:
            digest = numbers_digest(Recording.of(episode))
            other, name = seen.setdefault(digest, (side, episode.name))
            if other != side:
                yield SPLIT_OVERLAP.found(episode.name, f"in {side}, and in {other} as {name}")
            parent = episode.attributes.get(SOURCE_ATTRIBUTE)
            if parent is not None:
                parents.setdefault(str(parent), {}).setdefault(side, []).append(episode.name)
    for parent, children in parents.items():
        if len(children) > 1:
            told = ", ".join(f"{len(names)} in {side}" for side, names in children.items())
            example = " and ".join(names[0] for names in children.values())
            yield SPLIT_LEAKAGE.found(DATASET, f"children of {parent}: {told}, e.g. {example}")
