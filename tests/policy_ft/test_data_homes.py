"""A batch divided so that windows come back to the rank that has seen them."""

import numpy as np
import pytest

from policy_ft.data.loader import parts_by_home
from policy_ft.data.shuffle import Shuffled


def test_a_rank_takes_the_places_whose_home_it_is_and_guests_where_there_is_room():
    assert parts_by_home(np.array([0, 0, 0, 1]), 2).tolist() == [[0, 1], [3, 2]]
    assert parts_by_home(np.array([2, 2, 0, 2, 2, 1]), 3).tolist() == [[2, 3], [5, 4], [0, 1]]
    assert parts_by_home(np.zeros(4, np.int64), 1).tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize(("batch_size", "share"), [(256, 0.87), (64, 0.75)])
def test_windows_with_a_home_come_back_to_the_rank_that_has_seen_them(batch_size, share):
    """Eight ranks; dealt by position, the second epoch would find an eighth of its windows."""
    order, seen, met = Shuffled((4096,), (1.0,), seed=0), [set() for _ in range(8)], []
    for positions in np.arange(3 * 4096).reshape(-1, batch_size):
        _, sample_ids = order(positions)
        for rank, places in enumerate(parts_by_home(sample_ids % 8, 8)):
            mine = set(sample_ids[places].tolist())
            met.append(len(mine & seen[rank]))
            seen[rank] |= mine
    of_epochs = np.array(met).reshape(3, -1).sum(1) / 4096
    assert of_epochs[0] == 0
    assert share < of_epochs[1] < of_epochs[2]
