"""Any pure function from positions to windows is an order: curricula, weighted draws, replays."""

from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pytest
import torch

from policy_ft.data.loader import BatchLoader
from policy_ft.data.noise import flow_noise
from policy_ft.data.windows import WindowDataset
from policy_ft.errors import UserError


@dataclass(frozen=True)
class Curriculum:
    """The first windows only, and more of them as the run goes on; each draw is its own epoch."""

    num_windows: int
    seed: int

    def __call__(self, positions):
        known = np.minimum(4 + positions // 4, self.num_windows)
        drawn = [np.random.default_rng((self.seed, int(at))).random() for at in positions]
        return positions.copy(), (known * drawn).astype(np.int64)


@dataclass(frozen=True)
class Saying:
    """An order that says the same whatever is asked."""

    epochs: object
    sample_ids: object

    def __call__(self, positions):
        return np.asarray(self.epochs), np.asarray(self.sample_ids)


@pytest.fixture
def windows(fitted, episodes):
    return WindowDataset(episodes, (0, 1, 2), fitted())  # 5 + 3 + 9 = 17 windows


def steps_of(windows, order, first_step, count, **settings):
    loader = BatchLoader(windows, order=order, seed=7, batch_size=8, num_draws=2, **settings)
    with closing(loader.iter_from(first_step)) as batches:
        return list(islice(batches, count))


def test_the_windows_and_their_noise_are_those_that_the_order_names(windows):
    order = Curriculum(17, seed=3)
    steps = steps_of(windows, order, 0, 5)
    epochs, sample_ids = order(np.arange(40))
    assert len(set(sample_ids[:8].tolist())) < 8, "a window comes twice in one batch"
    assert torch.cat([b["sample_id"] for (b,) in steps]).tolist() == sample_ids.tolist()
    assert torch.cat([b["epoch"] for (b,) in steps]).tolist() == epochs.tolist()
    for place, (epoch, sample_id) in enumerate(zip(epochs, sample_ids, strict=True)):
        noise, _ = flow_noise(7, int(epoch), int(sample_id), 2, (4, 4))
        batch = steps[place // 8][0]
        np.testing.assert_array_equal(batch["noise"][place % 8], noise)
        np.testing.assert_array_equal(batch["actions"][place % 8], windows[sample_id]["actions"])


def test_a_run_that_goes_on_meets_what_an_unbroken_one_meets_there(windows):
    order = Curriculum(17, seed=3)
    unbroken = steps_of(windows, order, 0, 6)
    for start in (1, 4):
        for (one,), (other,) in zip(
            unbroken[start:], steps_of(windows, order, start, 6 - start), strict=True
        ):
            assert all(torch.equal(one[name], other[name]) for name in one)


def test_workers_follow_the_order_that_was_passed_in(windows):
    order = Curriculum(17, seed=3)
    here = steps_of(windows, order, 2, 3, accumulation_steps=2)
    there = steps_of(windows, order, 2, 3, accumulation_steps=2, num_workers=2)
    for one, other in zip(here, there, strict=True):
        for a, b in zip(one, other, strict=True):
            assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("keeps_homes", [False, True])
def test_ranks_share_the_windows_of_a_step(windows, keeps_homes):
    order = Curriculum(17, seed=3)
    settings = {"world_size": 2, "keeps_homes": keeps_homes}
    ranks = [steps_of(windows, order, 1, 2, rank=rank, **settings) for rank in range(2)]
    for step in range(2):
        met = [i for rank in ranks for i in rank[step][0]["sample_id"].tolist()]
        expected = order(np.arange((1 + step) * 8, (2 + step) * 8))[1]
        assert sorted(met) == sorted(expected.tolist())


@pytest.mark.parametrize(
    ("order", "found"),
    [
        (Saying([0] * 8, [*range(7), 17]), r"sample ids int64\[8\] from 0 to 17"),
        (Saying([0] * 8, [*range(7), -1]), r"sample ids int64\[8\] from -1 to 6"),
        (Saying([-1] * 8, range(8)), r"epochs int64\[8\] from -1 to -1"),
        (Saying([0] * 8, [0.5] * 8), r"sample ids float64\[8\] from 0.5 to 0.5"),
        (Saying([0] * 7, range(7)), r"epochs int64\[7\]"),
        (Saying(0, range(8)), r"epochs int64\[\]"),
    ],
)
@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_order_of_other_windows_is_refused_before_it_is_followed(
    windows, order, found, num_workers
):
    with pytest.raises(UserError, match=f"Saying at positions .*{found}.*Correct the order"):
        steps_of(windows, order, 0, 1, num_workers=num_workers)
