"""merge: several `data/demo_N` files into one, when they declare the same."""

import re
from collections import defaultdict
from pathlib import Path

import h5py
import numpy as np

from data_tools.episode import Dataset
from data_tools.errors import describe, raise_faults
from data_tools.files.hdf5 import open_hdf5
from data_tools.layouts.native import NATIVE_LAYOUT
from data_tools.layouts.sidecar import SIDECAR_SUFFIX
from data_tools.rewrite.demo_files import copy_demos
from data_tools.rewrite.provenance import provenance, write_provenance
from data_tools.rewrite.unfinished import Unfinished

_DEMO = re.compile(rf"{NATIVE_LAYOUT.root}/[^/]+")


def merge(dataset: Dataset, target: Path) -> Path:
    """One file with the episodes of all files of a dataset, numbered demo_0, demo_1, ... in order.

    Chunks are copied as they are. `total` is counted anew, filter keys (`mask/train`) name the
    new demos, and a sidecar of the first file comes along.

    Args:
        dataset: of `open_dataset([file, ...])`, which has refused files that declare different
            things.
        target: the file to make.

    Raises:
        UserError: the target exists, an episode is not a group data/demo_N, or two files store
            their frames turned or coloured differently.
    """
    places = [dataset[index].name.rpartition(":") for index in range(len(dataset))]
    groups: dict[Path, list[str]] = defaultdict(list)
    for path, _, group in places:
        groups[Path(path)].append(group)
    made = provenance("merge", groups, {"fingerprint": dataset.fingerprint})
    work = Unfinished(target, made)
    raise_faults([*_group_faults(groups), *_stored_faults(dataset)])
    with work:
        whole = work.folder / "whole.hdf5"
        with h5py.File(whole, "w") as new:
            names = copy_demos(list(groups.items()), new)
            for key, demos in _masks(groups, names).items():
                new[f"mask/{key}"] = np.array(demos, dtype="S")
            write_provenance(new, made)
        first = next(iter(groups))
        sidecar = first.with_name(first.name + SIDECAR_SUFFIX)
        if sidecar.is_file():
            target.with_name(target.name + SIDECAR_SUFFIX).write_bytes(sidecar.read_bytes())
        return work.publish(whole)


def _masks(groups: dict[Path, list[str]], names: dict[str, str]) -> dict[str, list[str]]:
    """Filter key -> new names of its demos, of all files together."""
    joined: dict[str, list[str]] = defaultdict(list)
    for path in groups:
        with open_hdf5(path) as file:
            masks = file.get("mask", {})
            for key in masks:
                for demo in masks[key][()]:
                    name = demo.decode() if isinstance(demo, bytes) else str(demo)
                    old = f"{path}:{NATIVE_LAYOUT.root}/{name}"
                    if old in names:
                        joined[key].append(names[old])
    return joined


def _group_faults(groups: dict[Path, list[str]]) -> list[str]:
    remedy = "Use robot-data convert --to native, which writes any layout into one file."
    return [
        describe(str(path), f"the episode {group!r}", f"{NATIVE_LAYOUT.root}/demo_N", remedy)
        for path, listed in groups.items()
        for group in listed[:1]
        if not _DEMO.fullmatch(group)
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
