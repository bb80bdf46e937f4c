"""Finding: one thing about a dataset that a person should look at before training on it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal, Self, TypeVar

from pydantic import Field

from data_tools.declaration import Declaration
from data_tools.errors import Fault, UserError, describe

T = TypeVar("T")

# Findings about all episodes together are told of this place.
DATASET: Final = "dataset"

Severity = Literal["error", "warning"]


class Finding(Declaration):
    """One result of a check; `str()` gives the sentence."""

    rule: str = Field(description="Name of the check, e.g. 'not_finite'.")
    severity: Severity = Field(
        description="error: training on it is wrong; warning: it may be meant."
    )
    where: str = Field(description="The episode's name, or the file or dataset as a whole.")
    step: int | None = Field(None, description="The step, when one step is to blame.")
    value: str = Field(description="What was found.")
    threshold: str = Field(description="What the check expects.")
    remedy: str = Field(description="What to do.")

    def __str__(self) -> str:
        return f"{self.severity} [{self.rule}] {self.sentence}"

    @property
    def sentence(self) -> str:
        """Where, what was found, what was expected and what to do."""
        return describe(self.place, self.value, self.threshold, self.remedy, self.rule)

    def elsewhere(self, old: str, new: str) -> Self:
        """The same of another place, where this is told of the old one."""
        return self.model_copy(update={"where": new}) if self.where == old else self

    @property
    def place(self) -> str:
        """The episode and, where one step is to blame, the step."""
        return self.where if self.step is None else f"{self.where}, step {self.step}"


class Rule(Declaration):
    """What a check looks for, and what to do about it: the same for every finding of the check."""

    name: str = Field(description="Name of the check, e.g. 'not_finite'.")
    severity: Severity = Field(
        description="error: training on it is wrong; warning: it may be meant."
    )
    sentence: str = Field(description="What is wrong, as a sentence.")
    threshold: str = Field(description="What the check expects.")
    remedy: str = Field(description="What to do.")
    repair: str = Field("", description="What `robot-data validate --fix` does; empty: nothing.")

    def found(
        self, where: str, value: str, *, step: int | None = None, threshold: str | None = None
    ) -> Finding:
        """A finding of this rule.

        Args:
            where: the episode's name, or the file or dataset as a whole.
            value: what was found.
            step: the step, when one step is to blame.
            threshold: what is expected here, where the data itself decides it.
        """
        return Finding(
            rule=self.name,
            severity=self.severity,
            where=where,
            step=step,
            value=value,
            threshold=self.threshold if threshold is None else threshold,
            remedy=self.remedy,
        )

    def told(self, fault: Fault) -> Finding:
        """A finding with the words of a fault: its own place, and what to do there."""
        return Finding(
            rule=fault.rule or self.name,
            severity=self.severity,
            where=fault.where,
            value=fault.found,
            threshold=fault.expected,
            remedy=fault.remedy,
        )


EVERY_RULE: Final = "every rule"


@dataclass(frozen=True)
class NotChecked:
    """A check that was not made, and why: what a check yields in place of a finding.

    Attributes:
        rules: names of the rules that were not looked at; EVERY_RULE for all there are.
        where: the episode's name, or the file or dataset as a whole.
        why: what was missing, in words that are the same for every episode; the doctor counts them.
    """

    rules: tuple[str, ...]
    where: str
    why: str


Told = Finding | NotChecked
"""What a check yields."""


def not_checked(where: str, why: str, *rules: Rule) -> NotChecked:
    """A line of the doctor's ledger, for a check that has to give up: yield it and return.

    Args:
        where: the episode's name, or the file or dataset as a whole.
        why: what was missing, e.g. 'no clock is recorded'; no number or name of the episode in it.
        rules: what could not be looked at.
    """
    return NotChecked(tuple(rule.name for rule in rules), where, why)


def ruled(faults: Iterable[str], rule: Rule) -> list[str]:
    """The faults, under this rule where whoever told them knew none."""
    return [each.under(rule.name) if isinstance(each, Fault) else each for each in faults]


def told_under(rule: Rule, attempt: Callable[[], T]) -> T:
    """What the attempt returns; the faults of its UserError are of this rule, as by `ruled`."""
    try:
        return attempt()
    except UserError as error:
        raise UserError(ruled(error.faults, rule)) from error
