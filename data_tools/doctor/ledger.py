"""The ledger: which checks were not made, where and why, so that silence is no all-clear."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from data_tools.finding import DATASET, EVERY_RULE, NotChecked

# Names of rules that a line on a terminal has; JSON and the page have all.
MAX_NAMES: Final = 6


@dataclass(frozen=True)
class LedgerLine:
    """Checks that were not made for one reason.

    Attributes:
        rules: names of the rules.
        why: what was missing.
        places: the episodes or files, in order; 'dataset' alone for all of them together.
    """

    rules: tuple[str, ...]
    why: str
    places: tuple[str, ...]

    @property
    def where(self) -> str:
        """How many episodes, and the first; '' for the dataset as a whole."""
        if self.places == (DATASET,):
            return ""
        first, noun = self.places[0], "places" if EVERY_RULE in self.rules else "episodes"
        return first if len(self.places) == 1 else f"{len(self.places)} {noun}, first {first}"

    def elsewhere(self, old: str, new: str) -> "LedgerLine":
        """The same of another place, where this is told of the old one."""
        return replace(self, places=tuple(new if each == old else each for each in self.places))

    def as_json(self) -> dict[str, object]:
        """{"rules", "why", "count", "first"}; count None for the dataset as a whole."""
        count = None if self.places == (DATASET,) else len(self.places)
        return {
            "rules": list(self.rules),
            "why": self.why,
            "count": count,
            "first": self.places[0],
        }

    def __str__(self) -> str:
        where = f" ({self.where})" if self.where else ""
        left = len(self.rules) - MAX_NAMES
        more = f" and {left} more" if left > 0 else ""
        return f"{', '.join(self.rules[:MAX_NAMES])}{more}: {self.why}{where}"


class Ledger:
    """Gathers what checks did not look at; rules with one reason at the same places are one line.

    Args:
        ignored: names of rules that nobody asked about.
    """

    def __init__(self, ignored: Iterable[str] = ()) -> None:
        self._ignored = frozenset(ignored)
        self._places: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)

    def note(self, told: NotChecked) -> None:
        """Take down what one check told."""
        for rule in told.rules:
            if rule not in self._ignored:
                self._places[told.why, rule][told.where] = None

    def lines(self) -> tuple[LedgerLine, ...]:
        """All of it, in the order told."""
        together: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for (why, rule), places in self._places.items():
            together.setdefault((why, tuple(places)), []).append(rule)
        return tuple(
            LedgerLine(tuple(rules), why, places) for (why, places), rules in together.items()
        )
