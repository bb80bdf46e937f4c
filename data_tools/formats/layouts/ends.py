"""Ends of episodes that lie one after the other in the same arrays, however a file keeps them."""

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


def rows_after_ends(values: npt.NDArray[np.generic], num_rows: int) -> Rows | None:
    """int64[e], the row after each episode's last one, rising; None where the values tell no ends.

    Read as the values show it: a mark a row, 1 in each episode's last (a terminal, a time-out); the
    number of the episode a row belongs to; or, one an episode, the row after its last (cumulated
    ends), its first row (offsets), or its length.

    Args:
        values: bool, integer or float [n].
        num_rows: rows of the arrays the episodes lie in.
    """
    if values.ndim != 1 or values.dtype.kind not in "biuf" or not len(values):
        return None
    whole = values.astype(np.int64)
    if not np.array_equal(whole, values):
        return None
    if len(whole) != num_rows:
        return _one_an_episode(whole, num_rows)
    if whole.min() < 0 or whole.max() > 1 or (values.dtype.kind != "b" and _is_number(whole)):
        return np.append(np.flatnonzero(np.diff(whole)) + 1, num_rows)
    return np.flatnonzero(whole) + 1


def _is_number(whole: Rows) -> bool:
    """Whether zeros and ones number two episodes: as marks they would end one at every row."""
    return int(whole.sum()) > 1 and bool(np.all(np.diff(whole) >= 0))


def _one_an_episode(whole: Rows, num_rows: int) -> Rows | None:
    is_rising = bool(np.all(np.diff(whole) > 0))
    if is_rising and whole[0] == 0 and whole[-1] < num_rows:
        return np.append(whole[1:], num_rows)
    if is_rising and whole[0] > 0 and whole[-1] <= num_rows:
        return whole
    if whole.min() > 0 and whole.sum() == num_rows:
        return np.cumsum(whole)
    return None
