"""Writing a folder of ALOHA's `episode_N.hdf5` files, as ACT reads them.

Source: record_episodes.py of tonyzhaozh/aloha, utils.py of tonyzhaozh/act.
"""

import json
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import yaml

from data_tools.conventions import Conventions
from data_tools.episode import Dataset
from data_tools.formats.layouts import native
from data_tools.formats.layouts.sidecar import FOLDER_SIDECAR
from data_tools.rewrite.demo_files import plain_attributes, raw_bytes
from data_tools.rewrite.frame_storage import as_float32
from data_tools.rewrite.provenance import Provenance, write_provenance
from data_tools.rewrite.unfinished import Advance, Unfinished, require_room


def write_aloha(dataset: Dataset, work: Unfinished, made: Provenance, advance: Advance) -> Path:
    """A folder with one file an episode: raw frames, qpos, qvel, action and our declaration.

    ALOHA has no place for a sentence: it is the root attribute language_instruction. Velocities
    that nobody recorded are the differences of the positions, in units a second.
    """
    for index in range(len(dataset)):
        work.part(f"episode_{index}.hdf5", partial(_write_episode, dataset, index, made))
        advance(index + 1, len(dataset))
    work.part(FOLDER_SIDECAR, partial(_write_sidecar, dataset.conventions))
    return work.parts


def _write_episode(dataset: Dataset, index: int, made: Provenance, path: Path) -> None:
    episode, conventions = dataset[index], dataset.conventions
    hz = conventions.known_control_hz("write velocities")
    state = as_float32(episode.state())
    require_room(path, raw_bytes(episode, conventions))
    with h5py.File(path, "w") as file:
        file.attrs["sim"] = False
        file.attrs[native.INSTRUCTION_ATTRIBUTE] = episode.instruction
        file.attrs[native.EXTRA_ATTRIBUTE] = json.dumps(plain_attributes(episode))
        if episode.is_success is not None:
            file.attrs[native.SUCCESS_ATTRIBUTE] = episode.is_success
        write_provenance(file, made)
        file["observations/qpos"] = state
        file["observations/qvel"] = np.diff(state, axis=0, prepend=state[:1]) * np.float32(hz)
        file["action"] = as_float32(episode.actions())
        times = episode.times()
        if times is not None:
            file[native.TIMES] = times
        for camera in conventions.cameras:
            shape = (episode.num_steps, camera.height, camera.width, 3)
            frames = file.create_dataset(
                f"observations/images/{camera.name}",
                shape=shape,
                dtype=np.uint8,
                chunks=(1, *shape[1:]),
            )
            for step in range(episode.num_steps):
                frames[step] = episode.image(camera.name, step)


def _write_sidecar(conventions: Conventions, path: Path) -> None:
    layout = {
        "name": "aloha",
        "episodes": "file",
        "root": "",
        "observations": "observations",
        "actions": "action",
        "state": "qpos",
        "images": {name: f"observations/images/{name}" for name in conventions.camera_names},
        "instruction": {"attribute": native.INSTRUCTION_ATTRIBUTE},
    }
    declared = {**conventions.model_dump(mode="json"), "layout": layout}
    path.write_text(yaml.safe_dump(declared, sort_keys=False), encoding="utf-8")
