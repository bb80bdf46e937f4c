"""Checks of the columns that an episode has beside its state and actions."""

from collections.abc import Iterator
from typing import Final

from data_tools.columns import column_where, value_faults
from data_tools.episode import Episode
from data_tools.errors import Fault
from data_tools.finding import Finding, Rule

UNUSABLE_COLUMN: Final = Rule(
    name="unusable_column",
    severity="warning",
    sentence="A column, as `weight`, holds what no run can use: NaN, infinity, a weight below 0.",
    threshold="finite numbers, and weights of at least 0",
    remedy="Correct the values; a run that uses the column (data.columns) refuses them.",
)
RULES: Final = (UNUSABLE_COLUMN,)


def check_columns(episode: Episode) -> Iterator[Finding]:
    """What is wrong with the numbers of an episode's columns, at the first step of each kind."""
    for name in episode.columns:
        values, where = episode.column(name), column_where(episode, name)
        for fault in value_faults(where, name, values, episode.num_steps):
            assert isinstance(fault, Fault)
            yield UNUSABLE_COLUMN.told(fault)
