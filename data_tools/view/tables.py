"""Tables for people, in a terminal or a pipe, of which nothing is cut off."""

import os
from collections.abc import Iterator, Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table

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
