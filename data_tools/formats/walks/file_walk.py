"""The walk over a file: every episode it holds, and every fault of its structure.

Empty places: what a person said lies somewhere, and no episode has there.
"""

import posixpath
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from data_tools.conventions import Conventions
from data_tools.errors import UserError, describe, shown
from data_tools.finding import Finding, ruled
from data_tools.formats.layouts import native
from data_tools.formats.layouts.groups import (
    episode_group,
    episode_names,
    no_episodes,
    numbered,
    numbers_of,
    root_of,
    rows_after_ends,
)
from data_tools.formats.layouts.layout import Layout
from data_tools.formats.layouts.texts import attribute
from data_tools.formats.reading.records import EpisodeRecord, Scan
from data_tools.formats.walks.episode_walk import EpisodeWalk
from data_tools.rules import (
    EMPTY_PLACE,
    MISSING_ENDS,
    NO_STEPS,
    NUMBER_GAP,
    SLOW_CHUNKS,
    STALE_TOTAL,
    SURPLUS_BYTES,
    UNREADABLE_EPISODE,
    WRONG_FORM,
    damaged_episode,
)
from data_tools.storage.hdf5.links import find_dataset
from data_tools.storage.hdf5.soundness import UNREADABLE, storage_fault, surplus_bytes


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


def find_episodes(file: h5py.File, path: Path, layout: Layout, conventions: Conventions) -> Scan:
    """Every episode of the file, demo_2 before demo_10, and every fault of its structure.

    Reads headers, attributes and the marks of skipped rows and episode ends. An episode with a
    fault is left out of the records; the caller must refuse the file when there is any.

    Args:
        file: the open file.
        path: where it is.
        layout: where its parts are, without patterns.
        conventions: what they must look like.
    """
    scan = Scan()
    root, fault = root_of(file, path, layout)
    if root is None:
        scan.faults.append(fault)
        return scan
    scan.warnings += _surplus(file, path)
    if layout.episodes == "rows":
        _walk_rows(root, path, layout, conventions, scan)
        return scan
    if layout.episodes == "numbers":
        _walk_numbers(root, path, layout, conventions, scan)
        return scan
    names = [""] if layout.episodes == "file" else episode_names(root, layout)
    walked = {name: _walk_group(root, name, path, layout, conventions, scan) for name in names}
    rows = {name: count for name, count in walked.items() if count is not None}
    if not rows:
        scan.faults.append(no_episodes(path, layout))
    if layout.episodes == "groups":
        scan.warnings += _header_warnings(path, root, rows, is_whole=not scan.faults)
    scan.warnings += _slow_chunks(file, path, scan)
    return scan


def _walk_group(
    root: h5py.Group,
    name: str,
    path: Path,
    layout: Layout,
    conventions: Conventions,
    scan: Scan,
) -> int | None:
    """Number of actions of an episode that is a group; 0 of one with a fault, None of no group."""
    where = f"{path}:{posixpath.join(layout.root, name)}"
    try:
        group = episode_group(root, name, layout)
    except UserError as error:  # data in another file
        scan.faults += ruled(error.faults, UNREADABLE_EPISODE)
        return 0
    except UNREADABLE as error:
        scan.faults.append(damaged_episode(where, error))
        return 0
    if group is None:
        if not layout.episode_names:
            return None
        expected = "a group, as its name says an episode is"
        remedy = "Record the episode again, or rename what is none."
        fault = describe(where, "no group", expected, remedy, WRONG_FORM.name)
        scan.faults.append(fault)
        return 0
    return _walk_episode(EpisodeWalk(group, path, layout, conventions), scan)


def _walk_episode(walk: EpisodeWalk, scan: Scan) -> int:
    """Number of actions of an episode, whose record and faults the scan gets; 0 with a fault."""
    record = walk.record()
    scan.faults += walk.faults
    scan.rules += walk.rules
    scan.warnings += walk.warnings
    if record is None:
        return 0
    scan.episodes.append(record)
    return walk.num_action_rows


