"""plant: a copy of a dataset with one known fault, whose place is told."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import h5py
import numpy as np

from data_tools.doctor.planting import (
    beginning_faults,
    clock_faults,
    column_faults,
    episode_faults,
    gripper_faults,
    motion_faults,
    number_faults,
    picture_faults,
)
from data_tools.doctor.planting.bed import Bed, Fault, Planted, UnfitError
from data_tools.errors import UserError, describe, nearest, raise_faults
from data_tools.formats.layouts.native import declared_root
from data_tools.formats.layouts.sidecar import sidecar_of
from data_tools.formats.reader import open_dataset
from data_tools.formats.reading.hdf5_dataset import Hdf5Dataset
from data_tools.formats.reading.records import EpisodeRecord
from data_tools.rewrite.provenance import (
    Provenance,
    content_of,
    declaring_sidecar,
    provenance,
    sidecar_for_copy,
    write_provenance,
)
from data_tools.rewrite.unfinished import Unfinished
from data_tools.storage.files.disk import PARTIAL_SUFFIX, existing_faults
from data_tools.storage.hdf5.opening import open_hdf5

_ROOMS: Final = (
    *(number_faults, column_faults, motion_faults, gripper_faults, clock_faults),
    *(picture_faults, episode_faults, beginning_faults),
)

FAULTS: Final[Mapping[str, Fault]] = {fault.rule: fault for room in _ROOMS for fault in room.FAULTS}

_OPENING: Final = (
    "it is told while data is opened, and a copy that does not open cannot be read back"
)
_DECLARED: Final = "it is a fault of a declaration, not of the data"
_LEROBOT: Final = "it is a fault of LeRobot folders, which are not planted in"
NOT_PLANTED: Final[Mapping[str, str]] = {
    "empty_place": _DECLARED,
    "corrected_conventions": _DECLARED,
    "undeclared": _DECLARED,
    "trimmed_rows": _OPENING,
    "unreadable_camera": _OPENING,
    "camera_not_read": _OPENING,
    "column_not_read": _OPENING,
    **dict.fromkeys(
        (
            *("lengths", "contradiction", "differing_files", "filter_key", "missing_part"),
            *("no_instruction", "no_steps", "unknown_layout", "unreadable_episode"),
            *("unreadable_fact", "unreadable_file", "wrong_form"),
        ),
        _OPENING,
    ),
    "wrong_declaration": _DECLARED,
    "wrong_clock": _LEROBOT,
    "frame_count": _LEROBOT,
    "unreadable_video": _LEROBOT,
    "names_not_read": _LEROBOT,
    "success_without_reward": "layouts that keep rewards say themselves what a success is",
    "unusable_column": "it needs data with a column beside state and actions",
    "larger_than_memory": "it depends on the machine",
    "split_overlap": "it needs two splits",
    "split_leakage": "it needs two splits",
}


# A fault of one episode goes into the first one, by chance, that has a place for it.
MAX_TRIES: Final = 50


def plant(
    rule: str,
    source: Path,
    target: Path,
    *,
    episode: str | None = None,
    seed: int = 0,
    strength: float | None = None,
    layout: str | None = None,
) -> list[Planted]:
    """What was planted, and in which episodes of the copy; the copy appears when it is whole.

    The copy is the file, or the folder, as it is, with its sidecars, but for the fault. It is read
    again and compared with what was to be planted.

    Args:
        rule: the rule of the doctor that should find the fault, a key of `FAULTS`.
        source: an HDF5 file, or a folder of them; it is only read.
        target: what to make; it must not exist yet.
        episode: number (from 0), or end of the name, of the episode to plant in; of the first one,
            where a fault goes on from there. Chosen by chance when not given.
        seed: of all that is left to chance.
        strength: how strong the fault is, in its own unit; a plain one when not given.
        layout: name of the layout to read the files as.

    Raises:
        UserError: an argument is wrong, the dataset has no place for the fault, or the copy would
            not be read as its source is, but for the fault.
    """
    fault = _fault(rule, strength)
    told = {"rule": rule, "episode": episode, "seed": seed, "strength": strength, "layout": layout}
    raise_faults([*existing_faults(target), *_place_faults(source, target)])
    dataset = _opened(source, layout)
    made = provenance("plant", [source], told)
    with Unfinished(target, made) as work:
        whole, sidecar = _copied(source, target, work.folder / "copy", made)
        with _told_of(whole, target):
            bed = Bed(dataset, _opened(whole, layout).records, whole, layout or "")
            bed.strength, bed.rng = _strength(fault, strength), np.random.default_rng(seed)
            _require_same(dataset, bed.records, source)
            planted = _planted(fault, bed, _choices(fault, bed, episode), source)
            bed.require_planted(open_dataset(whole, layout=layout, allow_undeclared=True))
        work.publish(whole, sidecar)
    return [Planted(each.episode.replace(str(whole), str(target)), each.change) for each in planted]


@contextmanager
def _told_of(whole: Path, target: Path) -> Iterator[None]:
    """Faults are told of the copy by the name that it is to get."""
    try:
        yield
    except UserError as error:
        told = [fault.replace(str(whole), str(target)) for fault in error.faults]
        raise UserError(told) from error


def _fault(rule: str, strength: float | None) -> Fault:
    if rule not in FAULTS:
        hint = nearest(rule, FAULTS)
        remedy = f"{hint} " if hint else ""
        remedy += "`robot-data plant --list` names all."
        raise UserError(describe("plant", f"the fault {rule!r}", "one that can be planted", remedy))
    fault = FAULTS[rule]
    if strength is not None and fault.strength is None:
        found, remedy = f"a strength of {strength:g}", "Leave --strength out."
        raise UserError(describe(rule, found, "none: it is there or is not", remedy))
    if strength is not None and fault.strength is not None and not fault.strength.allows(strength):
        expected = f"{fault.strength.meaning}, {fault.strength.range}"
        remedy = f"{fault.strength.default:g} is plain."
        raise UserError(describe(rule, f"a strength of {strength:g}", expected, remedy))
    return fault


def _strength(fault: Fault, strength: float | None) -> float:
    if fault.strength is None:
        return float("nan")
    return fault.strength.default if strength is None else strength


def _place_faults(source: Path, target: Path) -> list[str]:
    if not source.exists():
        remedy = "Name an HDF5 file or a folder of this machine."
        return [describe(str(source), "nothing there", "data to copy", remedy)]
    if source.resolve() in target.resolve().parents:
        remedy = "Choose a place outside of it."
        return [describe(str(target), f"a place in {source}", "one beside it", remedy)]
    return []


def _opened(path: Path, layout: str | None) -> Hdf5Dataset:
    dataset = open_dataset(path, layout=layout, allow_undeclared=True)
    if not isinstance(dataset, Hdf5Dataset):
        remedy = "Make HDF5 of it first: robot-data convert --to native."
        raise UserError(describe(str(path), "a LeRobot folder", "HDF5 files", remedy))
    return dataset


def _copied(
    source: Path, target: Path, folder: Path, made: Provenance
) -> tuple[Path, bytes | None]:
    """The copy in a folder of its own, and the sidecar that a file must get beside it."""
    folder.mkdir()
    whole, sidecar = folder / target.name, None
    if source.is_dir():
        # links are followed: what is written to must lie in the copy
        shutil.copytree(source, whole, ignore=shutil.ignore_patterns(f"*{PARTIAL_SUFFIX}"))
    else:
        with open_hdf5(source) as file:
            is_native = declared_root(file) is not None
        declaring = declaring_sidecar(source, is_native=is_native)
        sidecar = sidecar_for_copy(target, declaring, is_native=is_native)
        shutil.copyfile(source, whole)
        if declaring is not None:
            sidecar_of(whole).write_bytes(content_of(declaring))
    for path in whole.rglob("*") if whole.is_dir() else (whole,):
        if path.is_file() and h5py.is_hdf5(path):
            path.chmod(0o644)
            with h5py.File(path, "r+") as file:
                write_provenance(file, made, earlier=file)
    return whole, sidecar


def _require_same(dataset: Hdf5Dataset, records: Sequence[EpisodeRecord], source: Path) -> None:
    facts = [
        [(each.instruction, each.num_steps, each.is_success) for each in listed]
        for listed in (dataset.records, records)
    ]
    if facts[0] != facts[1]:
        found = "sentences or lengths that the name of the file or of its folder decides"
        remedy = "Plant in a copy of the whole folder, or convert it first (robot-data convert)."
        raise UserError(describe(str(source), found, "a file that says them itself", remedy))


def _choices(fault: Fault, bed: Bed, episode: str | None) -> Iterator[tuple[int, ...]]:
    """Indices of the episodes to plant in, one choice after the other until one fits."""
    count = len(bed.records)
    if fault.scope == "all":
        if episode is not None:
            remedy = "Leave --episode out."
            found = f"the episode {episode!r} for a fault of all episodes"
            raise UserError(describe(fault.rule, found, "none", remedy))
        yield tuple(range(count))
        return
    if fault.scope == "from":
        first = max(1, count // 2) if episode is None else _index(bed, episode)
        yield tuple(range(first, count))
        return
    if episode is not None:
        yield (_index(bed, episode),)
        return
    for index in bed.rng.permutation(count)[:MAX_TRIES].tolist():
        yield (index,)


def _index(bed: Bed, episode: str) -> int:
    names = [record.name for record in bed.records]
    if episode.isdecimal() and int(episode) < len(names):
        return int(episode)
    found = [k for k, name in enumerate(names) if name == episode or name.endswith(f"/{episode}")]
    if len(found) != 1:
        ends = [name.rpartition("/")[2] for name in names]
        hint = nearest(episode, ends)
        remedy = f"Correct it{f'; {hint}' if hint else '.'}"
        expected = f"a number below {len(names)}, or the end of one name, e.g. {ends[0]!r}"
        told = f"the episode {episode!r}" + (f", which {len(found)} are called" if found else "")
        raise UserError(describe("--episode", told, expected, remedy))
    return found[0]


def _planted(
    fault: Fault, bed: Bed, choices: Iterator[tuple[int, ...]], source: Path
) -> list[Planted]:
    why = ""
    for chosen in choices:
        bed.chosen = chosen
        try:
            planted = list(fault.plant(bed))
        except UnfitError as unfit:
            why = why or str(unfit)
        else:
            if planted:
                return planted
    remedy = "Plant another one; `robot-data plant --list` names all."
    why = why or "no episode for it"
    raise UserError(describe(str(source), why, f"a place for {fault.rule!r}", remedy))
