"""The fit of shifted columns is the plain one of every pair, whatever lies between episodes."""

import numpy as np
import pytest

from data_tools.doctor.checks.lags import Columns

GAP = 12


@pytest.fixture
def episodes():
    """Walks of x and y far from 0, of other lengths each, some shorter than the lag."""
    rng = np.random.default_rng(0)
    return [
        (50 + rng.normal(size=length).cumsum(), 9 + rng.normal(size=length - 1).cumsum())
        for length in (40, 17, 5, 80, 1)
    ]


@pytest.mark.parametrize("about_own_mean", [False, True])
@pytest.mark.parametrize("lag", [-GAP, -3, 0, 1, 7, GAP])
def test_a_lag_pairs_every_row_with_the_one_so_many_later_in_its_episode(
    episodes, lag, about_own_mean
):
    pairs = []
    for x, y in episodes:
        rows = [(x[t], y[t + lag]) for t in range(len(x)) if 0 <= t + lag < len(y)]
        if rows:
            pairs.append(np.array(rows) - (np.mean(rows, axis=0) if about_own_mean else 0))
    x, y = np.concatenate(pairs).T
    fit = Columns.of(episodes, GAP, about_own_mean=about_own_mean).fit(lag)
    assert fit.correlation == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-9)
    assert fit.slope == pytest.approx(np.polyfit(x, y, 1)[0], abs=1e-9)
    assert fit.explained == fit.correlation**2


def test_columns_that_rest_and_too_few_rows_explain_nothing(episodes):
    resting = [(np.full(len(x), 0.1), y) for x, y in episodes]
    assert Columns.of(resting, GAP).fit(2).explained == 0
    assert Columns.of(resting, GAP, about_own_mean=True).fit(2).explained == 0
    assert Columns.of([(x[:20], x[:20]) for x, _ in episodes[:1]], GAP).fit(0).explained == 0
