"""Empty places: what a person said lies somewhere, and no episode has there."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from data_tools.finding import Finding
from data_tools.formats.layouts.layout import Layout
from data_tools.formats.reading.records import EpisodeRecord
from data_tools.rules import EMPTY_PLACE


def empty_places(
    path: Path, layout: Layout, given: Collection[str], episodes: Sequence[EpisodeRecord]
) -> Iterator[Finding]:
    """A warning for each place of facts that a person gave and that fits no episode.

    Without what lies there an episode can be read, so nothing else tells. A layout's own places are
    left out: its files may lack what they have room for.

    Args:
        path: the file.
        layout: the layout that was read.
        given: keys of the layout that a person wrote.
        episodes: every episode of the file, at least one.
    """
    for key, place in _empty(layout, episodes):
        if key.partition(".")[0] in given:
            yield EMPTY_PLACE.found(str(path), f"layout.{key} {place}")


def _empty(layout: Layout, episodes: Sequence[EpisodeRecord]) -> Iterator[tuple[str, object]]:
    if layout.success and all(episode.is_success is None for episode in episodes):
        yield "success", layout.success.model_dump(exclude_defaults=True)
    if layout.times and all(episode.times is None for episode in episodes):
        yield "times", layout.times.model_dump()
    if layout.simulator_states and all(episode.simulator is None for episode in episodes):
        yield "simulator_states", repr(layout.simulator_states)
    for name, place in layout.attributes.items():
        if not any(name in episode.attributes for episode in episodes):
            yield f"attributes.{name}", place.model_dump(exclude_defaults=True)
