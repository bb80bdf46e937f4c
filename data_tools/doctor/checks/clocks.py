"""The check that the frames of a video belong to the steps of its episode."""

from collections.abc import Iterator

from data_tools.doctor.checks.recording import Recording
from data_tools.episode import frame_doubts
from data_tools.finding import Finding


def check_frame_clock(recording: Recording) -> Iterator[Finding]:
    """Videos of which nobody can say which of their frames belong to which steps."""
    yield from dict.fromkeys(frame_doubts(recording.episode).values())
