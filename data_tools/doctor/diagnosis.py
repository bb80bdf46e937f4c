"""diagnose: every fault of opening as a finding, and the doctor's look at everything that opens."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Final

from data_tools.doctor.examination import examine, require_rules, validate_split
from data_tools.doctor.report import Ledger, LedgerLine
from data_tools.episode import Dataset
from data_tools.finding import DATASET, EVERY_RULE, Finding, NotChecked
from data_tools.formats.reader import Opened, Places, open_what_opens
from data_tools.rules import as_findings

UNOPENED: Final = "it does not open (robot-data salvage copies the whole episodes of an HDF5 file)"


@dataclass(frozen=True)
class DataDiagnosis:
    """What was found in data, whether all of it opens or not.

    Attributes:
        datasets: what was examined; empty when nothing opens.
        findings: faults of opening first, and then what `examine` finds in each dataset.
        ledger: what was not looked at, and why.
        unopened: the faults of opening, those of ignored rules too.
        instructions: the different sentences of all episodes that can be read.
    """

    datasets: tuple[Dataset, ...]
    findings: tuple[Finding, ...]
    ledger: tuple[LedgerLine, ...]
    unopened: tuple[Finding, ...]
    instructions: frozenset[str]


def diagnose(
    path: Places,
    *,
    mask: str | None = None,
    layout: str | None = None,
    allow_external_links: bool = False,
    tolerance_s: float | None = None,
    deep: bool = False,
    ignore: Collection[str] = (),
) -> DataDiagnosis:
    """Everything that is wrong with data on a disk: what does not open hides nothing of the rest.

    Args:
        path: files, folders and LeRobot folders, side by side; as `open_what_opens`.
        mask: name of a filter key of HDF5 files.
        layout: name of the layout to read HDF5 files as.
        allow_external_links: whether HDF5 files may lead to data in other files.
        tolerance_s: how far times of a LeRobot folder may lie from the frames of its videos.
        deep: whether to decode every image.
        ignore: names of rules whose findings are meant; those are left out.

    Raises:
        UserError: a name in `ignore` is no rule, or an option is not for this data.
    """
    require_rules(ignore)
    opened = open_what_opens(
        path,
        mask=mask,
        layout=layout,
        allow_external_links=allow_external_links,
        tolerance_s=tolerance_s,
    )
    return examine_opened(opened, deep=deep, ignore=ignore)


def examine_opened(
    opened: Opened,
    *,
    deep: bool = False,
    ignore: Collection[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> DataDiagnosis:
    """Everything that is wrong with opened data, and why the rest does not open.

    Args:
        opened: by `open_what_opens`.
        deep: whether to decode every image.
        ignore: names of rules whose findings are meant; those are left out.
        progress: called with the numbers of episodes looked at so far, and in all.

    Raises:
        UserError: a name in `ignore` is no rule.
    """
    require_rules(ignore)
    unopened = as_findings(opened.faults)
    ledger = Ledger()
    for each in unopened:
        ledger.note(NotChecked((EVERY_RULE,), each.where, UNOPENED))
    findings = [each for each in unopened if each.rule not in ignore]
    lines = list(ledger.lines())
    instructions: set[str] = set()
    starts = [*accumulate(map(len, opened.datasets), initial=0)]
    for dataset, before in zip(opened.datasets, starts, strict=False):
        advance = partial(_advance, progress, before, starts[-1])
        own = examine(dataset, deep=deep, ignore=ignore, progress=advance)
        name = _name(dataset) if len(opened.datasets) > 1 else DATASET
        findings += [each.elsewhere(DATASET, name) for each in own.findings]
        lines += [each.elsewhere(DATASET, name) for each in own.ledger]
        instructions |= own.instructions
    # what is said of a folder each of its datasets says
    return DataDiagnosis(
        datasets=tuple(opened.datasets),
        findings=tuple(dict.fromkeys(findings)),
        ledger=tuple(lines),
        unopened=tuple(unopened),
        instructions=frozenset(instructions),
    )


def _advance(progress: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    progress(before + done, total)


def shared_with(training: Sequence[Dataset], validation: Sequence[Dataset]) -> Iterator[Finding]:
    """What validation shares with training, of every two datasets."""
    for ours in training:
        for theirs in validation:
            yield from validate_split(ours, theirs)


def _name(dataset: Dataset) -> str:
    """How messages call one dataset among several."""
    files = dataset.inspected.files
    more = f" and {len(files) - 1} more files" if len(files) > 1 else ""
    return f"{files[0]}{more}"
