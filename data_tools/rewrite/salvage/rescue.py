"""salvage: the whole episodes of a damaged file in a new one, and a list of what was lost."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import h5py
import numpy as np

from data_tools.errors import UserError, describe, raise_faults, shown
from data_tools.formats.layouts.native import CONVENTIONS_ATTRIBUTE, NATIVE_LAYOUT
from data_tools.formats.layouts.sidecar import sidecar_of
from data_tools.rewrite.provenance import declaring_sidecar, sidecar_beside, sidecar_for_copy
from data_tools.rewrite.salvage.damage_survey import DAMAGE, Advance, Item, compare_surveys, survey
from data_tools.rewrite.salvage.superblock import (
    Mended,
    PatchedFile,
    Superblock,
    mended_headers,
    read_superblock,
    require_no_writer,
)
from data_tools.rewrite.salvage.whole_episodes import Judged, judge
from data_tools.rewrite.unfinished import new_file
from data_tools.storage.files.disk import existing_faults

# What stands for the bytes that were cut off: what reads the same with both does not need them.
# Never zero: HDF5 reads a heap of zeros without end.
FILLS: Final = (0x5A, 0xA5)


@dataclass(frozen=True)
class Salvaged:
    """What became of a file.

    Attributes:
        source: the damaged file.
        written: the new file, None when no episode was whole.
        happened: what is wrong with the file as a whole, in sentences.
        episodes: every episode that could be found.
        elsewhere: losses outside of the episodes.
        copied: the sidecar that was copied beside the new one, its own or its folder's.
    """

    source: Path
    written: Path | None
    happened: tuple[str, ...]
    episodes: tuple[Judged, ...]
    elsewhere: tuple[str, ...]
    copied: tuple[Path, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether nothing was lost."""
        return not self.elsewhere and all(episode.is_whole for episode in self.episodes)


def salvage(source: Path, target: Path, advance: Advance = lambda path: None) -> Salvaged:
    """Copy the whole episodes of a file to a new one of the same layout; never touch the old one.

    A file that was cut off is read twice, with different bytes in place of its missing end; one
    that its writer never closed, as if it had been. Every block of every dataset is read, every
    encoded frame decoded. Numbers and pixels that HDF5 keeps without a checksum can have changed
    without a trace: no tool can tell.

    Args:
        source: the damaged file.
        target: the new file, which must not exist; it appears when it is whole.
        advance: called with the path of each object before it is read.

    Raises:
        UserError: nothing can be read at all, with what probably happened; the target or another
            declaration beside it exists, or it cannot be written; or another process writes the
            source.
    """
    raise_faults(existing_faults(target))
    if not source.is_file():
        found, remedy = "no such file", "Correct the path."
        if source.is_dir():
            found, remedy = "a folder", "Give its files, one at a time."
        raise UserError(describe(str(source), found, "an HDF5 file", remedy))
    require_no_writer(source)
    superblock = read_superblock(source)
    mended = mended_headers(source, superblock)
    items = _survey(source, superblock, mended, advance)
    is_native = (root := items.get(NATIVE_LAYOUT.root)) is not None and (
        CONVENTIONS_ATTRIBUTE in root.attributes
    )
    declared = declaring_sidecar(source, is_native=is_native)
    sidecar = sidecar_for_copy(target, declared, is_native=is_native)
    with _open(source, superblock, FILLS[0], mended) as file:
        judged = judge(items, _num_samples(file, items))
        written: list[str] = []
        whole = [episode.group for episode in judged if episode.is_whole]
        if whole:
            with sidecar_beside(target, sidecar), new_file(target) as partial:
                _write(file, partial, items, judged)
                _require_same(partial, items, whole)
    return Salvaged(
        source,
        target if whole else None,
        tuple(_what_happened(superblock)),
        tuple(judged),
        tuple([*written, *_losses_elsewhere(items, judged)]),
        (sidecar_of(target),) if whole and sidecar is not None else (),
    )


def _survey(
    source: Path, superblock: Superblock, mended: Mended, advance: Advance
) -> dict[str, Item]:
    with _open(source, superblock, FILLS[0], mended) as file:
        items = survey(file, advance, mended.groups)
    if superblock.missing_bytes == 0:
        return items
    with _open(source, superblock, FILLS[1], mended) as file:
        return compare_surveys(items, survey(file, advance, mended.groups))


def _open(source: Path, superblock: Superblock, fill: int, mended: Mended) -> h5py.File:
    """The file, open for reading, past a missing end and a writer's mark."""
    try:
        is_patched = superblock.missing_bytes > 0 or superblock.is_marked_open
        file = (
            h5py.File(PatchedFile(source, superblock, fill, mended.patches), "r")
            if is_patched
            else h5py.File(source, "r", locking="best-effort")
        )
        file["/"]  # opening a file does not read its root
        return file
    except DAMAGE as error:
        happened = " ".join(_what_happened(superblock))
        found = f"a file of {superblock.size} bytes whose index cannot be read ({error})"
        remedy = (
            "Nothing can be found in it without its index: copy or record it again, and let the "
            "recorder flush after each episode."
        )
        expected = "at least a readable root group"
        raise UserError(
            describe(str(source), f"{found}. {happened}".rstrip(), expected, remedy)
        ) from error


