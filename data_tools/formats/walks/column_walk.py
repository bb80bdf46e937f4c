"""The columns of one episode: where they are, or the number that stands for all its steps."""

from collections.abc import Iterator, Sequence
from numbers import Real
from typing import NamedTuple

import h5py

from data_tools.errors import shown
from data_tools.formats.layouts.places import (
    EVERY_COLUMN,
    ColumnPlace,
    InAttribute,
    InDataset,
    InJsonFile,
    OfEpisodes,
)
from data_tools.formats.layouts.texts import UnreadableFactError, fact
from data_tools.formats.reading.records import ArraySource, ColumnSource
from data_tools.formats.walks.streams import TRIM_REMEDY, Streams
from data_tools.rules import LENGTHS, UNREADABLE_FACT, WRONG_FORM
from data_tools.storage.hdf5.links import find_group

PLACES = "the path of a dataset, a number, or episodes, attribute, dataset or file"


class EpisodeColumns(NamedTuple):
    """What was found.

    Attributes:
        rows: name -> where a column with a row a step is; its rows go with the observations.
        values: name -> the number of a column that is one for all steps.
    """

    rows: dict[str, ArraySource]
    values: dict[str, float]


def columns_of(streams: Streams, lengths: Sequence[int]) -> EpisodeColumns:
    """The columns of an episode; a fault, which the streams get, for each that is not as declared.

    Args:
        streams: of the episode.
        lengths: how many rows a column may have: as many as actions or as states.
    """
    found = EpisodeColumns({}, {})
    for name, place in streams.layout.columns.items():
        if not isinstance(place, str):
            value = _value(streams, name, place)
            found.values.update({} if value is None else {name: value})
            continue
        for own, path in _paths(streams, name, place):
            if _has_rows(streams, path, lengths):
                source = ColumnSource(streams.path_in_file(path))
                found.rows[own] = ArraySource((source,))
    return found


def _paths(streams: Streams, name: str, path: str) -> Iterator[tuple[str, str]]:
    """The names and paths of the columns that an entry of `columns` stands for."""
    if name != EVERY_COLUMN:
        yield name, path
        return
    folder = path.removesuffix("/*")
    group = find_group(streams.group, folder, may_leave=streams.layout.allow_external_links)
    for member, item in () if group is None else group.items():
        if isinstance(item, h5py.Dataset) and member not in streams.layout.columns:
            yield member, f"{folder}/{member}"


def _has_rows(streams: Streams, path: str, lengths: Sequence[int]) -> bool:
    """Whether a dataset has a number, or a row of them, for each step; a fault where it has not."""
    dataset = streams.dataset(path)
    if dataset is None or not streams.is_usable(dataset, kinds="fiub"):
        return False
    if len(dataset) in lengths or -1 in lengths:
        return True
    where, expected = f"{streams.where}, {dataset.name}", f"{lengths[0]}, one a step"
    streams.fault(LENGTHS, where, f"{len(dataset)} rows", expected, TRIM_REMEDY)
    return False


def _value(streams: Streams, name: str, place: ColumnPlace) -> float | None:
    """The number of an episode; None, and a fault, where there is none."""
    if isinstance(place, float):
        return place
    where = f"{streams.where}, column {name!r}"
    episode = streams.name.rpartition("/")[2] or streams.path.name
    if isinstance(place, OfEpisodes):
        if episode not in place.episodes:
            found = f"numbers of {shown([*place.episodes])}"
            remedy = f"Add it to layout.columns.{name}.episodes."
            streams.fault(UNREADABLE_FACT, where, found, f"one of {episode!r} too", remedy)
        return place.episodes.get(episode)
    assert isinstance(place, InAttribute | InDataset | InJsonFile)
    may_leave = streams.layout.allow_external_links
    try:
        value = fact(place, streams.group, streams.path, may_leave=may_leave)
    except UnreadableFactError as error:
        value = error
    if isinstance(value, Real):
        return float(value)
    found = str(value) if isinstance(value, UnreadableFactError) else shown(value)
    remedy = f"Mend it, or name another place in layout.columns.{name}: {PLACES}."
    streams.fault(
        UNREADABLE_FACT if value is not None else WRONG_FORM, where, found, "a number", remedy
    )
    return None
