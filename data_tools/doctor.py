"""validate: what a person should know about a dataset before training on it.

The thresholds stand beside their checks, as constants of `data_tools.checks`. They are wide on
purpose: a finding should be worth reading, and a warning may be meant.
"""

from collections.abc import Iterator

from data_tools.checks.collection import check_columns, check_duplicates, check_successes
from data_tools.checks.frames import check_frames
from data_tools.checks.numbers import (
    check_action_range,
    check_finite,
    check_instruction,
    check_length,
)
from data_tools.episode import Dataset
from data_tools.finding import Finding


def validate(dataset: Dataset) -> list[Finding]:
    """Everything suspicious in numbers, sentences and images; empty for a clean dataset.

    Reads every number, and of the images the first, middle and last of each camera and episode.
    What makes a file unreadable is told by `open_dataset` before this can be asked.
    """
    findings = [finding for index in range(len(dataset)) for finding in _episode(dataset, index)]
    findings += [*check_duplicates(dataset), *check_successes(dataset)]
    if not any(finding.rule == "not_finite" for finding in findings):
        findings += check_columns(dataset)
    return findings


def number_errors(dataset: Dataset) -> list[Finding]:
    """The errors of `validate` that need no image: cheap enough to look before every training."""
    return [
        finding
        for index in range(len(dataset))
        for check in (check_finite, check_action_range)
        for finding in check(dataset[index], dataset.conventions)
    ]


def _episode(dataset: Dataset, index: int) -> Iterator[Finding]:
    episode, conventions = dataset[index], dataset.conventions
    yield from check_finite(episode, conventions)
    yield from check_action_range(episode, conventions)
    yield from check_length(episode, conventions)
    yield from check_instruction(episode)
    yield from check_frames(episode, conventions)
