"""open_dataset: robot demonstrations as episodes, read lazily, one frame at a time."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_tools.episode import Dataset
from data_tools.errors import UserError, describe, raise_faults
from data_tools.finding import ruled
from data_tools.formats.keep_files import (
    KeptDataset,
    read_keep,
    relative_names,
    renamed,
    require_fits,
    steps_of,
    weights_of,
)
from data_tools.formats.layouts.sidecar import require_known_layout
from data_tools.formats.lerobot import INFO_FILE, is_lerobot, open_lerobot
from data_tools.formats.reading.hdf5_files import Asked, Hdf5Files, undeclared_faults
from data_tools.formats.reading.index_cache import IndexCache
from data_tools.rules import CONTRADICTION, UNREADABLE_FILE
from data_tools.storage.files.paths import HDF5_SUFFIXES, DataFiles, expand
from data_tools.storage.files.remote import RemotePath, path_of

Places = str | Path | Sequence[str | Path]


def open_dataset(
    path: Places,
    *,
    mask: str | None = None,
    keep: Path | None = None,
    layout: str | None = None,
    allow_undeclared: bool = False,
    allow_external_links: bool = False,
    tolerance_s: float | None = None,
) -> Dataset:
    """The episodes of a LeRobot folder, or of HDF5 files that share their conventions.

    Headers are read now, so that every fault of structure is told at once; numbers and frames when
    asked for.

    Args:
        path: a file, a folder (its .hdf5 and .h5 files, in natural order, or those below it), a
            glob, or a list of these; or one LeRobot dataset's folder. URLs of HDF5 files that
            fsspec can read, `s3://...` or `https://...`, signed ones too, are read where they are,
            in blocks.
        mask: name of a filter key, a list of episodes that the files keep in `mask/<name>`: only
            these episodes, at least one.
        keep: a keep-file of `robot-data filter`: windows start only where it says.
        layout: name of the layout to read HDF5 files as, whatever they look like; `native` for our
            own.
        allow_undeclared: whether data may be opened of which nobody has declared what its layout
            cannot tell, to look at it: frames of unknown orientation then come as stored.
        allow_external_links: whether HDF5 files may lead to data in other files, and what lies
            beside them out of the folder that is opened. Only for data you trust: a link may name
            any file that this process can read.
        tolerance_s: how far the times of a LeRobot folder may lie from the frames of its videos, in
            place of what its sidecar says; in seconds.

    Raises:
        UserError: nothing is there, a file is broken, its layout is unknown or needs a declaration,
            an episode's datasets are missing or do not fit the conventions, or two files declare
            different conventions; all faults of all files together.
    """
    dataset: Dataset
    places = _places(path)
    lerobot = [place for place in places if _is_lerobot(place)]
    if lerobot:
        _require_alone(lerobot[0], places, mask, layout, allow_external_links)
        dataset = open_lerobot(lerobot[0], tolerance_s=tolerance_s)
    else:
        _require_no_tolerance(places, tolerance_s)
        asked = Asked(_folders(places), mask, layout or "", allow_external_links)
        index = IndexCache([*map(str, places), mask, layout])
        files = Hdf5Files.of(expand(places), asked, index)
        left_open = undeclared_faults(files.found)
        faults = [*files.faults, *files.hints, *files.differences(), *files.mask_faults(mask)]
        if faults or (left_open and not allow_undeclared):
            raise UserError([*faults, *left_open])
        index.save()
        dataset = files.dataset(files.found)
    return dataset if keep is None else _kept(dataset, Path(keep))


@dataclass
class Opened:
    """What opens of some data, for those who look at it and do not train on it.

    Attributes:
        datasets: the episodes without a fault, those together that share their conventions.
        faults: everything that `open_dataset` would refuse, but for what is only undeclared.
    """

    datasets: list[Dataset] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def open_what_opens(
    path: Places,
    *,
    mask: str | None = None,
    layout: str | None = None,
    allow_external_links: bool = False,
    tolerance_s: float | None = None,
) -> Opened:
    """Every episode that can be read, and every fault of the others.

    Unlike `open_dataset` it takes LeRobot folders and HDF5 files side by side, and files that
    declare different conventions: each kind is a dataset of its own.

    Args:
        path: as `open_dataset`; several LeRobot folders may be among the places.
        mask: name of a filter key of HDF5 files.
        layout: name of the layout to read HDF5 files as.
        allow_external_links: as `open_dataset`.
        tolerance_s: as `open_dataset`.

    Raises:
        UserError: an option that is not for this data. What is wrong with the data is no error.
    """
    opened, places = Opened(), _places(path)
    if layout:
        require_known_layout("layout", layout)
    lerobot = [place for place in places if _is_lerobot(place)]
    for folder in lerobot:
        _require_alone(folder, [folder], mask, layout, allow_external_links)
        faults: list[str] = []
        try:
            opened.datasets.append(open_lerobot(folder, tolerance_s=tolerance_s, left_out=faults))
        except UserError as error:
            faults = [*error.faults]
        opened.faults += ruled(faults, CONTRADICTION)
    others = [place for place in places if place not in lerobot]
    if not lerobot:
        _require_no_tolerance(places, tolerance_s)
    if others or not places:
        asked = Asked(_folders(others), mask, layout or "", allow_external_links)
        found = _expanded(others, opened.faults)
        files = Hdf5Files.of(found, asked, IndexCache([*map(str, others), mask, layout]))
        opened.faults += [*files.faults, *files.differences(), *files.mask_faults(mask)]
        opened.datasets += [
            dataset for alike in files.alike() if len(dataset := files.dataset(alike))
        ]
    return opened


def _expanded(places: Sequence[Path], faults: list[str]) -> DataFiles:
    """The files of all places; what is wrong with some of these is added to the faults."""
    try:
        return expand(places)
    except UserError as error:
        faults += ruled(error.faults, UNREADABLE_FILE)
    read: dict[str, Path] = {}
    hidden: list[Path] = []
    for place in places:
        try:
            files = expand([place])
        except UserError:
            continue  # told above
        read |= {os.path.realpath(each): each for each in files.read}
        hidden += files.hidden
    return DataFiles(list(read.values()), hidden)


def _places(path: Places) -> list[Path]:
    places = [path] if isinstance(path, str | Path) else path
    if "" in places:
        remedy = "Give a path; '.' is the folder you are in."
        raise UserError(describe("path", "an empty text", "a file, a folder or a glob", remedy))
    return [path_of(place) for place in places]


def _folders(places: Sequence[Path]) -> list[Path]:
    return [each for each in places if isinstance(each, RemotePath) or os.path.isdir(each)]


def _is_lerobot(path: Path) -> bool:
    if not isinstance(path, RemotePath):
        return is_lerobot(path)
    if path.suffix in HDF5_SUFFIXES or path.query or path.is_pattern:
        return False
    if (path / INFO_FILE).is_file():
        found, remedy = "a LeRobot folder behind a URL", "Download it, with its videos."
        raise UserError(describe(str(path), found, "HDF5 files, or a folder on a disk", remedy))
    return False


def _require_alone(
    folder: Path,
    places: Sequence[Path],
    mask: str | None,
    layout: str | None,
    allow_external_links: bool,
) -> None:
    """UserError for a LeRobot folder beside other places, or with options of HDF5 files."""
    faults = []
    if len(places) > 1:
        found, expected = f"a LeRobot folder among {len(places)} paths", "it alone, or HDF5 files"
        remedy = "Open one LeRobot folder at a time; `robot-data convert` makes HDF5 of it."
        faults.append(describe(str(folder), found, expected, remedy))
    if mask is not None or layout is not None:
        found = f"mask {mask!r} and layout {layout!r} for a LeRobot folder"
        remedy = "Leave them out: they are for HDF5 files."
        faults.append(describe(str(folder), found, "neither", remedy))
    if allow_external_links:
        found, remedy = (
            "allow_external_links for a LeRobot folder",
            "Leave it out, too: it has none.",
        )
        faults.append(describe(str(folder), found, "false", remedy))
    raise_faults(faults)


def _require_no_tolerance(places: Sequence[Path], tolerance_s: float | None) -> None:
    """UserError for a tolerance of times where no LeRobot folder is."""
    if tolerance_s is not None:
        where = ", ".join(map(str, places))
        found, remedy = f"tolerance_s {tolerance_s:g}", "Leave it out: HDF5 files need none."
        raise UserError(describe(where, found, "a LeRobot folder for it", remedy))


def _kept(dataset: Dataset, path: Path) -> KeptDataset:
    episodes = [dataset[index] for index in range(len(dataset))]
    names = relative_names([episode.name for episode in episodes])
    lengths = {n: episode.num_steps for n, episode in zip(names, episodes, strict=True)}
    keep = renamed(read_keep(path), dataset.fingerprint, names)
    require_fits(keep, path, dataset.fingerprint, lengths)
    starts = [steps_of(keep.episodes.get(name, ())) for name in names]
    weights = [weights_of(keep.weights.get(name, 1.0), lengths[name]) for name in names]
    kept = KeptDataset(dataset, starts, weights if keep.weights else None)
    if not len(kept):
        found, remedy = f"no step to start at in {len(names)} episodes", "Make it again."
        raise UserError(describe(str(path), found, "at least one", remedy))
    return kept
