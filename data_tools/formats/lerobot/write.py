"""write_lerobot: any episodes to a LeRobot folder, v2.1 or v3.0, that is whole or not there."""

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import av
import pyarrow as pa
import yaml

from data_tools.conventions import Conventions
from data_tools.episode import Episode
from data_tools.errors import UserError, describe, raise_faults
from data_tools.formats.lerobot.folder_writer import FolderWriter
from data_tools.formats.lerobot.lerobot_options import LeRobotOptions
from data_tools.formats.lerobot.sources import SIDECAR
from data_tools.storage.files.disk import PARTIAL_SUFFIX, existing_faults, flush_to_disk

DEFAULT_OPTIONS: Final = LeRobotOptions()


def write_lerobot(
    path: str | Path,
    conventions: Conventions,
    episodes: Iterable[Episode],
    options: LeRobotOptions = DEFAULT_OPTIONS,
    columns: Mapping[str, int] = MappingProxyType({}),
) -> Path:
    """The new folder, readable by LeRobot: 0.4 and later for v3.0, earlier ones for v2.1.

    Until it is finished it is `<name>.<random>.partial` beside it; whatever ends the work early
    removes that, and a process that is killed leaves only that. Steps are at regular times, 1/fps
    apart, as LeRobot requires. Statistics are exact. `conventions.yaml` keeps what the format has
    no place for, and the index of episodes their `is_success` and attributes in columns that
    LeRobot ignores.

    Args:
        path: the folder to make.
        conventions: what the episodes declare; frames are written as delivered, RGB and upright.
        episodes: in order, each read once; wrap them to show progress.
        options: how it is written.
        columns: name -> width of the columns that every episode has and that are to be kept
            (`data_tools.columns.widths`); each becomes a feature, and `conventions.yaml` names it.

    Raises:
        UserError: the folder exists, a camera or an episode cannot be written, there is no episode,
            or the disk refuses; nothing is left then.
    """
    path = Path(path)
    fps = conventions.known_control_hz("write a LeRobot dataset")
    raise_faults([*existing_faults(path, "a new folder"), *options.camera_faults(conventions)])
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL_SUFFIX}")
    try:
        (partial / "meta").mkdir(parents=True)
        with FolderWriter(partial, conventions, fps, options, columns) as writer:
            for episode in episodes:
                writer.add(episode)
        _write_sidecar(partial, conventions, columns)
        for file in [*partial.rglob("*"), partial]:
            flush_to_disk(file)
        raise_faults(existing_faults(path, "a new folder"))
        os.replace(partial, path)
    except (OSError, pa.ArrowException, av.FFmpegError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        found = f"{type(error).__name__} ({error})"
        remedy = "Free space on that disk or choose another, and write again."
        raise UserError(describe(str(path), found, "a disk that takes the data", remedy)) from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    flush_to_disk(path.parent)
    return path


def _write_sidecar(folder: Path, conventions: Conventions, columns: Iterable[str]) -> None:
    content = json.loads(conventions.model_dump_json())
    named = {name: name for name in columns}
    content |= {"layout": {"columns": named}} if named else {}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    (folder / SIDECAR).write_text(text, encoding="utf-8")
