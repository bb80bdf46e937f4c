"""The order of a mixture: shares kept to the sample, a pure function of the position."""

from collections import Counter

import numpy as np
import pytest

from policy_ft.data.shuffle import BLOCK, Shuffled, sample_at

SIZES = (40, 7, 300)
SHARES = (0.8, 0.15, 0.05)


def sources_at(order, positions):
    """Source of each position, from its sample id."""
    _, sample_ids = order(positions)
    return np.searchsorted(np.cumsum(order.sizes), sample_ids, side="right")


@pytest.mark.parametrize("shares", [SHARES, (1 / 3, 1 / 3, 1 / 3), (0.998, 0.001, 0.001)])
def test_after_every_block_each_source_has_had_its_share_to_the_sample(shares):
    sources = sources_at(Shuffled(SIZES, shares, 3), np.arange(10 * BLOCK))
    for block in range(1, 11):
        drawn = np.bincount(sources[: block * BLOCK], minlength=3)
        assert (np.abs(drawn - np.array(shares) * block * BLOCK) < 1 + 1e-6).all()


def test_over_ten_thousand_samples_the_shares_are_within_one_per_cent():
    drawn = np.bincount(sources_at(Shuffled(SIZES, SHARES, 0), np.arange(10_000)), minlength=3)
    np.testing.assert_allclose(drawn / 10_000, SHARES, rtol=0.01)


def test_any_long_piece_has_the_shares_wherever_it_begins():
    """1,000 positions across the border of two blocks: within three deviations of a draw."""
    for start in (1, 333, 999, 5_500):
        piece = sources_at(Shuffled(SIZES, SHARES, 1), np.arange(start, start + BLOCK))
        share = np.bincount(piece, minlength=3) / BLOCK
        deviation = np.sqrt(np.array(SHARES) * (1 - np.array(SHARES)) / BLOCK)
        assert (np.abs(share - SHARES) < 3 * deviation).all()


def test_inside_a_block_the_sources_are_mixed_and_every_block_differently():
    sources = sources_at(Shuffled((40, 40), (0.5, 0.5), 0), np.arange(3 * BLOCK)).reshape(3, BLOCK)
    for block in sources:
        longest = np.diff(np.flatnonzero(np.diff(block))).max()
        assert longest < 30
        assert abs(int((block[:500] == 0).sum()) - 250) < 60
    assert not np.array_equal(sources[0], sources[1])


def test_each_source_is_gone_through_in_epochs_of_its_own():
    """Every sample of a source comes once before any comes twice, whatever its share."""
    epochs, sample_ids = Shuffled(SIZES, SHARES, 5)(np.arange(4 * BLOCK))
    firsts = np.cumsum((0, *SIZES))
    for source, size in enumerate(SIZES):
        here = (sample_ids >= firsts[source]) & (sample_ids < firsts[source + 1])
        own, own_epochs = sample_ids[here], epochs[here]
        for epoch in range(len(own) // size):
            assert sorted(own[epoch * size : (epoch + 1) * size]) == list(
                range(firsts[source], firsts[source + 1])
            )
        assert own_epochs.tolist() == [place // size for place in range(len(own))]


def test_no_sample_meets_the_same_noise_twice():
    """Noise is a function of (epoch, sample id), so no pair of them may come again."""
    epochs, sample_ids = Shuffled(SIZES, SHARES, 5)(np.arange(5 * BLOCK))
    assert Counter(zip(epochs.tolist(), sample_ids.tolist(), strict=True)).most_common(1)[0][1] == 1


@pytest.mark.parametrize("start", [0, 1, 999, 1000, 2_345, 9_990])
def test_the_order_from_any_position_on_is_that_of_the_unbroken_run(start):
    order = Shuffled(SIZES, SHARES, 9)
    whole = order(np.arange(12_000))
    part = order(np.arange(start, start + 64))
    for one, other in zip(part, whole, strict=True):
        np.testing.assert_array_equal(one, other[start : start + 64])


def test_the_order_does_not_depend_on_which_positions_are_asked_for_together():
    """As ranks and micro-batches do, each with a part of a batch."""
    order = Shuffled(SIZES, SHARES, 2)
    whole = order(np.arange(960, 1056))[1]
    mixed = np.random.default_rng(0).permutation(96)
    np.testing.assert_array_equal(order(960 + mixed)[1], whole[mixed])


def test_equally_large_sources_are_shuffled_differently():
    _, sample_ids = Shuffled((500, 500), (0.5, 0.5), 0)(np.arange(BLOCK))
    first, second = (sample_ids[sample_ids // 500 == source] % 500 for source in (0, 1))
    assert not np.array_equal(first, second)


def test_one_source_alone_has_the_order_of_a_run_without_a_mixture():
    alone = Shuffled((40,), (1.0,), 4)(np.arange(200))
    for one, other in zip(alone, sample_at(np.arange(200), 40, 4), strict=True):
        np.testing.assert_array_equal(one, other)


def test_two_seeds_are_two_orders():
    one, other = (Shuffled(SIZES, SHARES, seed)(np.arange(500))[1] for seed in (0, 1))
    assert not np.array_equal(one, other)


def test_a_position_far_into_a_run_costs_no_more_than_the_first():
    """Position 10^12: the counts are exact whole numbers there, too."""
    order = Shuffled(SIZES, SHARES, 0)
    far = 10**12
    drawn = np.bincount(sources_at(order, np.arange(far, far + BLOCK)), minlength=3)
    assert drawn.tolist() == [800, 150, 50]
