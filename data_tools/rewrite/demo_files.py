"""New HDF5 files of demonstrations: one of all episodes (robomimic), or one of each (ALOHA)."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import h5py
import numpy as np
import yaml

from data_tools.conventions import Conventions
from data_tools.episode import Dataset, Episode
from data_tools.formats.layouts import native
from data_tools.formats.layouts.native import NATIVE_LAYOUT
from data_tools.formats.layouts.sidecar import FOLDER_SIDECAR
from data_tools.rewrite.frame_storage import as_float32, jpeg_frames
from data_tools.rewrite.provenance import Provenance, write_provenance
from data_tools.rewrite.tree import copy_attributes
from data_tools.rewrite.unfinished import Advance, Unfinished, require_room, silently
from data_tools.storage.hdf5.opening import open_hdf5
from data_tools.writer import EpisodeWriter

FIRST_DEMO: Final = f"{NATIVE_LAYOUT.root}/demo_0"
# robomimic's EnvType.GYM_TYPE; it wants an environment's description even where there is none.
GYM_TYPE: Final = 2
_DEMO: Final = re.compile(rf"{NATIVE_LAYOUT.root}/([^/]+)")


def write_native(
    dataset: Dataset, work: Unfinished, made: Provenance, quality: int, advance: Advance
) -> Path:
    """One file in our own layout; frames that are JPEG already keep their bytes."""
    parts = []
    for index in range(len(dataset)):
        write = partial(_write_native_part, dataset, index, quality)
        parts.append(work.part(f"{index:06d}.hdf5", write))
        advance(index + 1, len(dataset))
    return _join(parts, work.folder / "whole.hdf5", made)


def write_robomimic(dataset: Dataset, work: Unfinished, made: Provenance, advance: Advance) -> Path:
    """One file that robomimic's SequenceDataset reads: raw frames, rewards, dones, env_args.

    The state is the one observation 'state'; frames are '<camera>_image'. Nobody recorded rewards:
    they are 1 at the last step of a success and 0 elsewhere; dones are 1 at the last step.
    Source: robomimic's `utils/dataset.py` and its documentation of dataset structure.
    """
    parts = []
    for index in range(len(dataset)):
        write = partial(_write_robomimic_part, dataset, index)
        parts.append(work.part(f"{index:06d}.hdf5", write))
        advance(index + 1, len(dataset))
    return _join(parts, work.folder / "whole.hdf5", made)


def demo_name(episode: str) -> str | None:
    """'demo_3' of the episode 'pick.hdf5:data/demo_3'; None for one that is no group of `data`."""
    match = _DEMO.fullmatch(episode.rpartition(":")[2])
    return match[1] if match else None


def copy_demos(
    parts: Sequence[tuple[Path, Sequence[str]]], new: h5py.File, advance: Advance = silently
) -> dict[str, str]:
    """Copy these groups of these files as data/demo_0, data/demo_1, ..., their chunks as they are.

    The root's attributes come from the first file, with `total` counted anew. A soft link becomes
    what it leads to: its path would lead to another episode here.

    Returns:
        '<file>:<group>' of each episode -> its new name, 'demo_0', ...
    """
    names: dict[str, str] = {}
    total, count = 0, sum(len(groups) for _, groups in parts)
    for path, groups in parts:
        with open_hdf5(path) as old:
            if not names:
                root = new.create_group(NATIVE_LAYOUT.root)
                copy_attributes(old[NATIVE_LAYOUT.root], root)
            for group in groups:
                name = names[f"{path}:{group}"] = f"demo_{len(names)}"
                old.copy(group, root, name, expand_soft=True)
                total += len(root[name].get(NATIVE_LAYOUT.action_paths[0], ()))
                advance(len(names), count)
    if total:
        root.attrs[native.TOTAL_ATTRIBUTE] = total
    return names


def _join(parts: Sequence[Path], whole: Path, made: Provenance) -> Path:
    with h5py.File(whole, "w") as new:
        copy_demos([(part, [FIRST_DEMO]) for part in parts], new)
        write_provenance(new, made)
    return whole


def _write_native_part(dataset: Dataset, index: int, quality: int, path: Path) -> None:
    episode = dataset[index]
    images = {
        camera: jpeg_frames(episode, camera, quality) for camera in dataset.conventions.camera_names
    }
    require_room(path, sum(len(rows) * max(map(len, rows)) for rows in images.values()))
    with EpisodeWriter(path, dataset.conventions, quality) as writer:
        writer.add(
            images=images,
            state=episode.state(),
            actions=episode.actions(),
            instruction=episode.instruction,
            success=episode.is_success,
            attributes=plain_attributes(episode),
            times=episode.times(),
            columns={name: episode.column(name) for name in episode.columns},
        )


def _write_robomimic_part(dataset: Dataset, index: int, path: Path) -> None:
    episode, conventions = dataset[index], dataset.conventions
    require_room(path, raw_bytes(episode, conventions))
    with _first_demo(path, dataset, episode) as demo:
        demo.create_dataset("actions", data=as_float32(episode.actions()))
        demo.create_dataset("obs/state", data=as_float32(episode.state()))
        is_last = np.arange(episode.num_steps) == episode.num_steps - 1
        demo.create_dataset("rewards", data=(is_last & bool(episode.is_success)).astype(np.float64))
        demo.create_dataset("dones", data=is_last.astype(np.int64))
        times = episode.times()
        if times is not None:
            demo.create_dataset(native.TIMES, data=times)
        for camera in conventions.cameras:
            shape = (episode.num_steps, camera.height, camera.width, 3)
            frames = demo.create_dataset(
                f"obs/{camera.name}_image", shape=shape, dtype=np.uint8, chunks=(1, *shape[1:])
            )
            frames.attrs[native.ENCODING_ATTRIBUTE] = "raw"
            for step in range(episode.num_steps):
                frames[step] = episode.image(camera.name, step)


def raw_bytes(episode: Episode, conventions: Conventions) -> int:
    """How much room the episode's frames take when nothing is compressed."""
    return episode.num_steps * sum(3 * each.height * each.width for each in conventions.cameras)


