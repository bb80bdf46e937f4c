"""Where episodes end that lie in one array, told by marks, numbers, ends, first rows or lengths."""

import h5py
import numpy as np
import pytest

from data_tools.errors import UserError
from data_tools.formats.layouts.groups import rows_after_ends
from data_tools.formats.reader import open_dataset
from tests.data_tools.fixtures import d4rl

ROWS = 31  # of episodes of 10, 12 and 9 steps
ENDS = [10, 22, 31]


@pytest.mark.parametrize(
    "values",
    [
        np.isin(np.arange(ROWS), [9, 21, 30]),
        np.isin(np.arange(ROWS), [9, 21, 30]).astype("f4"),
        np.repeat([4, 2, 7], [10, 12, 9]),
        np.array([10, 22, 31], dtype="u4"),
        np.array([0, 10, 22]),
        np.array([10, 12, 9], dtype="i8"),
    ],
    ids=["marks", "marks as floats", "numbers", "ends", "first rows", "lengths"],
)
def test_each_way_of_keeping_ends_gives_the_same_rows(values):
    assert rows_after_ends(values, ROWS).tolist() == ENDS


def test_two_episodes_that_are_numbered_0_and_1_are_no_marks():
    assert rows_after_ends(np.repeat([0, 1], [20, 11]), ROWS).tolist() == [20, 31]


def test_one_mark_in_the_last_row_is_one_episode():
    assert rows_after_ends(np.arange(ROWS) == ROWS - 1, ROWS).tolist() == [31]
    assert rows_after_ends((np.arange(ROWS) == ROWS - 1).astype("u1"), ROWS).tolist() == [31]


@pytest.mark.parametrize(
    "values",
    [
        np.linspace(0, 1, ROWS),
        np.array([10, 12, 11]),
        np.array([22, 10, 31]),
        np.array([10, 40]),
        np.zeros((ROWS, 1)),
        np.zeros(0),
    ],
)
def test_what_tells_no_ends_is_not_read_as_some(values):
    assert rows_after_ends(values, ROWS) is None


def test_a_dataset_that_tells_no_ends_is_a_fault_that_says_what_would(tmp_path):
    path = d4rl.write(tmp_path / "rows.hdf5")
    with h5py.File(path, "r+") as file:
        del file["terminals"]
        file["terminals"] = np.linspace(0, 1, len(file["actions"]))
    with pytest.raises(UserError, match=r"numbers that tell no ends; expected marks of .* or the"):
        open_dataset(path, allow_undeclared=True)
