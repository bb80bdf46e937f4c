"""Success rates and paired comparisons, against published and hand-computed numbers."""

import math
from itertools import product

import pytest

from eval_envs.intervals import wilson_interval
from policy_ft.evaluation.statistics import compare_paired, success_rate


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe (1998), Statist. Med. 17, 857-872, table I, score method without continuity
        # correction.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (10, 10, 0.7225, 1.0),  # 1 / (1 + 1.96^2 / 10)
    ],
)
def test_wilson_interval_equals_published_values(
    successes: int, n: int, low: float, high: float
) -> None:
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=1e-4)


def test_wilson_interval_ends_are_the_probabilities_a_score_test_just_rejects() -> None:
    n, successes, z = 50, 43, 1.959963985
    for end in wilson_interval(successes, n):
        assert abs(successes / n - end) / math.sqrt(end * (1 - end) / n) == pytest.approx(
            z, abs=1e-6
        )


def test_wilson_interval_is_symmetric_in_success_and_failure() -> None:
    for successes in range(21):
        low, high = wilson_interval(successes, 20)
        assert wilson_interval(20 - successes, 20) == pytest.approx((1 - high, 1 - low))
        assert 0 <= low <= successes / 20 <= high <= 1


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (5, 4), (-1, 4)])
def test_impossible_counts_are_refused(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="Correct the counts"):
        wilson_interval(successes, n)


def test_success_rate_of_episodes_prints_percentages() -> None:
    rate = success_rate([True] * 43 + [False] * 7)
    assert (rate.success_rate, rate.n) == (0.86, 50)
    assert str(rate) == "86.0 % [73.8, 93.0], n = 50"


def _outcomes(
    both: int, only_first: int, only_second: int, neither: int
) -> tuple[list[bool], list[bool]]:
    cells = [(True, True), (True, False), (False, True), (False, False)]
    pairs = [
        cell
        for cell, count in zip(cells, (both, only_first, only_second, neither), strict=True)
        for _ in range(count)
    ]
    return [first for first, _ in pairs], [second for _, second in pairs]


def test_paired_comparison_equals_hand_computed_numbers() -> None:
    # Bentur et al. (2009), 21 children: cells 1, 1, 7, 12. McNemar exact: 2 * (C(8,0) + C(8,1)) /
    # 2^8 = 18 / 256. Bonett-Price: p = 2/23, q = 8/23, q - p = 0.2609, se = sqrt((10/23 - (6/23)^2)
    # / 23) = 0.12627.
    result = compare_paired(*_outcomes(1, 1, 7, 12))
    assert (result.both, result.only_first, result.only_second, result.neither, result.n) == (
        1,
        1,
        7,
        12,
        21,
    )
    assert result.p_value == pytest.approx(18 / 256)
    assert result.difference == pytest.approx(6 / 21)
    assert (result.low, result.high) == pytest.approx(
        (0.26087 - 0.24749, 0.26087 + 0.24749), abs=1e-4
    )
    assert not result.is_significant


def test_exchanging_the_policies_mirrors_the_comparison() -> None:
    first, second = _outcomes(10, 3, 12, 25)
    forward, backward = compare_paired(first, second), compare_paired(second, first)
    assert backward.difference == pytest.approx(-forward.difference)
    assert (backward.low, backward.high) == pytest.approx((-forward.high, -forward.low))
    assert backward.p_value == pytest.approx(forward.p_value)
    assert forward.is_significant


def test_equal_outcomes_are_no_evidence() -> None:
    result = compare_paired(*_outcomes(30, 0, 0, 20))
    assert (result.difference, result.p_value) == (0.0, 1.0)
    assert result.low < 0 < result.high


def test_interval_covers_the_true_difference_about_95_percent_of_the_time() -> None:
    # Exact coverage at n = 20: every outcome of the two discordant cells, weighted by its
    # probability.
    n, p, q = 20, 0.1, 0.4
    covered = 0.0
    for b, c in product(range(n + 1), repeat=2):
        if b + c > n:
            continue
        weight = math.comb(n, b) * math.comb(n - b, c) * p**b * q**c * (1 - p - q) ** (n - b - c)
        result = compare_paired(*_outcomes(0, b, c, n - b - c))
        covered += weight * (result.low <= q - p <= result.high)
    assert 0.93 < covered < 0.99


def test_outcomes_of_different_episodes_are_refused() -> None:
    with pytest.raises(ValueError, match="Evaluate both policies on the same seeds"):
        compare_paired([True, False], [True])
    with pytest.raises(ValueError, match="Evaluate both policies on the same seeds"):
        compare_paired([], [])