@contextmanager
def _first_demo(path: Path, dataset: Dataset, episode: Episode) -> Iterator[h5py.Group]:
    """A new file of one episode, described as our own layout describes it."""
    conventions = dataset.conventions
    with h5py.File(path, "w") as file:
        root = file.create_group(NATIVE_LAYOUT.root)
        root.attrs[native.SCHEMA_ATTRIBUTE] = native.SCHEMA_VERSION
        root.attrs[native.CONVENTIONS_ATTRIBUTE] = conventions.model_dump_json()
        root.attrs["env_args"] = json.dumps(
            {"env_name": "unknown", "type": GYM_TYPE, "env_kwargs": {}}
        )
        demo = file.create_group(FIRST_DEMO)
        extra = plain_attributes(episode)
        demo.attrs[native.NUM_SAMPLES_ATTRIBUTE] = episode.num_steps
        demo.attrs[native.INSTRUCTION_ATTRIBUTE] = episode.instruction
        demo.attrs[native.FPS_ATTRIBUTE] = conventions.known_control_hz("write demonstrations")
        demo.attrs[native.SOURCE_ATTRIBUTE] = str(extra.pop("source", "unknown"))
        demo.attrs[native.EXTRA_ATTRIBUTE] = json.dumps(extra)
        if episode.is_success is not None:
            demo.attrs[native.SUCCESS_ATTRIBUTE] = episode.is_success
        yield demo


def plain_attributes(episode: Episode) -> dict[str, object]:
    """The episode's attributes in values that JSON keeps: arrays as lists, bytes as text."""
    return {name: _plain(value) for name, value in episode.attributes.items()}


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


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
