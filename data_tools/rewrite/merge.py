"""merge: several `data/demo_N` files into one, when they are declared and stored alike."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import h5py
import numpy as np

from data_tools.columns import fingerprint_with
from data_tools.episode import Dataset
from data_tools.errors import UserError, describe, raise_faults
from data_tools.formats.layouts.native import NATIVE_LAYOUT, declared_root
from data_tools.formats.layouts.sidecar import Sidecar, sidecar_of
from data_tools.formats.reader import open_dataset
from data_tools.rewrite.demo_files import copy_demos, demo_name
from data_tools.rewrite.edited import stored_cameras
from data_tools.rewrite.provenance import (
    content_of,
    declaring_sidecar,
    provenance,
    said,
    sidecar_for_copy,
    write_provenance,
)
from data_tools.rewrite.tree import read_tree
from data_tools.rewrite.unfinished import Advance, Unfinished, silently
from data_tools.storage.hdf5.opening import open_hdf5

MAX_MASK_BYTES: Final = 1 << 28
CONVERT: Final = "Use robot-data convert --to native, which writes any layout into one file."


def merge(
    dataset: Dataset,
    target: Path,
    places: Sequence[Path] = (),
    layout: str | None = None,
    advance: Advance = silently,
) -> Path:
    """One file with the episodes of all files of a dataset, numbered demo_0, demo_1, ... in order.

    Chunks are copied as they are. `total` is counted anew, filter keys (`mask/train`) name the
    new demos, and the sidecar that declares the files comes along. Before the file gets its name it
    is opened, and its numbers are compared with those of its sources.

    Args:
        dataset: of `open_dataset([file, ...])`, which has refused files that declare different
            things.
        target: the file to make.
        places: what the dataset was opened from, where folders are among it.
        layout: the name of the layout that it was opened as, if one was given.
        advance: called with the number of episodes copied, and of all.

    Raises:
        UserError: the target or another declaration beside it exists, an episode is not a group
            data/demo_N, the files' sidecars differ, frames are stored turned or coloured
            differently, or a file links to others or says something that does not fit into one.
    """
    groups: dict[Path, list[str]] = defaultdict(list)
    for index in range(len(dataset)):
        path, _, group = _place(dataset[index].name)
        groups[Path(path)].append(group)
    raise_faults(_group_faults(groups))
    made = provenance("merge", groups, {"fingerprint": dataset.fingerprint})
    work = Unfinished(target, made)
    is_native, sidecars = _declarations(groups, places)
    raise_faults([*_sidecar_faults(sidecars), *_stored_faults(dataset)])
    first = next(iter(sidecars.values()))
    sidecar = sidecar_for_copy(target, first, is_native=is_native)
    with work:
        whole = work.folder / "whole.hdf5"
        with h5py.File(whole, "w") as new:
            names = copy_demos(list(groups.items()), new, advance)
            for key, demos in _masks(groups, names).items():
                new[f"mask/{key}"] = np.array(demos, dtype="S")
            write_provenance(new, made)
        if first is not None:
            sidecar_of(whole).write_bytes(content_of(first))
        _require_same(dataset, whole, layout)
        return work.publish(whole, sidecar)


def _place(name: str) -> tuple[str, str, str]:
    """File, ':' and group of an episode's name; an episode that is a file has no group."""
    return name.rpartition(":") if ":" in name else (name, "", "")


def _declarations(
    paths: Sequence[Path] | dict[Path, list[str]], places: Sequence[Path]
) -> tuple[bool, dict[Path, Sidecar | None]]:
    """Whether all files declare themselves, and the sidecar that declares each.

    Raises:
        UserError: a file links to other files, or holds what cannot be copied.
    """
    kinds: list[bool] = []
    sidecars: dict[Path, Sidecar | None] = {}
    faults: list[str] = []
    for path in paths:
        with open_hdf5(path) as file:
            try:
                read_tree(file, path)
            except UserError as error:
                faults += error.faults
            kinds.append(declared_root(file) is not None)
        sidecars[path] = declaring_sidecar(path, is_native=kinds[-1], places=places)
    raise_faults(faults)
    return all(kinds), sidecars


def _sidecar_faults(sidecars: dict[Path, Sidecar | None]) -> list[str]:
    """Files whose sidecar says something else than the first one's: one will speak for all."""
    path, first = next(iter(sidecars.items()))
    expected = f"what declares {path}: {first.name if first else 'no sidecar'}"
    return [
        describe(
            str(other), f"the sidecar {sidecar.name if sidecar else '(none)'}", expected, CONVERT
        )
        for other, sidecar in sidecars.items()
        if (sidecar and said(sidecar)) != (first and said(first))
    ]


def _require_same(dataset: Dataset, whole: Path, layout: str | None) -> None:
    """UserError when the new file is not read as its sources are."""
    merged = open_dataset(whole, layout=layout)
    ours, theirs = (
        (fingerprint_with(each, each.columns), stored_cameras(each)) for each in (merged, dataset)
    )
    if ours != theirs:
        found = "files that read differently as one, by what lies beside them or around episodes"
        raise UserError(describe("merge", found, "the same numbers and frames", CONVERT))


def _masks(groups: dict[Path, list[str]], names: dict[str, str]) -> dict[str, list[str]]:
    """Filter key -> new names of its demos, of all files together."""
    joined: dict[str, list[str]] = defaultdict(list)
    faults: list[str] = []
    for path in groups:
        with open_hdf5(path) as file:
            masks = file.get("mask", {})
            for key, listed in masks.items():
                if not _is_mask(listed):
                    found, remedy = f"{listed!r}", "Delete it, or make it again."
                    faults.append(describe(f"{path}:mask/{key}", found, "a list of names", remedy))
                    continue
                for demo in listed[()]:
                    name = demo.decode() if isinstance(demo, bytes) else str(demo)
                    old = f"{path}:{NATIVE_LAYOUT.root}/{name}"
                    if old in names:
                        joined[key].append(names[old])
    raise_faults(faults)
    return joined


def _is_mask(item: object) -> bool:
    if not isinstance(item, h5py.Dataset) or item.ndim != 1 or item.dtype.kind not in "SO":
        return False
    return bool(item.nbytes <= MAX_MASK_BYTES)


def _group_faults(groups: dict[Path, list[str]]) -> list[str]:
    return [
        describe(
            str(path),
            f"the episode {group!r}" if group else "an episode that is the whole file",
            f"groups {NATIVE_LAYOUT.root}/demo_N",
            CONVERT,
        )
        for path, listed in groups.items()
        for group in listed[:1]
        if demo_name(f":{group}") is None
    ]


def _stored_faults(dataset: Dataset) -> list[str]:
    """Cameras that another file stores differently from the first, though they are read alike."""
    faults: list[str] = []
    seen: set[str] = set()
    for camera in dataset.conventions.camera_names:
        first = dataset[0].stored_frames(camera)
        for index in range(len(dataset)):
            stored = dataset[index].stored_frames(camera)
            if stored.camera != first.camera and f"{stored.path} {camera}" not in seen:
                seen.add(f"{stored.path} {camera}")
                found = f"{stored.camera.color_order}, {stored.camera.orientation}"
                expected = f"{first.camera.color_order}, {first.camera.orientation} as {first.path}"
                remedy = "Use robot-data convert --to native, which turns every frame upright."
                where = f"{stored.path}, camera {camera!r}"
                faults.append(describe(where, found, expected, remedy))
    return faults
