"""Tables are whole: in a narrow terminal, in a wide one, and in a pipe."""

import io

import pytest
from rich.console import Console
from rich.table import Table

from data_tools.formats.reader import open_dataset
from data_tools.stats import dataset_stats
from data_tools.view.tables import number_table, numbers, print_table, short

LONG = "robot0_eef_to_object_relative_position_along_the_table"


def printed(table: Table, monkeypatch, *, columns: int | None, is_terminal: bool) -> str:
    if columns is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", str(columns))
    file = io.StringIO()
    print_table(table, Console(file=file, force_terminal=is_terminal, color_system=None))
    return file.getvalue()


def sample() -> Table:
    table = Table("column", "unit", *numbers("low", "high"))
    table.add_row(LONG, "m", "-1234567.125", "-0.000123456")
    return table


def test_a_pipe_is_as_wide_as_the_table(monkeypatch):
    lines = printed(sample(), monkeypatch, columns=None, is_terminal=False).splitlines()
    assert any(LONG in line and "-1234567.125" in line for line in lines)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_eighty_columns_hold_every_letter_and_whole_numbers(monkeypatch, is_terminal):
    text = printed(sample(), monkeypatch, columns=60, is_terminal=is_terminal)
    assert "\u2026" not in text
    assert max(map(len, text.splitlines())) <= 60
    assert "-1234567.125" in text
    assert "-0.000123456" in text
    cells = [line.split("\u2502")[1].strip() for line in text.splitlines() if "\u2502" in line]
    assert "".join(cells) == LONG


def test_a_terminal_that_is_too_narrow_breaks_lines_and_loses_no_digit(monkeypatch):
    text = printed(sample(), monkeypatch, columns=20, is_terminal=True)
    assert "-1234567.125" in text
    assert "-0.000123456" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (-0.00712345, "-0.007123"),
        (-0.000712345, "-7.123e-4"),
        (123456789.0, "1.235e8"),
        (-1.2345e-100, "-1.2e-100"),
        (9.787e-7, "9.787e-7"),
    ],
)
def test_a_number_takes_nine_letters_at_most(value, text):
    assert short(value) == text
    assert len(text) <= 9


def test_numbers_stand_below_the_name_where_a_line_is_too_short():
    rows = {"left_wrist_angle [rad]": [1.569, -1e-6]}
    wide = list(number_table(rows, ("column", "mean", "std"), 80))
    assert [line.split() for line in wide] == [
        ["column", "mean", "std"],
        ["left_wrist_angle", "[rad]", "1.569", "-1e-6"],
    ]
    narrow = list(number_table(rows, ("column", "mean", "std"), 30))
    assert narrow[2:] == ["left_wrist_angle [rad]", "       1.569     -1e-6"]
    assert list(number_table(rows, ("column", "mean", "std"), None)) == wide


@pytest.mark.parametrize("columns", ["80", "40", None])
def test_stats_prints_whole_names_and_numbers(robot_data, demos, monkeypatch, columns):
    if columns is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", columns)
    out = robot_data("stats", demos)[1]
    assert "\u2026" not in out
    dataset = open_dataset(demos)
    declared = {"state": dataset.conventions.state, "actions": dataset.conventions.action}
    for part, values in dataset_stats(dataset).items():
        for index, (name, unit) in enumerate(
            zip(declared[part].names, declared[part].units, strict=True)
        ):
            assert f"{name} [{unit}]" in out
            assert short(values.row("mean")[index]) in out.split()
