"""repack: the same HDF5 tree, stored for random access: one frame a chunk, numbers uncompressed.

How fast random frames of an HDF5 file can be read and decoded: measured, not guessed.

Several files repacked into a folder: which goes where, and what comes along.
"""

import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypedDict

import h5py
import numpy as np

from data_tools.errors import UserError, describe, nearest, raise_faults
from data_tools.formats.layouts.native import declared_root
from data_tools.rewrite.frame_storage import (
    DEFAULT_QUALITY,
    Frames,
    Storage,
    find_frames,
    require_quality,
    write_frames,
)
from data_tools.rewrite.provenance import (
    Provenance,
    declaring_sidecar,
    is_made_so,
    provenance,
    sidecar_for_copy,
    write_provenance,
)
from data_tools.rewrite.tree import Tree, copy_attributes, read_tree, unwritten_faults
from data_tools.rewrite.unfinished import Advance, Unfinished, new_file, require_room, silently
from data_tools.storage.files.paths import visible
from data_tools.storage.hdf5.opening import open_hdf5

MEASURE_S: Final = 1.0
MAX_READS: Final = 1000
MIN_READS: Final = 3


@dataclass(frozen=True)
class AccessSpeed:
    """Size of a file, and its random frames a second, decode included; None without frames.

    Each frame is one of any camera, chosen at random, in one thread, with the file in the page
    cache as far as it fits: what is measured is the storage's work, not the disk.
    """

    num_bytes: int
    frames_per_s: float | None

    def __str__(self) -> str:
        speed = "no frames" if self.frames_per_s is None else f"{self.frames_per_s:.0f} frames/s"
        return f"{self.num_bytes / 1e6:.1f} MB, {speed}"


def measure_access(path: Path, seconds: float = MEASURE_S, seed: int = 0) -> AccessSpeed:
    """Size and random-access speed of a file; the same frames are read for the same seed."""
    with open_hdf5(path) as file:
        cameras = _cameras(file)
        if not cameras:
            return AccessSpeed(path.stat().st_size, None)
        rng = np.random.default_rng(seed)
        num_reads = 0
        cameras[0].pixels(0)  # what is loaded once is not counted
        start = time.perf_counter()
        while num_reads < MIN_READS or (
            num_reads < MAX_READS and time.perf_counter() - start < seconds
        ):
            frames = cameras[rng.integers(len(cameras))]
            frames.pixels(int(rng.integers(len(frames))))
            num_reads += 1
        rate = num_reads / (time.perf_counter() - start)
    return AccessSpeed(path.stat().st_size, rate)


def _cameras(file: h5py.File) -> list[Frames]:
    found: list[Frames] = []

    def visit(_: str, item: h5py.HLObject) -> None:
        frames = find_frames(item) if isinstance(item, h5py.Dataset) else None
        if frames is not None:
            found.append(frames)

    file.visititems(visit)
    return found


# How much of the source, unpacked, goes into one part: what a kill loses at most.
PART_BYTES: Final = 256 << 20
SLAB_BYTES: Final = 64 << 20


class RepackSettings(TypedDict):
    """What a repack of one file is told."""

    images: Storage
    quality: int
    drop: Collection[str]


@dataclass(frozen=True)
class Repacked:
    """A repacked file, with the speed of random access measured before and after."""

    path: Path
    before: AccessSpeed
    after: AccessSpeed


