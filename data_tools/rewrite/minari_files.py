"""Writing a Minari dataset folder: data/main_data.hdf5 and data/metadata.json.

Source: Farama-Foundation/Minari 0.5, `dataset/_storages/hdf5_storage.py` and `serialization.py`.
"""

import io
import json
from functools import partial
from pathlib import Path
from typing import Final

import h5py
import numpy as np
import yaml

from data_tools.episode import Dataset
from data_tools.errors import UserError, describe
from data_tools.formats.layouts import native
from data_tools.formats.layouts.sidecar import SIDECAR_SUFFIX
from data_tools.rewrite.demo_files import plain_attributes
from data_tools.rewrite.frame_storage import as_float32, jpeg_frames, write_padded_rows
from data_tools.rewrite.provenance import Provenance, write_provenance
from data_tools.rewrite.unfinished import Advance, Unfinished, require_room
from data_tools.storage.files.disk import flush_to_disk
from data_tools.storage.hdf5.opening import open_hdf5

MAIN_FILE: Final = "main_data.hdf5"
METADATA_FILE: Final = "metadata.json"
VERSION: Final = "0.5.4"


def write_minari(
    dataset: Dataset,
    work: Unfinished,
    made: Provenance,
    quality: int,
    advance: Advance,
) -> Path:
    """A Minari dataset: observations {state, <cameras>} of T + 1 rows, the last one repeated.

    Minari keeps what was seen after the last action; a demonstration has not recorded it, so the
    last row is there twice, and our reader drops it. Frames are JPEG, as Minari stores them by
    default; frames that are JPEG already keep their bytes. Rewards are 1 at the last step of a
    success and 0 elsewhere.
    """
    if "state" in dataset.conventions.camera_names:
        remedy = "Rename the camera in the data's conventions."
        found, expected = "a camera named 'state'", "names beside the observation 'state'"
        raise UserError(describe("conventions, cameras", found, expected, remedy))
    parts = []
    for index in range(len(dataset)):
        write = partial(_write_episode, dataset, index, quality)
        parts.append(work.part(f"{index:06d}.hdf5", write))
        advance(index + 1, len(dataset))
    whole = work.folder / "whole"
    (whole / "data").mkdir(parents=True, exist_ok=True)
    with h5py.File(whole / "data" / MAIN_FILE, "w", track_order=True) as new:
        for index, part in enumerate(parts):
            with open_hdf5(part) as old:
                old.copy("episode", new, f"episode_{index}")
        write_provenance(new, made)
    _write_metadata(dataset, work.target.name, whole / "data")
    sidecar = whole / "data" / f"{MAIN_FILE}{SIDECAR_SUFFIX}"
    declared = {**dataset.conventions.model_dump(mode="json"), "layout": _layout(dataset)}
    sidecar.write_text(yaml.safe_dump(declared, sort_keys=False), encoding="utf-8")
    for path in (whole / "data").iterdir():
        flush_to_disk(path)
    flush_to_disk(whole / "data")
    return whole


def _write_episode(dataset: Dataset, index: int, quality: int, path: Path) -> None:
    episode = dataset[index]
    num_steps = episode.num_steps
    is_last = np.arange(num_steps) == num_steps - 1
    state = as_float32(episode.state())
    images = {
        camera: jpeg_frames(episode, camera, quality) for camera in dataset.conventions.camera_names
    }
    require_room(path, sum(len(rows) * max(map(len, rows)) for rows in images.values()))
    with h5py.File(path, "w") as file:
        group = file.create_group("episode")
        group.attrs["id"] = index
        group.attrs["total_steps"] = num_steps
        group.attrs[native.INSTRUCTION_ATTRIBUTE] = episode.instruction
        group.attrs[native.EXTRA_ATTRIBUTE] = json.dumps(plain_attributes(episode))
        if episode.is_success is not None:
            group.attrs[native.SUCCESS_ATTRIBUTE] = episode.is_success
        group["actions"] = as_float32(episode.actions())
        group["rewards"] = (is_last & bool(episode.is_success)).astype(np.float64)
        group["terminations"] = is_last & bool(episode.is_success)
        group["truncations"] = is_last & (not episode.is_success)
        group["observations/state"] = np.concatenate([state, state[-1:]])
        for camera, rows in images.items():
            rows.append(rows[-1])
            stream = io.BytesIO(b"".join(rows))
            write_padded_rows(group["observations"], camera, stream, [len(row) for row in rows])


def _write_metadata(dataset: Dataset, name: str, folder: Path) -> None:
    conventions = dataset.conventions
    observations = {
        "state": _box("float32", (len(conventions.state.names),), float("-inf"), float("inf"))
    }
    for camera in conventions.cameras:
        observations[camera.name] = _box("uint8", (camera.height, camera.width, 3), 0, 255)
    action = conventions.action
    actions = {
        "type": "Box",
        "dtype": "float32",
        "shape": [len(action.names)],
        "low": list(action.low),
        "high": list(action.high),
    }
    metadata = {
        "dataset_id": name,
        "data_format": "hdf5",
        "jpeg_encoding": True,
        "minari_version": VERSION,
        "observation_space": json.dumps({"type": "Dict", "subspaces": observations}),
        "action_space": json.dumps(actions),
        "total_episodes": len(dataset),
        "total_steps": sum(dataset[index].num_steps for index in range(len(dataset))),
        "dataset_size": round((folder / MAIN_FILE).stat().st_size / 1e6, 1),
    }
    (folder / METADATA_FILE).write_text(json.dumps(metadata, indent=1), encoding="utf-8")


def _box(dtype: str, shape: tuple[int, ...], low: float, high: float) -> dict[str, object]:
    limits = {"low": np.full(shape, low).tolist(), "high": np.full(shape, high).tolist()}
    return {"type": "Box", "dtype": dtype, "shape": list(shape), **limits}


def _layout(dataset: Dataset) -> dict[str, object]:
    return {
        "name": "minari",
        "root": "",
        "episode_names": "episode_[0-9]+",
        "observations": "observations",
        "actions": "actions",
        "state": "state",
        "images": {name: f"observations/{name}" for name in dataset.conventions.camera_names},
        "instruction": {"attribute": native.INSTRUCTION_ATTRIBUTE},
        "observation_rows": "one_more",
    }
