"""Confidence intervals of success rates."""

import math

from scipy.stats import norm


def wilson_interval(
    num_successes: int, num_episodes: int, confidence: float = 0.95
) -> tuple[float, float]:
    """The interval of success probabilities that a Wilson score test does not reject.

    Unlike the mean plus or minus two standard errors it stays inside [0, 1] and is honest at 0 and
    100 %: 10 of 10 gives (0.722, 1.0).

    Args:
        num_successes: successful episodes, 0 .. num_episodes.
        num_episodes: episodes run, at least 1.
        confidence: coverage, in (0, 1).

    Returns:
        Lower and upper end, in [0, 1].

    Raises:
        ValueError: counts that cannot be, such as more successes than episodes.

    Source: E. B. Wilson (1927), J. Am. Stat. Assoc. 22, 209-212.
    """
    if not 0 <= num_successes <= num_episodes or num_episodes == 0:
        raise ValueError(
            f"wilson_interval: found {num_successes} successes in {num_episodes} episodes; "
            "expected at least one episode and no more successes than episodes. Correct the counts."
        )
    n, p = num_episodes, num_successes / num_episodes
    z = float(norm.ppf((1 + confidence) / 2))
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low = 0.0 if num_successes == 0 else center - half
    high = 1.0 if num_successes == num_episodes else center + half
    return low, high