def repack(
    source: Path,
    target: Path,
    *,
    images: Storage = "jpeg",
    quality: int = DEFAULT_QUALITY,
    drop: Collection[str] = (),
    advance: Advance = silently,
) -> Repacked:
    """The file rewritten so that a training sample is read fast; tree and attributes as they were.

    Image datasets get one frame a chunk, numeric ones become contiguous without compression, and
    everything else is copied, images of grey levels or of 16 bits (depth, masks) too. Frames that
    are JPEG already keep their bytes. The sidecar that declares the source, its own or its
    folder's, comes along. A killed repack goes on when it is called again.

    Args:
        source: any HDF5 file.
        target: the file to make.
        images: jpeg (lossy, smallest), png (lossless), blosc (lossless, LZ4) or raw.
        quality: of JPEG, 1 to 100.
        drop: names of groups and datasets to leave out wherever they are, e.g. 'next_obs'.
        advance: called with the bytes done and the bytes there are.

    Raises:
        UserError: the target or another declaration beside it exists, the source cannot be read,
            a name to drop is nowhere, a frame is no whole image, numbers were never written, or
            the tree holds what cannot be copied (links to other files, references).
    """
    require_quality(quality)
    made = _provenance(source, images, quality, drop)
    work = Unfinished(target, made)
    with open_hdf5(source) as file:
        tree = read_tree(file, source, drop)
        _require_dropped(tree, source, drop)
        raise_faults(unwritten_faults(file, source, tree))
        is_native = declared_root(file) is not None
    declared = declaring_sidecar(source, is_native=is_native)
    sidecar = sidecar_for_copy(target, declared, is_native=is_native)
    with work:
        done = _Progress(advance, tree.num_bytes)
        parts: dict[str, Path] = {}
        for number, names in enumerate(_batches(tree)):
            write = partial(_write_part, source, names, images, quality, done.add)
            part = work.part(f"{number:06d}.hdf5", write)
            parts |= dict.fromkeys(names, part)
            done.set(sum(tree.datasets[name] for name in parts))
        whole = work.folder / "whole.hdf5"
        _join(source, tree, parts, whole, made)
        work.publish(whole, sidecar)
    return Repacked(target, measure_access(source), measure_access(target))


def repacked_faults(source: Path, target: Path, settings: RepackSettings) -> list[str]:
    """A fault unless the target is what `repack` makes of the source now."""
    try:
        with open_hdf5(target) as file:
            if is_made_so(file, _provenance(source, **settings)):
                return []
    except UserError as error:
        return list(error.faults)
    found = f"something else than {source}, its sidecar and these settings make"
    remedy = "Delete it, or repack into another folder."
    return [describe(str(target), found, "the same or nothing", remedy)]


def _provenance(source: Path, images: Storage, quality: int, drop: Collection[str]) -> Provenance:
    settings = {"images": images, "quality": quality, "drop": sorted(drop)}
    return provenance("repack", [source], settings)


class _Progress:
    """Bytes done, told on; parts an earlier process made count at once."""

    def __init__(self, advance: Advance, total: int) -> None:
        self._advance = advance
        self._total = total
        self._done = 0

    def add(self, num_bytes: int) -> None:
        self.set(self._done + num_bytes)

    def set(self, num_bytes: int) -> None:
        self._done = num_bytes
        self._advance(num_bytes, self._total)


def _batches(tree: Tree) -> Iterator[list[str]]:
    """Datasets in the order of the tree, in parts of about PART_BYTES."""
    batch: list[str] = []
    size = 0
    for name, num_bytes in tree.datasets.items():
        batch.append(name)
        size += num_bytes
        if size >= PART_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _write_part(
    source: Path,
    names: list[str],
    images: Storage,
    quality: int,
    add: Callable[[int], None],
    path: Path,
) -> None:
    with open_hdf5(source) as old, h5py.File(path, "w") as new:
        for number, name in enumerate(names):
            dataset = old[name]
            frames = find_frames(dataset)
            if frames is not None:
                copy = write_frames(frames, new, str(number), images, quality, add)
                encoded = dict(copy.attrs)
                copy_attributes(dataset, copy)
                copy.attrs.update(encoded)
            elif dataset.shape and dataset.dtype.kind in "fiub":
                _copy_numbers(dataset, new, str(number))
                add(dataset.nbytes)
            else:
                old.copy(dataset, new, str(number))


