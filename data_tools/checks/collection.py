"""Checks of all episodes together."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from data_tools.actions import near_constant_columns
from data_tools.episode import Dataset
from data_tools.finding import Finding
from data_tools.fingerprint import fingerprint
from data_tools.stats import NormalizationStats, dataset_stats

WHERE: Final = "dataset"
MAX_DEVIATIONS: Final = 10.0


def check_duplicates(dataset: Dataset) -> Iterator[Finding]:
    """Episodes with the same sentence and the same numbers as an earlier one."""
    first_with: dict[str, str] = {}
    for index in range(len(dataset)):
        episode = dataset[index]
        key = fingerprint(dataset.conventions, [episode])
        if key in first_with:
            yield Finding(
                rule="duplicate_episode",
                severity="warning",
                where=episode.name,
                value=f"the states and actions of {first_with[key]}",
                threshold="each demonstration once",
                remedy="Delete one: it counts twice, and may sit in training and validation.",
            )
        first_with.setdefault(key, episode.name)


def check_successes(dataset: Dataset) -> Iterator[Finding]:
    """Demonstrations that were all judged as failures."""
    successes = [dataset[index].is_success for index in range(len(dataset))]
    if all(success is False for success in successes):
        yield Finding(
            rule="no_success",
            severity="warning",
            where=WHERE,
            value=f"success False on all {len(successes)} episodes",
            threshold="at least one success",
            remedy="Check the success attribute, or that these are demonstrations.",
        )


def check_columns(dataset: Dataset) -> Iterator[Finding]:
    """Columns that never move, and values far from all others; the numbers must be finite."""
    names = {"state": dataset.conventions.state.names, "actions": dataset.conventions.action.names}
    for part, stats in dataset_stats(dataset).items():
        still = near_constant_columns(stats, "min_max")
        places = stats.row("mean")
        for column in still:
            yield Finding(
                rule="near_constant_column",
                severity="warning",
                where=WHERE,
                value=f"{part} column {names[part][column]!r} stays near {places[column]:g}",
                threshold="a column that moves",
                remedy="Check the sensor; it will be centred and not scaled.",
            )
        yield from _check_outliers(dataset, part, stats, names[part], still)


def _check_outliers(
    dataset: Dataset,
    part: str,
    stats: NormalizationStats,
    names: tuple[str, ...],
    still: tuple[int, ...],
) -> Iterator[Finding]:
    mean, std = stats.row("mean"), stats.row("std")
    std[list(still)] = np.inf
    for index in range(len(dataset)):
        episode = dataset[index]
        array = episode.state() if part == "state" else episode.actions()
        deviations = np.abs(array - mean) / std
        step, column = np.unravel_index(int(np.argmax(deviations)), deviations.shape)
        if deviations[step, column] > MAX_DEVIATIONS:
            yield Finding(
                rule="outlier",
                severity="warning",
                where=episode.name,
                step=int(step),
                value=(
                    f"{part} {names[int(column)]!r} = {array[step, column]:g}, "
                    f"{deviations[step, column]:.1f} deviations from the mean"
                ),
                threshold=f"at most {MAX_DEVIATIONS:g}",
                remedy="Check for a glitch of the sensor or a wrong unit.",
            )
