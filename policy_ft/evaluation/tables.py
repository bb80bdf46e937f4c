"""Evaluation results as tables for the terminal and for reports."""

from collections.abc import Mapping

from rich.table import Table

from data_tools.view.tables import numbers
from policy_ft.evaluation.results import EvaluationResult

HEADER = ("tasks", "episodes", "success", "95 % interval", "any object")


def success_rows(results: Mapping[str, EvaluationResult]) -> list[tuple[str, ...]]:
    """One row a label: success rate with its Wilson interval, and success with any object."""
    return [(label, *_cells(result)) for label, result in results.items()]


def family_table(title: str, result: EvaluationResult) -> Table:
    """Success by task family and in total, for the terminal."""
    families = result.by_family()
    env_id = result.episodes[0].env_id
    labelled = {family or env_id: each for family, each in families.items()}
    table = Table(HEADER[0], *numbers(*HEADER[1:]), title=title, title_justify="left")
    for row in success_rows({**labelled, "all": result} if len(families) > 1 else labelled):
        table.add_row(*row)
    return table


def _cells(result: EvaluationResult) -> tuple[str, ...]:
    success, any_object = result.success, result.success_any
    return (
        str(success.n),
        f"{100 * success.success_rate:.1f} %",
        f"{100 * success.low:.1f} to {100 * success.high:.1f} %",
        f"{100 * any_object.success_rate:.1f} %",
    )