def _what_happened(superblock: Superblock) -> list[str]:
    told = []
    if superblock.missing_bytes:
        told.append(
            f"The file was cut off: it has {superblock.size} of {superblock.stored_size} bytes, "
            f"{superblock.missing_bytes} are missing."
        )
    if superblock.is_marked_open:
        told.append(
            "Its writer never closed it (HDF5 refuses it until `h5clear -s` removes the mark); "
            "what it did not flush is lost."
        )
    elif superblock.size > superblock.stored_size:
        told.append(
            f"Its writer died before the last flush: {superblock.size - superblock.stored_size} "
            "bytes at the end belong to no object."
        )
    return told


def _num_samples(file: h5py.File, items: Mapping[str, Item]) -> dict[str, int]:
    """How many actions each episode says it has; one that says no number has lost that."""
    told: dict[str, int] = {}
    for path, item in items.items():
        if path and item.is_group and "num_samples" in item.attributes:
            value = np.asarray(file[path].attrs["num_samples"])
            if value.size == 1 and value.dtype.kind in "iu":
                told[path] = int(value.reshape(-1)[0])
            else:
                found = shown(str(value), 40)
                item.faults.append(f"attribute 'num_samples' is {found}, not a whole number")
    return told


def _write(file: h5py.File, path: Path, items: Mapping[str, Item], judged: list[Judged]) -> None:
    """Whole episodes, and whatever else is whole, with the groups around them."""
    lost = [episode.group for episode in judged if not episode.is_whole]
    with h5py.File(path, "w") as target:
        _copy_group(file, target, "", items, lost)
        if "total" in (data := target.get("data", target)).attrs:
            kept = [episode.num_steps for episode in judged if episode.is_whole]
            data.attrs["total"] = sum(steps for steps in kept if steps is not None)
        names = {group.rpartition("/")[2] for group in lost}
        _drop_from_masks(target, names)


def _copy_group(
    file: h5py.File, target: h5py.File, path: str, items: Mapping[str, Item], lost: list[str]
) -> None:
    """A group with its readable attributes and its whole members; groups in part, recursively."""
    source, made = (file[path], target.require_group(path)) if path else (file["/"], target["/"])
    for name in items[path].attributes:
        if not any(f"attribute {name!r}" in fault for fault in items[path].faults):
            made.attrs[name] = source.attrs[name]
    prefix = f"{path}/" if path else ""
    for below in items:
        if not below.startswith(prefix) or "/" in below[len(prefix) :] or below in ("", *lost):
            continue
        inside = [x for p, x in items.items() if p == below or p.startswith(f"{below}/")]
        holds_lost = any(group.startswith(f"{below}/") for group in lost)
        if not holds_lost and all(item.is_whole for item in inside):
            file.copy(file[below], made, name=below[len(prefix) :])
        elif items[below].is_group:
            _copy_group(file, target, below, items, lost)


def _drop_from_masks(target: h5py.File, names: set[str]) -> None:
    """Take lost episodes out of robomimic's filter keys, lists of episode names below /mask."""
    masks = target.get("mask")
    if not isinstance(masks, h5py.Group):
        return
    for key in list(masks):
        if not isinstance(masks[key], h5py.Dataset) or masks[key].dtype.kind not in "SO":
            continue
        listed = masks[key][()]
        kept = [name for name in listed if name.decode() not in names]
        if len(kept) < len(listed):
            dtype = masks[key].dtype
            del masks[key]
            masks.create_dataset(key, data=np.array(kept, dtype=dtype))


def _require_same(path: Path, items: Mapping[str, Item], whole: list[str]) -> None:
    """UserError when a copied episode does not read as its source did."""
    with h5py.File(path, "r") as file:
        copies = survey(file, lambda _: None)
    for group in whole:
        for below, item in items.items():
            is_inside = group == "" or below == group or below.startswith(f"{group}/")
            if is_inside and not item.is_group:
                copy = copies.get(below)
                if copy is None or copy.blocks != item.blocks:
                    remedy = "Check the disk, then salvage again."
                    found = f"a copy of {below} that differs"
                    raise UserError(describe(str(path), found, "the same bytes", remedy))


def _losses_elsewhere(items: Mapping[str, Item], judged: list[Judged]) -> list[str]:
    groups = [episode.group for episode in judged]
    if groups == [""]:
        return []
    return [
        f"/{path}: {loss}"
        for path, item in items.items()
        if not any(path == group or path.startswith(f"{group}/") for group in groups)
        for loss in [*item.faults, *([f"{len(item.lost)} rows lost"] if item.lost else [])]
    ]
