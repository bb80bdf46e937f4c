"""The doctor's report: for a terminal, for a program, and as one page for a colleague.

The ledger: which checks were not made, where and why, so that silence is no all-clear.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

from rich.console import Console
from rich.text import Text

from data_tools.doctor.checks.catalogue import RULES, SUBJECTS
from data_tools.episode import Dataset
from data_tools.errors import describe, told_once
from data_tools.finding import DATASET, EVERY_RULE, Finding, NotChecked, Rule
from data_tools.view.html_pages import page_environment

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


# Findings of one rule that a terminal or page shows; JSON has all of them.
MAX_LINES: Final = 20
MAX_ROWS: Final = 500
_COLORS: Final = {"error": "bold red", "warning": "yellow"}


@dataclass(frozen=True)
class Report:
    """What was found in which data.

    Attributes:
        paths: the files or folders that were looked at.
        facts: a few words on the data: episodes, steps, cameras, ...
        findings: of `validate`.
        ignored: the rules that were left out.
        ledger: the checks that were not made, wholly or in part, and why.
        unopened: how many of the findings are faults of opening.
    """

    paths: tuple[str, ...]
    facts: Mapping[str, str]
    findings: tuple[Finding, ...]
    ignored: tuple[str, ...] = ()
    ledger: tuple[LedgerLine, ...] = ()
    unopened: int = 0

    @property
    def verdict(self) -> str:
        """The number of findings and episodes, in one line."""
        errors = sum(finding.severity == "error" for finding in self.findings)
        count = len(self.findings)
        told = f"{count} finding{'' if count == 1 else 's'} in {self.facts['episodes']} episodes"
        told = f"{told}, {errors} of them errors" if errors else told
        unopened = self.unopened
        return f"{told}; what does not open ({unopened}) was not looked at" if unopened else told


def data_facts(datasets: Sequence[Dataset], instructions: Collection[str]) -> dict[str, str]:
    """Words on the size and shape of some datasets together, for the head of a report.

    Args:
        datasets: what was looked at.
        instructions: the different sentences of their episodes.
    """
    lengths = [[each[index].num_steps for index in range(len(each))] for each in datasets]
    facts = {"episodes": str(sum(map(len, lengths))), "steps": str(sum(map(sum, lengths)))}
    facts["sentences"] = str(len(instructions))
    declared = [dataset.conventions for dataset in datasets]
    told: dict[str, Iterable[str]] = {
        "recorded": (
            f"{sum(steps) / each.control_hz / 60:.1f} minutes at {each.control_hz:g} Hz"
            for each, steps in zip(declared, lengths, strict=True)
            if each.control_hz is not None
        ),
        "cameras": (
            ", ".join(f"{c.name} {c.width} x {c.height}" for c in each.cameras) for each in declared
        ),
        "state": (f"{len(each.state.names)} columns" for each in declared),
        "action": (f"{len(each.action.names)} columns" for each in declared),
    }
    joined = {name: " and ".join(dict.fromkeys(words)) for name, words in told.items()}
    return facts | {name: words for name, words in joined.items() if words}


def as_json(report: Report) -> dict[str, object]:
    """{"findings": [{rule, severity, episode, step, value, threshold, remedy}], "ledger": [...]}.

    Findings are in order. A line of the ledger is {rules, why, count, first}: the rules that were
    not looked at, why, in how many episodes or files (null: in the dataset as a whole) and the
    first of them.
    """
    return {
        "findings": [
            {
                "rule": finding.rule,
                "severity": finding.severity,
                "episode": finding.where,
                "step": finding.step,
                "value": finding.value,
                "threshold": finding.threshold,
                "remedy": finding.remedy,
            }
            for finding in report.findings
        ],
        "ledger": [line.as_json() for line in report.ledger],
    }


def print_report(report: Report, console: Console) -> None:
    """Every rule that is broken, errors first, with its first findings and what to do.

    Then what was not looked at, and the verdict.
    """
    for rule, findings in _by_rule(report.findings):
        style = _COLORS[findings[0].severity]
        head = Text.assemble((findings[0].severity, style), " ", (f"[{rule}]", "bold"))
        if rule in RULES:
            head.append(f" {RULES[rule].sentence}")
        console.print(head, soft_wrap=True)
        lines = _lines(findings)
        for line in lines[:MAX_LINES]:
            console.print(Text(f"  {line}"), soft_wrap=True)
        if len(lines) > MAX_LINES:
            console.print(f"  ... and {len(lines) - MAX_LINES} more", soft_wrap=True)
        for remedy in dict.fromkeys(finding.remedy for finding in findings):
            console.print(Text(f"  -> {remedy}", style="green"), soft_wrap=True)
    if report.ledger:
        console.print(Text("not checked, or not everywhere:", style="dim"), soft_wrap=True)
    for missing in report.ledger:
        console.print(Text(f"  {missing}", style="dim"), soft_wrap=True)
    console.print(Text(report.verdict, style="bold"), soft_wrap=True)


def _lines(findings: Sequence[Finding]) -> list[str]:
    """A line for each finding; where these are many, one for those that say the same."""
    faults = [describe(each.place, each.value, each.threshold, "") for each in findings]
    lines = told_once(faults) if len(faults) > MAX_LINES else faults
    return [line.rstrip() for line in lines]


def render_html(report: Report) -> str:
    """One page that opens offline and fetches nothing; every text in it is escaped."""
    environment = page_environment("data_tools", "doctor")
    groups = [
        {
            "rule": rule,
            "severity": findings[0].severity,
            "sentence": RULES[rule].sentence if rule in RULES else "",
            "findings": findings[:MAX_ROWS],
            "left_out": max(0, len(findings) - MAX_ROWS),
            "count": len(findings),
            "remedies": list(dict.fromkeys(finding.remedy for finding in findings)),
        }
        for rule, findings in _by_rule(report.findings)
    ]
    return environment.get_template("report.html.j2").render(
        report=report, groups=groups, passed=_passed(report)
    )


def _by_rule(findings: Sequence[Finding]) -> list[tuple[str, list[Finding]]]:
    """The findings of each rule, errors first, otherwise in the order found."""
    order = {finding.rule: place for place, finding in reversed(list(enumerate(findings)))}
    ranked = sorted(findings, key=lambda f: (f.severity != "error", order[f.rule]))
    return [
        (rule, list(group)) for (rule, _), group in groupby(ranked, lambda f: (f.rule, f.severity))
    ]


def _passed(report: Report) -> dict[str, list[Rule]]:
    """Subject -> the rules that were looked at everywhere and have no finding."""
    broken = {finding.rule for finding in report.findings} | set(report.ignored)
    broken |= {rule for line in report.ledger for rule in line.rules}
    left = {
        subject: [rule for rule in rules if rule.name not in broken]
        for subject, rules in SUBJECTS.items()
    }
    return {subject: rules for subject, rules in left.items() if rules}
