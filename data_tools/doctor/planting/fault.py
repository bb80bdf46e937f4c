"""Fault: what can be planted, how strong, and where."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from data_tools.doctor.planting.bed import Bed
from data_tools.doctor.planting.planted import Planted

Scope = Literal["one", "from", "all"]


class Strength(NamedTuple):
    """How strong a fault is: what the number means, and values from hardly there to plain.

    It is from `least` to `most`; 0, which plants nothing, is allowed where it is one of the values.
    """

    meaning: str
    weak: float
    default: float
    strong: float
    least: float = 0.0
    most: float = math.inf

    @property
    def values(self) -> tuple[float, ...]:
        """The three of them, at which rules are measured."""
        return (self.weak, self.default, self.strong)

    def allows(self, value: float) -> bool:
        """Whether a fault can be so strong."""
        is_within = math.isfinite(value) and self.least <= value <= self.most
        return is_within and (value > 0 or value in self.values)

    @property
    def range(self) -> str:
        """In words, what is allowed."""
        above = f"above {self.least:g}" if self.least == 0 else f"from {self.least:g} on"
        return above if math.isinf(self.most) else f"{above}, up to {self.most:g}"


@dataclass(frozen=True)
class Fault:
    """A fault of one kind.

    Attributes:
        rule: the rule of the doctor that should find it; the fault bears its name.
        change: what planting does, as a sentence.
        scope: whether it is in one episode, in all from one on, or in all.
        plant: does it in an open copy; UnfitError, before anything is changed, where it cannot.
        strength: how strong it may be; None where a fault is there or is not.
        also: rules that may name it, too, since it is what they look for as well.
        is_deep: whether only `validate --deep` finds it.
    """

    rule: str
    change: str
    scope: Scope
    plant: Callable[[Bed], Iterable[Planted]]
    strength: Strength | None = None
    also: frozenset[str] = frozenset()
    is_deep: bool = False
