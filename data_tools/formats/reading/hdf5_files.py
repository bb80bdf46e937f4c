"""HDF5 files as datasets: all of them as one, or what opens of them, with every fault."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import h5py

from data_tools.conventions import Conventions, compare
from data_tools.episode import Inspected
from data_tools.errors import UserError, describe, nearest
from data_tools.finding import Finding, ruled, told_under
from data_tools.formats.layouts import undeclared
from data_tools.formats.layouts.detect import Detected, detect
from data_tools.formats.layouts.left_out import UnusableLayoutError, told_together
from data_tools.formats.layouts.texts import UnreadableFactError
from data_tools.formats.reading.hdf5_dataset import Hdf5Dataset
from data_tools.formats.reading.index_cache import FileScan, IndexCache
from data_tools.formats.reading.records import EpisodeRecords, pack
from data_tools.formats.walks.file_walk import empty_places, find_episodes
from data_tools.rules import (
    DIFFERING_FILES,
    FILTER_KEY,
    UNREADABLE_FACT,
    UNREADABLE_FILE,
    WRONG_DECLARATION,
)
from data_tools.storage.files.paths import DataFiles, hidden_files
from data_tools.storage.files.remote import RemotePath
from data_tools.storage.hdf5.links import find_dataset, find_group
from data_tools.storage.hdf5.opening import Stamp, open_hdf5, stamp_of
from data_tools.storage.hdf5.soundness import UNREADABLE

MASK_GROUP = "mask"
MAX_MASK_BYTES = 64 << 20


@dataclass(frozen=True)
class Asked:
    """How files are to be read.

    Attributes:
        folders: those among the places that were given, up to which sidecars are looked for.
        mask: name of a filter key; None for all episodes.
        layout: name of the layout to read them as; '' to look.
        allow_external_links: whether data may lie in other files.
    """

    folders: Sequence[Path] = ()
    mask: str | None = None
    layout: str = ""
    allow_external_links: bool = False


@dataclass
class Hdf5Files:
    """What was found in files.

    Attributes:
        found: what each file holds that opens at least in part.
        errors: of each file that does not open, or not all of it.
        hints: what to do about files of which some episodes have faults and others none.
        warnings: about the places that were given.
        stamps: path -> size and time of each file when it was looked at.
    """

    found: dict[Path, FileScan] = field(default_factory=dict)
    errors: list[UserError] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    warnings: tuple[Finding, ...] = ()
    stamps: dict[str, Stamp] = field(default_factory=dict)

    @classmethod
    def of(cls, files: DataFiles, asked: Asked, index: IndexCache) -> "Hdf5Files":
        """Looks at the headers of these files, in order."""
        place = ", ".join(map(str, asked.folders))
        looked = cls(warnings=hidden_files(place, files.hidden))
        for path in files.read:
            stamp = stamp_of(path)
            if stamp is not None:
                looked.stamps[str(path)] = stamp
            looked._look_at(path, asked, index)
        return looked

    def _look_at(self, path: Path, asked: Asked, index: IndexCache) -> None:
        try:
            scan, faults = _scan(path, asked, index)
        except UserError as error:
            self.errors.append(error)
            return
        except UnreadableFactError as error:  # of the first episode, which says what the file is
            expected, remedy = "facts in words, numbers or JSON", "Mend or delete it."
            told = describe(str(path), str(error), expected, remedy, UNREADABLE_FACT.name)
            self.errors.append(UserError(told))
            return
        except UNREADABLE as error:
            self.errors.append(UserError(_damaged(path, error)))
            return
        if faults:
            self.errors.append(UserError(faults))
        if scan.episodes.groups or not faults:
            self.found[path] = scan
        if scan.episodes.groups and faults:
            self.hints.append(_partly(path, len(scan.episodes.groups)))

    @property
    def faults(self) -> list[str]:
        """Every fault of every file; what is the same in many is told once."""
        return told_together(self.errors)

    def mask_faults(self, mask: str | None) -> Iterator[str]:
        """A filter key under which no file has an episode."""
        if mask is None or not self.found:
            return
        if not any(scan.episodes.groups for scan in self.found.values()):
            where = (
                f"filter key {mask!r} of {len(self.found)} files, first {next(iter(self.found))}"
            )
            remedy = "Name another filter key, or make this one again."
            yield describe(where, "no episodes", "at least one", remedy, FILTER_KEY.name)

    def differences(self) -> list[str]:
        """What other files declare differently from the first one."""
        if not self.found:
            return []
        first, scan = next(iter(self.found.items()))
        return [
            fault
            for path, other in self.found.items()
            for fault in _differences(path, other.conventions, first, scan.conventions)
        ]

    def alike(self) -> list[dict[Path, FileScan]]:
        """The files that open, those together that may be one dataset."""
        sets: list[dict[Path, FileScan]] = []
        known: dict[Conventions, dict[Path, FileScan]] = {}
        for path, scan in self.found.items():
            own = known.get(scan.conventions)
            if own is None:
                own = next((each for each in sets if _agree(path, scan, each)), {})
                if not own:
                    sets.append(own)
                known[scan.conventions] = own
            own[path] = scan
        return sets

    def dataset(self, files: Mapping[Path, FileScan]) -> Hdf5Dataset:
        """The episodes of these files, at least one, that share their conventions."""
        rules = sum((Counter(scan.rules) for scan in files.values()), Counter())
        inspected = Inspected(
            layouts=tuple(dict.fromkeys(scan.layout for scan in files.values())),
            evidence=tuple(dict.fromkeys(s for scan in files.values() for s in scan.evidence)),
            warnings=(
                *self.warnings,
                *(warning for scan in files.values() for warning in scan.warnings),
            ),
            rules=tuple(f"{rule} ({count} rows)" for rule, count in rules.items() if count),
            undeclared=tuple(undeclared_faults(files)),
            files=tuple(map(str, files)),
            origins=_origins(files.values()),
            drafts=tuple(
                undeclared.draft(paths, layout, files[paths[0]].undeclared, len(files))
                for (layout, _), paths in _gaps(files).items()
            ),
        )
        stored = next(iter(files.values())).conventions
        records = EpisodeRecords([scan.episodes for scan in files.values()])
        return Hdf5Dataset(records, stored.as_delivered(), inspected, self.stamps)


def _origins(scans: Iterable[FileScan]) -> dict[str, tuple[str, ...]]:
    """Place of each value -> what says it, in the order of the files."""
    found: dict[str, dict[str, None]] = {}
    for origins in dict.fromkeys(tuple(scan.origins.items()) for scan in scans):
        for place, origin in origins:
            found.setdefault(place, {})[origin] = None
    return {place: tuple(origins) for place, origins in found.items()}


def undeclared_faults(found: Mapping[Path, FileScan]) -> list[str]:
    """A sentence for each kind of gap: files of one layout mostly lack the same."""
    return [
        undeclared.fault(paths, layout, found[paths[0]].undeclared, len(found))
        for (layout, _), paths in _gaps(found).items()
    ]


def _gaps(found: Mapping[Path, FileScan]) -> dict[tuple[str, tuple[str, ...]], list[Path]]:
    """Layout and open places of each kind of gap -> the files that have it."""
    alike: dict[tuple[str, tuple[str, ...]], list[Path]] = {}
    for path, scan in found.items():
        places = tuple(one.place for one in scan.undeclared)
        if places:
            alike.setdefault((scan.layout, places), []).append(path)
    return alike


def _scan(path: Path, asked: Asked, index: IndexCache) -> tuple[FileScan, list[str]]:
    """What a file holds, from the index where that knows it, and the faults of its episodes.

    Raises:
        UserError: every reason why it does not open at all.
    """
    is_remote = isinstance(path, RemotePath)
    top = next((folder for folder in asked.folders if folder in path.parents), path.parent)
    stamp = index.stamp(path, top) if not is_remote else []
    known = index.get(path, stamp)
    if known is not None:
        return known, []
    with told_under(UNREADABLE_FILE, partial(open_hdf5, path)) as file:
        detected = _detected(file, path, asked, top)
        walked = find_episodes(file, path, detected.layout, detected.conventions)
        if walked.episodes:
            given, episodes = detected.given, walked.episodes
            walked.warnings += empty_places(path, detected.layout, given, episodes)
        if asked.mask is not None:
            chosen = _masked(file, path, asked.mask)
            walked.episodes = [e for e in walked.episodes if e.group.rpartition("/")[2] in chosen]
    scan = FileScan(
        layout=detected.layout.name,
        conventions=detected.conventions,
        evidence=detected.evidence,
        warnings=(*detected.warnings, *walked.warnings),
        undeclared=detected.undeclared,
        rules=walked.rules,
        origins=detected.origins,
        episodes=pack(str(path), walked.episodes),
    )
    if detected.layout.is_self_contained and not is_remote and not walked.faults:
        index.put(path, stamp, scan)
    return scan, walked.faults


def _detected(file: h5py.File, path: Path, asked: Asked, top: Path) -> Detected:
    """The layout and conventions of a file; its faults are of the layout, or of a declaration."""
    try:
        return detect(
            file, path, asked.layout, top, allow_external_links=asked.allow_external_links
        )
    except UnusableLayoutError:
        raise  # told together with others like it
    except UserError as error:
        raise UserError(ruled(error.faults, WRONG_DECLARATION)) from error


def _partly(path: Path, whole: int) -> str:
    found = f"{whole} episodes without a fault beside these"
    remedy = (
        "Mend these as told, or delete each from a copy (h5py: `del file['data/demo_3']`). Where "
        "storage is damaged or rows are lost, "
        f"`robot-data salvage {path} NEW.hdf5` copies the episodes that are whole."
    )
    return describe(str(path), found, "every episode so", remedy)


def _masked(file: h5py.File, path: Path, mask: str) -> set[str]:
    """Names of the episodes that a filter key lists."""
    group = find_group(file, MASK_GROUP)
    dataset = None if group is None else find_dataset(group, mask)
    if (
        dataset is None
        or dataset.ndim != 1
        or dataset.dtype.kind not in "SO"
        or dataset.nbytes > MAX_MASK_BYTES
    ):
        known = sorted(group) if group is not None else []
        hint = nearest(mask, known)
        remedy = f"Correct the name{f'; {hint}' if hint else '.'}"
        where = f"{path}:{MASK_GROUP}"
        told = f"the filter keys {known}"
        raise UserError(describe(where, told, f"{mask!r}", remedy, FILTER_KEY.name))
    names = [n.decode(errors="replace") if isinstance(n, bytes) else str(n) for n in dataset[()]]
    missing = [name for name in names if find_group(file, f"data/{name}") is None]
    if missing:
        found = f"{len(missing)} names without an episode, first {missing[0]!r}"
        remedy = "Make the filter key again: the file was edited or merged since."
        where = f"{path}:{MASK_GROUP}/{mask}"
        raise UserError(describe(where, found, "episodes", remedy, FILTER_KEY.name))
    return set(names)


def _damaged(path: Path, error: Exception) -> str:
    found = f"a damaged header ({type(error).__name__}: {error})"
    remedy = "Copy or download it again; robot-data salvage takes what is left of it."
    return describe(str(path), found, "a whole file", remedy, UNREADABLE_FILE.name)


def _agree(path: Path, scan: FileScan, others: Mapping[Path, FileScan]) -> bool:
    first, other = next(iter(others.items()))
    return not _differences(path, scan.conventions, first, other.conventions)


def _differences(path: Path, ours: Conventions, first: Path, theirs: Conventions) -> list[str]:
    """What a file declares differently from the first, after frames have been turned."""
    if ours == theirs:
        return []
    ours, theirs = ours.as_delivered(), theirs.as_delivered()
    faults, rule = [], DIFFERING_FILES.name
    if _sizes(ours) != _sizes(theirs):
        found, expected = repr(_sizes(ours)), f"{_sizes(theirs)!r} as {first} declares"
        remedy = "Open files with different cameras as two datasets, or resize the frames."
        faults.append(describe(f"{path}, cameras", found, expected, remedy, rule))
        ours = ours.model_copy(update={"cameras": theirs.cameras})
    told = compare(ours, theirs, found_name=str(path), expected_name=str(first))
    return faults + [describe(m.where, m.found, m.expected, m.remedy, rule) for m in told]


def _sizes(conventions: Conventions) -> list[str]:
    return [f"{camera.name} {camera.width} x {camera.height}" for camera in conventions.cameras]
