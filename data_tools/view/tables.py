"""Tables for people, in a terminal or a pipe, of which nothing is cut off."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table

from data_tools.episode import Dataset
from data_tools.storage.files.paths import HDF5_SUFFIXES, visible
from data_tools.storage.files.remote import path_of
from data_tools.storage.hdf5.links import outline
from data_tools.storage.hdf5.opening import open_hdf5

_LONGEST = 9
_FOLDED = 4


def print_table(table: Table, console: Console | None = None) -> None:
    """Prints a table whole: long words go on in the next line of their cell, numbers do not.

    Where the output is no terminal and nobody has set COLUMNS, the table is as wide as it needs.

    Args:
        table: columns that are justified to the right hold numbers; what is not to wrap does not.
        console: where to; standard output when not given.
    """
    console = console or Console()
    for column in table.columns:
        column.overflow = "fold"
        column.no_wrap = column.no_wrap or column.justify == "right"
    # rich would cut off what must not wrap
    width, needed = console.width, sum(_narrowest(column) for column in table.columns) + 1
    if line_width(console) is None:
        endless = console.options.update(max_width=10_000)
        needed = Measurement.get(console, endless, table).maximum
    if needed > width:
        console.width = needed
    console.print(table, crop=False)
    if needed > width:
        console.width = width


def _narrowest(column: Column) -> int:
    """Letters that a column takes at least, with its border and space at the sides."""
    texts = [str(column.header), *map(str, column.cells)]
    return 3 + (max(map(cell_len, texts)) if column.no_wrap else _FOLDED)


def line_width(console: Console) -> int | None:
    """Letters of a line; None where the output is no terminal and nobody has set COLUMNS."""
    has_width = console.is_terminal or os.environ.get("COLUMNS", "").isdigit()
    return console.width if has_width else None


def numbers(*titles: str) -> Iterator[Column]:
    """Columns of numbers for a table."""
    return (Column(title, justify="right") for title in titles)


def number_table(
    rows: Mapping[str, Sequence[float]], header: Sequence[str], width: int | None
) -> Iterator[str]:
    """Lines of a table of numbers: name and numbers in one line, in two where it is too narrow.

    Args:
        rows: what stands before the numbers -> the numbers of a row.
        header: name of the first column and of those of the numbers.
        width: letters of a line; None for no limit.
    """
    first, *titles = header
    longest = max(map(len, [first, *rows]))
    has_two = width is not None and longest + (_LONGEST + 1) * len(titles) > width
    indent = 2 if has_two else longest
    texts = {name: [short(value) for value in row] for name, row in rows.items()}
    for name, cells in {first: titles, **texts}.items():
        if has_two:
            yield name
        start = "" if has_two else name
        yield f"{start:{indent}}" + "".join(f" {cell:>{_LONGEST}}" for cell in cells)


def short(value: float) -> str:
    """Four digits of a number, in at most nine letters: '-0.007123', '-7.123e-4', '1.2e-100'."""
    value += 0.0  # no negative zero
    texts = [f"{value:.4g}", *(f"{value:.{digits}e}" for digits in (3, 2, 1, 0))]
    tidy = (text.replace("e-0", "e-").replace("e+0", "e").replace("e+", "e") for text in texts)
    return next(text for text in tidy if len(text) <= _LONGEST)


def summary(dataset: Dataset) -> dict[str, object]:
    """The facts by name: layout and evidence, sizes, cameras, columns, sentences and warnings.

    `columns` has the number of episodes that have each.
    `megabytes` is of files on this machine, None where one is elsewhere; `judged` is the number of
    episodes of which somebody said whether they succeeded; `tree` outlines the first HDF5 file.
    """
    episodes = [dataset[index] for index in range(len(dataset))]
    conventions, inspected = dataset.conventions, dataset.inspected
    num_frames = sum(episode.num_steps for episode in episodes)
    instructions = Counter(episode.instruction for episode in episodes).most_common()
    return {
        "layout": list(inspected.layouts),
        "evidence": list(inspected.evidence),
        "files": len(inspected.files),
        "megabytes": _megabytes(inspected.files),
        "episodes": len(episodes),
        "frames": num_frames,
        "duration_s": num_frames / conventions.control_hz if conventions.control_hz else None,
        "successes": sum(episode.is_success is True for episode in episodes),
        "judged": sum(episode.is_success is not None for episode in episodes),
        "cameras": [f"{c.name} {c.width} x {c.height}" for c in conventions.cameras],
        "state_dim": len(conventions.state.names),
        "action_dim": len(conventions.action.names),
        "columns": {
            name: sum(name in episode.columns for episode in episodes) for name in dataset.columns
        },
        "instructions": [{"text": text, "episodes": count} for text, count in instructions],
        # through JSON, whose writer has words for infinite limits
        "conventions": json.loads(conventions.model_dump_json()),
        "tree": _first_tree(inspected.files),
        "rules": list(inspected.rules),
        "origins": {place: list(told) for place, told in inspected.origins.items()},
        "undeclared": list(inspected.undeclared),
        "fingerprint": dataset.fingerprint,
        "warnings": [str(warning) for warning in inspected.warnings],
    }


def _megabytes(names: tuple[str, ...]) -> float | None:
    paths = [path for name in names if (path := Path(name)).exists()]
    if len(paths) < len(names):
        return None
    folders = [each for path in paths for each in visible(path.rglob("*"), path).read]
    return sum(file.stat().st_size for file in (*paths, *folders) if file.is_file()) / 1e6


def tree_of(path: Path) -> list[str]:
    """The outline of an HDF5 file; UserError where it cannot be opened."""
    with open_hdf5(path) as file:
        return outline(file)


def _first_tree(names: tuple[str, ...]) -> list[str]:
    first = next((name for name in names if name.endswith(HDF5_SUFFIXES)), None)
    return [] if first is None else tree_of(path_of(first))
