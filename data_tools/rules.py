"""Rules of what readers find when they open data; the doctor tells of them among its own.

`open_dataset` refuses a dataset for any of OPENING_RULES. The doctor tells each as a finding at its
place and examines what opens.
"""

from collections.abc import Iterable
from typing import Final

from data_tools.errors import Fault, describe
from data_tools.finding import DATASET, Finding, Rule

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
OPENING_RULES: Final = (
    *(UNREADABLE_FILE, UNKNOWN_LAYOUT, WRONG_DECLARATION, DIFFERING_FILES, FILTER_KEY),
    *(UNREADABLE_EPISODE, MISSING_PART, WRONG_FORM, NO_STEPS, NO_INSTRUCTION, UNREADABLE_FACT),
    CONTRADICTION,
)

# What a file says of itself.
STALE_TOTAL = Rule(
    name="stale_total",
    severity="warning",
    sentence="A file's count of steps is not the number of steps it holds.",
    threshold="the same number",
    remedy="The file was edited or merged; check that nothing is missing.",
    repair="Counted anew.",
)
NUMBER_GAP = Rule(
    name="number_gap",
    severity="warning",
    sentence="The numbers of a file's episodes have gaps.",
    threshold="numbers without gaps",
    remedy="Check that no episode was lost.",
    repair="Numbered anew, in natural order.",
)
SLOW_CHUNKS = Rule(
    name="slow_chunks",
    severity="warning",
    sentence="Frames are stored many to a chunk: one random frame costs reading them all.",
    threshold="one frame a chunk",
    remedy="Rewrite the file with robot-data repack: up to 100 times faster.",
    repair="One frame a chunk, as JPEG.",
)
CORRECTED_CONVENTIONS = Rule(
    name="corrected_conventions",
    severity="warning",
    sentence="A file beside the data declares something else than the data itself.",
    threshold="one declaration",
    remedy="Keep the file beside it if it corrects the data on purpose; else delete it.",
    repair="The declaration in force is stored in the file.",
)
TRIMMED_ROWS = Rule(
    name="trimmed_rows",
    severity="warning",
    sentence="The parts of an episode have different lengths, and the layout says to cut them.",
    threshold="one length",
    remedy="The rows beyond the shortest are left out; look at the end of the episode.",
)
UNREADABLE_CAMERA = Rule(
    name="unreadable_camera",
    severity="warning",
    sentence="What lies where frames should be does not decode, so the camera is left out.",
    threshold="frames that decode",
    remedy="Record it again, or name the cameras in a sidecar's layout.images.",
)
CAMERA_NOT_READ = Rule(
    name="camera_not_read",
    severity="warning",
    sentence="What looks like a camera is not stored as one is, and is left out.",
    threshold="rows, columns and colour channels",
    remedy="Nothing, if it is a depth map or was left out on purpose; else store it so.",
)
COLUMN_NOT_READ = Rule(
    name="column_not_read",
    severity="warning",
    sentence="What lies where a layout looks for columns of numbers is not read as columns.",
    threshold="numbers, one or one row of them a step",
    remedy="Nothing, if no policy needs it. Booleans that a sidecar's layout.state (or .actions) "
    "names are read as 0 and 1; anything else must be stored as numbers, one row a step.",
)
NAMES_NOT_READ = Rule(
    name="names_not_read",
    severity="warning",
    sentence="Names of columns that a LeRobot folder lists cannot be read as one name a column.",
    threshold="one name a column, each once",
    remedy="Write the names into conventions.yaml beside `meta`: state.names, action.names.",
)
SURPLUS_BYTES = Rule(
    name="surplus_bytes",
    severity="warning",
    sentence="An HDF5 file is longer than it says: bytes were put into it or behind it.",
    threshold="the length it states",
    remedy="Copy it again: what was put in between would shift the numbers behind it.",
)
MISSING_ENDS = Rule(
    name="missing_ends",
    severity="warning",
    sentence="Of the datasets that mark where episodes end, one is missing.",
    threshold="all that the layout names",
    remedy="Look at the episodes' lengths: two may have become one.",
)
EMPTY_PLACE = Rule(
    name="empty_place",
    severity="warning",
    sentence="A place that a sidecar's layout names holds nothing in any episode of the file.",
    threshold="something there in one episode at least",
    remedy="Correct the place in the sidecar, or remove the key.",
)
HIDDEN_FILES = Rule(
    name="hidden_files",
    severity="warning",
    sentence="Files of a folder have names that start with a point, and are not read.",
    threshold="recordings under visible names",
    remedy="Delete what macOS (._*) or an interrupted copy left; rename what is a recording.",
)
FILE_RULES: Final = (
    *(HIDDEN_FILES, SURPLUS_BYTES, MISSING_ENDS, EMPTY_PLACE),
    *(STALE_TOTAL, NUMBER_GAP, SLOW_CHUNKS, CORRECTED_CONVENTIONS, TRIMMED_ROWS),
    *(UNREADABLE_CAMERA, CAMERA_NOT_READ, COLUMN_NOT_READ, NAMES_NOT_READ),
)

