"""Every rule there is: for `--ignore`, the report's list of what was checked, and the page.

`python -m data_tools.doctor.checks.catalogue PATH` writes docs/data-checks.md.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from data_tools.doctor.checks import (
    alignment,
    boundaries,
    chatter,
    collection,
    copies,
    episode_columns,
    grippers,
    instructions,
    leakage,
    looks,
    numbers,
    optics,
    pictures,
    recording,
    rotations,
    saturation,
    siblings,
    simulated,
    spreads,
    statistics_files,
    tasks,
    timing,
)
from data_tools.finding import Rule
from data_tools.rules import CLOCK_RULES, FILE_RULES, LENGTHS, OPENING_RULES

SUBJECTS: Final[Mapping[str, tuple[Rule, ...]]] = {
    "Opening": (*OPENING_RULES, *recording.RULES),
    "Files": FILE_RULES,
    "Numbers": (*numbers.RULES, *episode_columns.RULES),
    "Columns over all episodes": (*spreads.RULES, *copies.RULES, *statistics_files.RULES),
    "Rotations": rotations.RULES,
    "What actions mean": (*alignment.RULES, *saturation.RULES, *simulated.RULES),
    "Grippers": (*grippers.RULES, *chatter.RULES),
    "Time": (*timing.RULES, *CLOCK_RULES),
    "Pictures": (*pictures.RULES, *looks.RULES, *optics.RULES),
    "Sentences": (*instructions.RULES, *tasks.RULES),
    "Episodes together": (*collection.RULES, *siblings.RULES, *boundaries.RULES),
    "Splits": leakage.RULES,
}
RULES: Final[Mapping[str, Rule]] = {
    rule.name: rule for rules in SUBJECTS.values() for rule in rules
}
# What no training, no repair and no file of ours can go on with.
UNUSABLE: Final = frozenset(
    rule.name
    for rule in (
        *(*OPENING_RULES, *recording.RULES),
        *(LENGTHS, numbers.NOT_FINITE, pictures.UNDECODABLE_FRAME),
        *CLOCK_RULES,
    )
)

_HEAD: Final = """\
# What `robot-data validate` checks

Generated from the code by `python -m data_tools.doctor.checks.catalogue docs/data-checks.md`; do
not edit.

An *error* makes training on the data wrong; a *warning* may be meant, and `--ignore RULE` silences
it. Thresholds are wide on purpose: clean data has no findings. "Repaired" says what `--fix OUT`
does in a new file; nothing else is changed, and the old file never.
"""


def page() -> str:
    """The page about all rules, in Markdown."""
    return "\n".join([_HEAD, *(_section(*subject) for subject in SUBJECTS.items())])


def _section(title: str, rules: tuple[Rule, ...]) -> str:
    head = f"## {title}\n\n| rule | severity | what is wrong | expected | what to do |\n"
    return head + "| --- | --- | --- | --- | --- |\n" + "".join(map(_row, rules))


def _row(rule: Rule) -> str:
    repair = f" Repaired: {rule.repair}" if rule.repair else ""
    cells = (rule.name, rule.severity, rule.sentence, rule.threshold, f"{rule.remedy}{repair}")
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="ascii")
