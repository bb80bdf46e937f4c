"""Candidates: which datasets of an episode may be its actions, its state, its frames and facts."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import h5py
import numpy as np
import yaml

from data_tools.errors import shown
from data_tools.formats.drafts.arrangement import Arrangement, has_rows
from data_tools.formats.layouts.places import InDataset
from data_tools.formats.layouts.survey import is_column_table
from data_tools.formats.layouts.texts import UnreadableFactError, attribute, fact
from data_tools.storage.frames.images import UndecodableFrameError
from data_tools.storage.hdf5.frame_encoding import encoding_of, frame_size
from data_tools.storage.hdf5.links import has_known_type
from data_tools.storage.hdf5.soundness import UNREADABLE, storage_fault

# What people call a command; a name is no proof, so that what it means is left to them.
_COMMANDS: Final = re.compile(
    r"action|command|cmd|control|ctrl|target|leader|master|desired|setpoint|joy", re.I
)


@dataclass(frozen=True)
class Candidate:
    """One dataset of an episode.

    Attributes:
        path: as a layout names it.
        words: its type and shape, or its frames' size.
        width: columns; of frames 0.
        is_command: whether its name says that it may be an action.
    """

    path: str
    words: str
    width: int = 0
    is_command: bool = False


@dataclass(frozen=True)
class Candidates:
    """What may be what in an episode.

    Attributes:
        columns: tables of numbers with a row a step.
        frames: pictures, a row a step.
        clocks: lists of numbers that rise with every step.
        texts: places of texts, as YAML writes them, with what is there.
        rates: places of single numbers, as YAML writes them, with what is there.
        rest: what is none of these.
        num_rows: rows of most of them.
    """

    columns: tuple[Candidate, ...]
    frames: tuple[Candidate, ...]
    clocks: tuple[Candidate, ...]
    texts: tuple[tuple[str, str], ...]
    rates: tuple[tuple[str, str], ...]
    rest: tuple[Candidate, ...]
    num_rows: int


def candidates(arrangement: Arrangement) -> Candidates:
    """What may be what in the first episode, in natural order."""
    tables, frames, clocks, rest = [], [], [], []
    rows = _num_rows(arrangement)
    for path, dataset in arrangement.datasets.items():
        one = Candidate(path, _in_words(dataset), _width(dataset), bool(_COMMANDS.search(path)))
        size = _picture_size(dataset)
        if not has_rows(dataset) or abs(len(dataset) - rows) > 1 or path in arrangement.ends:
            rest.append(one)
        elif size is not None:
            words = f"{one.words} of {size[1]} x {size[0]} pixels"
            frames.append(Candidate(path, words))
        elif _is_clock(dataset):
            clocks.append(one)
        elif is_column_table(dataset):
            tables.append(one)
        else:
            rest.append(one)
    return Candidates(
        columns=tuple(tables),
        frames=tuple(frames),
        clocks=tuple(clocks),
        texts=tuple(_texts(arrangement)),
        rates=tuple(_rates(arrangement)),
        rest=tuple(rest),
        num_rows=rows,
    )


def _num_rows(arrangement: Arrangement) -> int:
    """The rows that most datasets have, those of tables before others; the fewer of T and T + 1."""
    every = [each for each in arrangement.datasets.values() if has_rows(each)]
    tables = [len(each) for each in every if each.ndim > 1] or [len(each) for each in every]
    counts = Counter(tables)
    most = max(counts.values())
    return min(rows for rows, count in counts.items() if count == most)


def _picture_size(dataset: h5py.Dataset) -> tuple[int, int] | None:
    """(height, width) of a dataset's frames; None where it has none that decode."""
    if not has_known_type(dataset):
        return None
    encoding = encoding_of(dataset)
    if encoding is None:
        return None
    try:
        return frame_size(dataset, encoding, ())
    except (UndecodableFrameError, *UNREADABLE):
        return None  # bytes that are something else


def _is_clock(dataset: h5py.Dataset) -> bool:
    """Whether it is a list of numbers that rise with every row."""
    if dataset.ndim != 1 or dataset.dtype.kind not in "fiu" or storage_fault(dataset):
        return False
    return bool(np.all(np.diff(np.asarray(dataset[()], dtype=np.float64)) > 0))


def _width(dataset: h5py.Dataset) -> int:
    return int(dataset.shape[1]) if dataset.ndim == 2 else 1


def _in_words(dataset: h5py.Dataset) -> str:
    if not has_known_type(dataset):
        return "a type that numpy has not"
    if dataset.dtype.names:
        return f"a table of the fields {', '.join(dataset.dtype.names)}"
    kind = "text" if h5py.check_string_dtype(dataset.dtype) else str(dataset.dtype)
    return f"{'bytes' if kind == 'object' else kind}{list(dataset.shape or ())}"


def scalar(text: str) -> str:
    """A text as YAML writes it on one line."""
    return yaml.safe_dump([text], default_flow_style=True, width=1 << 20).strip()[1:-1]


def _texts(arrangement: Arrangement) -> Iterator[tuple[str, str]]:
    for name, value in _attributes(arrangement):
        if isinstance(value, str) and value.strip():
            yield f"{{attribute: {scalar(name)}}}", shown(value, 60)
    for path, value in _facts(arrangement):
        if isinstance(value, str) and value.strip():
            yield f"{{dataset: {scalar(path)}}}", shown(value, 60)


def _rates(arrangement: Arrangement) -> Iterator[tuple[str, str]]:
    found = [(f"{{attribute: {scalar(name)}}}", value) for name, value in _attributes(arrangement)]
    found += [(f"{{dataset: {scalar(path)}}}", value) for path, value in _facts(arrangement)]
    for place, value in found:
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1000:
            yield place, f"{value:g}"


def _attributes(arrangement: Arrangement) -> Iterator[tuple[str, object]]:
    """Attributes of the episode and of the groups around it, which a layout can name."""
    first = arrangement.first
    told = set()
    for holder in (first, first.parent, first.file["/"]):
        for name in holder.attrs:
            if isinstance(name, str) and name not in told:
                told.add(name)
                yield name, attribute(holder, name)


def _facts(arrangement: Arrangement) -> Iterator[tuple[str, object]]:
    """Datasets of a single value."""
    first = arrangement.first
    for path, dataset in arrangement.datasets.items():
        if has_known_type(dataset) and dataset.size == 1 and arrangement.episodes != "numbers":
            try:
                yield path, fact(InDataset(dataset=path), first, Path(first.file.filename))
            except (UnreadableFactError, *UNREADABLE):
                continue
