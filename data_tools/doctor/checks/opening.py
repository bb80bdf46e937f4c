"""Rules about data that does not open: what a reader refuses, and the doctor goes on behind.

`open_dataset` refuses a dataset for any of these. The doctor tells each as a finding at its place
and examines what opens.
"""

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from data_tools.doctor.checks.recording import DATASET
from data_tools.errors import Fault, UserError, describe
from data_tools.finding import Finding, Rule

T = TypeVar("T")

_TOLD: Final = "As the message says, for what is to be done depends on the fault."


def _rule(name: str, sentence: str, threshold: str, remedy: str = _TOLD) -> Rule:
    return Rule(name=name, severity="error", sentence=sentence, threshold=threshold, remedy=remedy)


UNREADABLE_FILE = _rule(
    "unreadable_file",
    "A file does not open: it is missing, empty, cut short, damaged, locked or of another kind.",
    "a whole HDF5 or Parquet file, or video",
    "Copy, download or record it again; robot-data salvage takes what is left of an HDF5 file.",
)
UNKNOWN_LAYOUT = _rule(
    "unknown_layout",
    "A file has the marks of no layout, or of two, or of one without observations.",
    "the marks of one layout, or a sidecar",
)
WRONG_DECLARATION = _rule(
    "wrong_declaration",
    "What a sidecar or a file declares is not valid, or contradicts the data.",
    "a declaration that fits",
)
DIFFERING_FILES = _rule(
    "differing_files",
    "Files given as one dataset differ in cameras, columns or what these mean.",
    "one declaration for all files",
    "Open them as two datasets, or correct the declaration that is wrong.",
)
FILTER_KEY = _rule(
    "filter_key",
    "A filter key is not in a file, or names episodes that are not there.",
    "the names of episodes under mask/<key>",
)
UNREADABLE_EPISODE = _rule(
    "unreadable_episode",
    "An episode's header or storage is damaged, or it lies in another file.",
    "datasets that HDF5 can read, in the file itself",
    "Leave the episode out or record it again; robot-data salvage takes what is whole.",
)
MISSING_PART = _rule(
    "missing_part",
    "An episode lacks a dataset, a column or a video that its layout reads.",
    "every part in every episode",
)
WRONG_FORM = _rule(
    "wrong_form",
    "A part of an episode is stored in another form than its layout reads or declares.",
    "numbers, one row a step, and frames, of the declared size",
)
NO_STEPS = _rule(
    "no_steps",
    "A file has no episode, or an episode no step.",
    "at least one episode, of at least one step",
    "Delete it, or record it again.",
)
NO_INSTRUCTION = _rule(
    "no_instruction",
    "An episode has no sentence that says what the robot is to do.",
    "the task as a sentence",
    "Name the place, or one text for the file, in a sidecar's layout.instruction.",
)
UNREADABLE_FACT = _rule(
    "unreadable_fact",
    "A fact about an episode is stored as what is no text, number or JSON.",
    "a text, a number or JSON",
    "Mend or delete it.",
)
CONTRADICTION = _rule(
    "contradiction",
    "A header or an index says another number than the data holds.",
    "one number for one thing",
    "Correct the one that is wrong, or download the data again.",
)
RULES: Final = (
    *(UNREADABLE_FILE, UNKNOWN_LAYOUT, WRONG_DECLARATION, DIFFERING_FILES, FILTER_KEY),
    *(UNREADABLE_EPISODE, MISSING_PART, WRONG_FORM, NO_STEPS, NO_INSTRUCTION, UNREADABLE_FACT),
    CONTRADICTION,
)


def damaged_episode(where: str, error: Exception) -> str:
    """The fault of an episode that HDF5 cannot read, by what h5py raised."""
    found = f"a damaged header ({type(error).__name__}: {error})"
    remedy = UNREADABLE_EPISODE.remedy
    return describe(where, found, "a whole episode", remedy, UNREADABLE_EPISODE.name)


def ruled(faults: Iterable[str], rule: Rule) -> list[str]:
    """The faults, under this rule where whoever told them knew none."""
    return [each.under(rule.name) if isinstance(each, Fault) else each for each in faults]


def told_under(rule: Rule, attempt: Callable[[], T]) -> T:
    """What the attempt returns; the faults of its UserError are of this rule, as by `ruled`."""
    try:
        return attempt()
    except UserError as error:
        raise UserError(ruled(error.faults, rule)) from error


def as_findings(faults: Iterable[str], rule: Rule = UNREADABLE_FILE) -> list[Finding]:
    """Faults as findings, in order; of this rule where they name none."""
    return [
        rule.told(fault) if isinstance(fault, Fault) else rule.found(DATASET, fault)
        for fault in faults
    ]
