"""robot-data: look at, check and measure robot demonstrations on disk."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data_tools.actions import near_constant_columns
from data_tools.commands.doctor import app as doctor_app
from data_tools.commands.rewrite import app as rewrite_commands
from data_tools.commands.rewrite import progress
from data_tools.commands.view import app as view_app
from data_tools.episode import Dataset
from data_tools.errors import UserError
from data_tools.reader import open_dataset
from data_tools.rewrite.stats_files import lerobot_stats, openpi_stats, write_json
from data_tools.stats import dataset_stats

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Look at, check and measure robot data."
)
app.add_typer(rewrite_commands)

app.add_typer(doctor_app)
app.add_typer(view_app)

Paths = Annotated[list[Path], typer.Argument(help="HDF5 files, folders or globs.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for another program.")]


def main() -> None:
    """Run the command line: 0 is good, 1 means findings, 2 means a fault of what was given."""
    try:
        app()
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from error


@app.command()
def inspect(path: Paths, as_json: AsJson = False) -> None:
    """Say what the files hold: layout, episodes, cameras, columns and sentences."""
    summary = _summary(open_dataset(path, allow_undeclared=True))
    if as_json:
        _print_json(summary)
        return
    table = Table("", "", show_header=False)
    table.columns[1].overflow = "fold"
    for key, value in summary.items():
        lines = value if isinstance(value, list) else [value]
        table.add_row(key, escape("\n".join(map(_line, lines))))
    Console().print(table)


@app.command()
def stats(
    path: Paths,
    as_json: AsJson = False,
    openpi: Annotated[
        Path | None, typer.Option(help="Also write openpi's norm_stats.json here.")
    ] = None,
    lerobot: Annotated[
        Path | None, typer.Option(help="Also write LeRobot's stats.json here; reads every frame.")
    ] = None,
) -> None:
    """Print exact statistics of every state and action column."""
    dataset = open_dataset(path)
    parts = dataset_stats(dataset)
    if openpi is not None:
        write_json(openpi, openpi_stats(parts))
    if lerobot is not None:
        with progress("episodes") as advance:
            counted = lerobot_stats(dataset, advance)
        write_json(lerobot, counted)
    if as_json:
        dumped = {part: values.model_dump() for part, values in parts.items()}
        _print_json({"fingerprint": dataset.fingerprint, **dumped})
        return
    conventions = dataset.conventions
    names = {"state": conventions.state.names, "actions": conventions.action.names}
    units = {"state": conventions.state.units, "actions": conventions.action.units}
    rows = ("mean", "std", "min", "q01", "q99", "max")
    table = Table("column", "unit", *rows, "", title=f"{parts['state'].num_frames} frames")
    for part, values in parts.items():
        still = near_constant_columns(values, "min_max")
        for i, name in enumerate(names[part]):
            numbers = [f"{values.row(row)[i]:.4g}" for row in rows]
            note = "near-constant" if i in still else ""
            table.add_row(escape(f"{part} {name}"), escape(units[part][i]), *numbers, note)
    Console().print(table)


def _summary(dataset: Dataset) -> dict[str, object]:
    episodes = [dataset[index] for index in range(len(dataset))]
    conventions = dataset.conventions
    num_frames = sum(episode.num_steps for episode in episodes)
    return {
        "layout": list(dataset.inspected.layouts),
        "evidence": list(dataset.inspected.evidence),
        "episodes": len(episodes),
        "frames": num_frames,
        "duration_s": num_frames / conventions.control_hz if conventions.control_hz else None,
        "successes": sum(episode.is_success is True for episode in episodes),
        "cameras": [f"{c.name} {c.width} x {c.height}" for c in conventions.cameras],
        "state_dim": len(conventions.state.names),
        "action_dim": len(conventions.action.names),
        "instructions": [
            {"text": text, "episodes": count}
            for text, count in Counter(episode.instruction for episode in episodes).most_common()
        ],
        "conventions": conventions.model_dump(mode="json"),
        "rules": list(dataset.inspected.rules),
        "undeclared": list(dataset.inspected.undeclared),
        "fingerprint": dataset.fingerprint,
        "warnings": [str(warning) for warning in dataset.inspected.warnings],
    }


def _line(value: object) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