def _walk_numbers(
    root: h5py.Group, path: Path, layout: Layout, conventions: Conventions, scan: Scan
) -> None:
    """Episodes that lie side by side, a number in the names of their datasets."""
    numbers = numbers_of(root, layout)
    for number in numbers:
        of_one = numbered(layout, number)
        _walk_episode(EpisodeWalk(root, path, of_one, conventions, f"number {number}"), scan)
    if not numbers:
        scan.faults.append(no_episodes(path, layout, root))
    scan.warnings += _slow_chunks(root.file, path, scan)


def _walk_rows(
    root: h5py.Group, path: Path, layout: Layout, conventions: Conventions, scan: Scan
) -> None:
    """Episodes that lie one after the other in the same datasets."""
    walk = EpisodeWalk(root, path, layout, conventions)
    whole = walk.record()
    scan.faults += walk.faults
    scan.warnings += walk.warnings
    if whole is None:
        return
    ends = _ends(root, path, layout, whole.num_steps, scan)
    start = 0
    for end in ends:
        scan.episodes.append(walk.rows(whole, start, end))
        start = end
    if start == 0 and not scan.faults:
        found = f"no true value in {list(layout.ends)}"
        remedy = "Declare which dataset marks the ends in layout.ends."
        expected = "one at each episode's last row"
        scan.faults.append(describe(str(path), found, expected, remedy, NO_STEPS.name))
    elif start < whole.num_steps:
        rest = whole.num_steps - start
        scan.rules["rows after the last marked end are left out"] += rest


def _ends(root: h5py.Group, path: Path, layout: Layout, num_rows: int, scan: Scan) -> list[int]:
    """The row after each episode's last one."""
    is_end = np.zeros(num_rows, dtype=bool)
    found = [name for name in layout.ends if find_dataset(root, name) is not None]
    lacking_marks = sorted({*layout.ends} - {*found})
    if found and lacking_marks:
        threshold = f"the marks {list(layout.ends)}"
        lacking_ends = MISSING_ENDS.found(str(path), f"only {found}", threshold=threshold)
        scan.warnings.append(lacking_ends)
    for name in found:
        dataset = root[name]
        found_ = f"{dataset.dtype}{list(dataset.shape or ())}"
        is_list = dataset.ndim == 1 and dataset.dtype.kind in "bfiu" and len(dataset) <= num_rows
        lacking = storage_fault(dataset) if is_list else "no marks of rows"
        ends = None if lacking else rows_after_ends(np.asarray(dataset[()]), num_rows)
        if ends is None:
            where, remedy = f"{path}:{name}", "Record it again or trim it."
            told = f"{found_}, {lacking or 'numbers that tell no ends'}"
            expected = f"marks of {num_rows} rows, or the ends or lengths of episodes in them"
            scan.faults.append(describe(where, told, expected, remedy, WRONG_FORM.name))
            continue
        is_end[ends - 1] = True
    return [int(row) + 1 for row in np.flatnonzero(is_end)]


def _header_warnings(
    path: Path, root: h5py.Group, rows: Mapping[str, int], *, is_whole: bool
) -> Iterator[Finding]:
    names, num_rows = list(rows), sum(rows.values())
    total = attribute(root, native.TOTAL_ATTRIBUTE)
    if total is not None and is_whole and np.any(total != num_rows):
        yield STALE_TOTAL.found(str(path), f"total {total} and {num_rows} actions")
    numbers = [int(digits[-1]) for name in names if (digits := re.findall(r"\d+", name))]
    if numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        yield NUMBER_GAP.found(str(path), f"the episodes {shown(names)}")


def _slow_chunks(file: h5py.File, path: Path, scan: Scan) -> Iterator[Finding]:
    for source in scan.episodes[0].images.values() if scan.episodes else ():
        chunks = None if source.encoding == "video" else file[source.dataset].chunks
        if chunks is not None and chunks[0] > 1 and len(chunks) > 1:
            yield SLOW_CHUNKS.found(f"{path}:{source.dataset}", f"chunks of {chunks[0]} frames")


def _surplus(file: h5py.File, path: Path) -> Iterator[Finding]:
    surplus = surplus_bytes(file)
    if surplus:
        yield SURPLUS_BYTES.found(str(path), f"{surplus} bytes more than the file states")