def _copy_numbers(dataset: h5py.Dataset, group: h5py.Group, name: str) -> None:
    """The same numbers, contiguous and without filters."""
    require_room(Path(group.file.filename), dataset.nbytes)
    copy = group.create_dataset(name, shape=dataset.shape, dtype=dataset.dtype)
    row_bytes = max(1, dataset.dtype.itemsize * int(np.prod(dataset.shape[1:])))
    step = max(1, SLAB_BYTES // row_bytes)
    for start in range(0, len(dataset), step):
        copy[start : start + step] = dataset[start : start + step]
    copy_attributes(dataset, copy)


def _join(source: Path, tree: Tree, parts: dict[str, Path], whole: Path, made: Provenance) -> None:
    """One file of all parts, in the source's tree; the chunks move as they are."""
    numbers: dict[Path, int] = {}
    with open_hdf5(source) as old, h5py.File(whole, "w", track_order=tree.is_ordered("/")) as new:
        copy_attributes(old, new)
        for name in tree.groups:
            group = new.create_group(name, track_order=tree.is_ordered(name))
            copy_attributes(old[name], group)
        opened: dict[Path, h5py.File] = {}
        for name, part in parts.items():
            if part not in opened:
                for finished in opened.values():
                    finished.close()
                opened = {part: h5py.File(part, "r")}
            number = numbers[part] = numbers.get(part, -1) + 1
            opened[part].copy(str(number), new, name)
        for finished in opened.values():
            finished.close()
        for name, kept in tree.copied.items():
            new[name] = kept if isinstance(kept, h5py.SoftLink) else new[kept]
        write_provenance(new, made, earlier=old)


def _require_dropped(tree: Tree, source: Path, drop: Collection[str]) -> None:
    known = {part for name in (*tree.groups, *tree.datasets) for part in name.split("/")}
    faults = []
    for name in sorted(set(drop) - tree.dropped):
        hint = nearest(name, known)
        remedy = f"Correct the name{f'; {hint}' if hint else ', or leave it out.'}"
        faults.append(describe(str(source), f"no {name!r} to drop", "one in the tree", remedy))
    raise_faults(faults)


# Larger files that were copied earlier are told by their size alone.
MAX_COMPARED_BYTES: Final = 1 << 20


def targets_in(out: Path, files: Sequence[Path], sources: Sequence[Path]) -> dict[Path, Path]:
    """Source -> where it goes below the folder `out`, in the folders the sources are in.

    Args:
        out: the folder to make.
        files: the files and folders that were named.
        sources: the HDF5 files in them.

    Raises:
        UserError: `out` lies in a folder that is copied, and would be copied into itself.
    """
    for folder in filter(Path.is_dir, files):
        if out.resolve().is_relative_to(folder.resolve()):
            found, remedy = f"a place in {folder}, which is copied", "Choose a folder beside it."
            raise UserError(describe(str(out), found, "a folder of its own", remedy))
    shared = _shared(files, sources)
    return {source: out / source.resolve().relative_to(shared) for source in sources}


def copy_others(out: Path, files: Sequence[Path], sources: Sequence[Path]) -> list[str]:
    """Copy what lies in the folders beside their HDF5 files, unless it is there already.

    Returns:
        a line that says which hidden files were not, if there are any.

    Raises:
        UserError: something else of its name is there, such as a sidecar that was corrected since.
    """
    repacked = {source.resolve() for source in sources}
    shared = _shared(files, sources)
    faults = []
    hidden: list[Path] = []
    for folder in filter(Path.is_dir, files):
        found = visible(sorted(folder.rglob("*")), folder)
        hidden += filter(Path.is_file, found.hidden)
        for file in found.read:
            target = out / folder.resolve().relative_to(shared) / file.relative_to(folder)
            if not file.is_file() or file.resolve() in repacked:
                continue
            if not target.exists():
                with new_file(target) as partial:
                    shutil.copyfile(file, partial)
            elif not _is_same(file, target):
                remedy = "Delete the copy, or repack into another folder."
                faults.append(describe(str(target), f"not what {file} is", "a copy", remedy))
    raise_faults(faults)
    return [f"{out}: without {len(hidden)} hidden files, first {hidden[0]}\n"] if hidden else []


def _shared(files: Sequence[Path], sources: Sequence[Path]) -> Path:
    """The folder above all sources whose inner folders are kept."""
    above = [path for path in files if path.is_dir()] or [source.parent for source in sources]
    return Path(os.path.commonpath([folder.resolve() for folder in above]))


def _is_same(first: Path, second: Path) -> bool:
    size = first.stat().st_size
    if not second.is_file() or second.stat().st_size != size:
        return False
    return size > MAX_COMPARED_BYTES or first.read_bytes() == second.read_bytes()
