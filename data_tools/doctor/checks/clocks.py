"""The check that the frames of a video belong to the steps of its episode."""

from collections.abc import Iterator

from data_tools.doctor.checks.recording import Recording
from data_tools.episode import frame_doubts
from data_tools.finding import Finding, Rule

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
RULES = (WRONG_CLOCK, FRAME_COUNT, UNREADABLE_VIDEO)


def check_frame_clock(recording: Recording) -> Iterator[Finding]:
    """Videos of which nobody can say which of their frames belong to which steps."""
    yield from dict.fromkeys(frame_doubts(recording.episode).values())
