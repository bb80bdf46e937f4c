"""What a number of successes says about a policy, and what the same seeds say about two."""

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field
from scipy.stats import binomtest, norm

from eval_envs.intervals import wilson_interval


class SuccessRate(BaseModel):
    """A share of successful episodes with its 95 % Wilson interval."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    success_rate: float = Field(description="Successes over episodes, in [0, 1].")
    n: int = Field(description="Number of episodes.")
    low: float = Field(description="Lower end of the 95 % Wilson interval.")
    high: float = Field(description="Upper end of the 95 % Wilson interval.")

    def __str__(self) -> str:
        """Percentages for people: '86.0 % [73.8, 93.0], n = 50'."""
        low, high = 100 * self.low, 100 * self.high
        return f"{100 * self.success_rate:.1f} % [{low:.1f}, {high:.1f}], n = {self.n}"


class PairedComparison(BaseModel):
    """Two policies on the same episodes: which alone succeeded how often, and was it chance."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int = Field(description="Number of episodes that both policies ran.")
    both: int = Field(description="Episodes in which both succeeded.")
    only_first: int = Field(description="Episodes in which only the first succeeded.")
    only_second: int = Field(description="Episodes in which only the second succeeded.")
    neither: int = Field(description="Episodes in which neither succeeded.")
    difference: float = Field(description="Second success rate minus the first, in [-1, 1].")
    low: float = Field(description="Lower end of the 95 % Bonett-Price interval of the difference.")
    high: float = Field(
        description="Upper end of the 95 % Bonett-Price interval of the difference."
    )
    p_value: float = Field(description="Exact two-sided McNemar p-value of 'no difference'.")

    @property
    def is_significant(self) -> bool:
        """Whether the exact McNemar test rejects 'no difference' at 5 %."""
        return self.p_value < 0.05


def success_rate(outcomes: Sequence[bool]) -> SuccessRate:
    """The share of true outcomes with its 95 % Wilson interval; ValueError when there are none."""
    low, high = wilson_interval(sum(outcomes), len(outcomes))
    return SuccessRate(
        success_rate=sum(outcomes) / len(outcomes), n=len(outcomes), low=low, high=high
    )


def compare_paired(first: Sequence[bool], second: Sequence[bool]) -> PairedComparison:
    """What the same episodes say about two policies.

    Only the episodes that one policy alone solved carry evidence. The exact McNemar test asks how
    surprising their split would be for a fair coin. The interval of the difference is Bonett and
    Price's adjusted Wald interval: with b and c episodes solved by one policy alone, p = (b + 1) /
    (n + 2), q = (c + 1) / (n + 2), q - p plus or minus z * sqrt((p + q - (q - p)^2) / (n + 2)).
    Test and interval are different methods and may disagree close to 5 %.

    Args:
        first: whether the first policy succeeded, one entry an episode.
        second: the same episodes in the same order for the second policy.

    Raises:
        ValueError: no episodes, or lists of different length.

    Source: Q. McNemar (1947), Psychometrika 12, 153-157; D. G. Bonett and R. M. Price (2012), J.
        Educ. Behav. Stat.
    37, 479-488; M. W. Fagerland, S. Lydersen and P. Laake (2014), Stat. Med. 33, 2850-2875.
    """
    if len(first) != len(second) or not first:
        raise ValueError(
            f"compare_paired: found {len(first)} and {len(second)} outcomes; expected one of each "
            "policy an episode, and at least one episode. Evaluate both policies on the same seeds."
        )
    pairs = list(zip(first, second, strict=True))
    n = len(pairs)
    only_first, only_second = pairs.count((True, False)), pairs.count((False, True))
    discordant = only_first + only_second
    p, q = (only_first + 1) / (n + 2), (only_second + 1) / (n + 2)
    half = float(norm.ppf(0.975)) * math.sqrt((p + q - (q - p) ** 2) / (n + 2))
    return PairedComparison(
        n=n,
        both=pairs.count((True, True)),
        only_first=only_first,
        only_second=only_second,
        neither=pairs.count((False, False)),
        difference=(only_second - only_first) / n,
        low=max(q - p - half, -1.0),
        high=min(q - p + half, 1.0),
        p_value=float(binomtest(only_second, discordant).pvalue) if discordant else 1.0,
    )