# Which frames of a video belong to the steps of its episode.
WRONG_CLOCK = Rule(
    name="wrong_clock",
    severity="error",
    sentence="The times of an episode lead to other frames of its videos than the numbers of its "
    "steps: they do not start at 0, run at another rate than fps, or are uneven.",
    threshold="the same frame by timestamp and by frame_index / fps",
    remedy="Write into conventions.yaml beside `meta` which is right: `layout: {clock: "
    "frame_index}`, the frame of the step's number, or `layout: {clock: timestamp, tolerance_s: "
    "SECONDS}`, the frame nearest to the recorded time, with the tolerance that this episode needs "
    "or the largest of several. Where times are only inexact, --tolerance-s (data.tolerance_s in a "
    "run) allows more.",
    repair="Each step has the frame of its number, at frame_index / fps.",
)
FRAME_COUNT = Rule(
    name="frame_count",
    severity="error",
    sentence="A video holds another number of frames than its episodes have steps.",
    threshold="one frame a step",
    remedy="Look whether it is this episode's video. If it is, leave the episode out (robot-data "
    "filter --leave-out), or write `layout: {clock: timestamp, tolerance_s: SECONDS}` into "
    "conventions.yaml beside `meta`, with the tolerance it needs, where the recorded times tell "
    "which frame each step has seen.",
)
UNREADABLE_VIDEO = Rule(
    name="unreadable_video",
    severity="error",
    sentence="A video cannot be opened, or what it says of its frames cannot be read.",
    threshold="a whole video",
    remedy="Copy or download it again, or leave its episodes out (robot-data filter --leave-out).",
)
CLOCK_RULES: Final = (WRONG_CLOCK, FRAME_COUNT, UNREADABLE_VIDEO)

LENGTHS = Rule(
    name="lengths",
    severity="error",
    sentence="State, actions or times of an episode have another number of rows than it has steps.",
    threshold="one state, action and time for each step",
    remedy="Leave the episode out or cut it where the recording stopped; no row may be guessed.",
)


def damaged_episode(where: str, error: Exception) -> str:
    """The fault of an episode that HDF5 cannot read, by what h5py raised."""
    found = f"a damaged header ({type(error).__name__}: {error})"
    remedy = UNREADABLE_EPISODE.remedy
    return describe(where, found, "a whole episode", remedy, UNREADABLE_EPISODE.name)


def as_findings(faults: Iterable[str], rule: Rule = UNREADABLE_FILE) -> list[Finding]:
    """Faults as findings, in order; of this rule where they name none."""
    return [
        rule.told(fault) if isinstance(fault, Fault) else rule.found(DATASET, fault)
        for fault in faults
    ]
