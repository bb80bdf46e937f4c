"""The check that an episode's numbers can be read at all."""

from collections.abc import Callable

from data_tools.doctor.checks.recording import Recording
from data_tools.episode import Episode
from data_tools.errors import UserError
from data_tools.finding import Finding, Rule

UNREADABLE_NUMBERS = Rule(
    name="unreadable_numbers",
    severity="error",
    sentence="The states or actions of an episode cannot be read, though the file opens.",
    threshold="arrays that decompress",
    remedy="Take what is left with robot-data salvage, or leave the episode out.",
)
RULES = (UNREADABLE_NUMBERS,)


def read(episode: Episode, report: Callable[[Finding], None]) -> Recording | None:
    """The episode's numbers; None, and a finding reported, where the storage is broken.

    What it says of itself is read with them, for some layouts keep that beside the numbers.
    """
    try:
        return Recording.of(episode)
    except (UserError, OSError) as error:
        report(UNREADABLE_NUMBERS.found(episode.name, f"{type(error).__name__} ({error})"))
        return None
