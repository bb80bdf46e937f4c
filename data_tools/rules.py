"""Rules about what a file says of itself; the readers of layouts find these when they open it."""

from collections.abc import Sequence
from pathlib import Path

from data_tools.finding import Finding, Rule
from data_tools.storage.files.paths import natural_key

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
RULES = (
    *(HIDDEN_FILES, SURPLUS_BYTES, MISSING_ENDS, EMPTY_PLACE),
    *(STALE_TOTAL, NUMBER_GAP, SLOW_CHUNKS, CORRECTED_CONVENTIONS, TRIMMED_ROWS),
    *(UNREADABLE_CAMERA, CAMERA_NOT_READ, COLUMN_NOT_READ, NAMES_NOT_READ),
)


def hidden_files(place: str | Path, hidden: Sequence[Path]) -> tuple[Finding, ...]:
    """A warning, one for all of them, where hidden files lie at a place that is read."""
    if not hidden:
        return ()
    first = min(hidden, key=lambda path: natural_key(str(path)))
    value = f"hidden files that are not read ({len(hidden)}, first {first})"
    return (HIDDEN_FILES.found(str(place), value),)
