"""What `robot-data inspect` tells: a dataset's facts as plain values."""

import json
from collections import Counter
from pathlib import Path

from data_tools.episode import Dataset
from data_tools.storage.files.paths import HDF5_SUFFIXES, visible
from data_tools.storage.files.remote import path_of
from data_tools.storage.hdf5.links import outline
from data_tools.storage.hdf5.opening import open_hdf5


def summary(dataset: Dataset) -> dict[str, object]:
    """The facts by name: layout and evidence, sizes, cameras, columns, sentences and warnings.

    `columns` has the number of episodes that have each.
    `megabytes` is of files on this machine, None where one is elsewhere; `judged` is the number of
    episodes of which somebody said whether they succeeded; `tree` outlines the first HDF5 file.
    """
    episodes = [dataset[index] for index in range(len(dataset))]
    conventions, inspected = dataset.conventions, dataset.inspected
    num_frames = sum(episode.num_steps for episode in episodes)
    instructions = Counter(episode.instruction for episode in episodes).most_common()
    return {
        "layout": list(inspected.layouts),
        "evidence": list(inspected.evidence),
        "files": len(inspected.files),
        "megabytes": _megabytes(inspected.files),
        "episodes": len(episodes),
        "frames": num_frames,
        "duration_s": num_frames / conventions.control_hz if conventions.control_hz else None,
        "successes": sum(episode.is_success is True for episode in episodes),
        "judged": sum(episode.is_success is not None for episode in episodes),
        "cameras": [f"{c.name} {c.width} x {c.height}" for c in conventions.cameras],
        "state_dim": len(conventions.state.names),
        "action_dim": len(conventions.action.names),
        "columns": {
            name: sum(name in episode.columns for episode in episodes) for name in dataset.columns
        },
        "instructions": [{"text": text, "episodes": count} for text, count in instructions],
        # through JSON, whose writer has words for infinite limits
        "conventions": json.loads(conventions.model_dump_json()),
        "tree": _first_tree(inspected.files),
        "rules": list(inspected.rules),
        "origins": {place: list(told) for place, told in inspected.origins.items()},
        "undeclared": list(inspected.undeclared),
        "fingerprint": dataset.fingerprint,
        "warnings": [str(warning) for warning in inspected.warnings],
    }


def _megabytes(names: tuple[str, ...]) -> float | None:
    paths = [path for name in names if (path := Path(name)).exists()]
    if len(paths) < len(names):
        return None
    folders = [each for path in paths for each in visible(path.rglob("*"), path).read]
    return sum(file.stat().st_size for file in (*paths, *folders) if file.is_file()) / 1e6


def tree_of(path: Path) -> list[str]:
    """The outline of an HDF5 file; UserError where it cannot be opened."""
    with open_hdf5(path) as file:
        return outline(file)


def _first_tree(names: tuple[str, ...]) -> list[str]:
    first = next((name for name in names if name.endswith(HDF5_SUFFIXES)), None)
    return [] if first is None else tree_of(path_of(first))
