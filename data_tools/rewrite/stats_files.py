"""Statistics as other projects keep them: openpi's norm_stats.json, LeRobot's stats.json.

Exact: every number enters, quantiles interpolate linearly. openpi takes quantiles from histograms
of 5,000 bins, and LeRobot an envelope over episodes; theirs differ from ours by that much.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data_tools.episode import Dataset
from data_tools.formats.lerobot.statistics import (
    LEVELS,
    channel_counts,
    image_statistics,
    vector_statistics,
)
from data_tools.rewrite.unfinished import Advance, new_file, silently
from data_tools.stats import NormalizationStats

Json = Mapping[str, object]


def openpi_stats(
    parts: Mapping[str, NormalizationStats],
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """norm_stats.json of openpi: mean, std, q01, q99 of 'state' and 'actions' as they are stored.

    openpi computes them after its data transforms (delta actions, a chunk at every step): for a
    configuration that has such, use `policy-ft`'s own statistics.
    """
    rows = ("mean", "std", "q01", "q99")
    return {
        "norm_stats": {
            part: {row: stats.row(row).tolist() for row in rows} for part, stats in parts.items()
        }
    }


def lerobot_stats(dataset: Dataset, advance: Advance = silently) -> Json:
    """meta/stats.json of LeRobot 3.0: observation.state, action, and each camera from every frame.

    Cameras have [3, 1, 1] rows of channels from 0 to 1, exact from counts of the 256 levels.

    Args:
        dataset: the episodes.
        advance: called with the episodes whose frames are counted and the episodes there are.
    """
    episodes = [dataset[index] for index in range(len(dataset))]
    cameras = dataset.conventions.camera_names
    counts = {camera: np.zeros((3, LEVELS), dtype=np.int64) for camera in cameras}
    for done, episode in enumerate(episodes, 1):
        for camera in cameras:
            for step in range(episode.num_steps):
                counts[camera] += channel_counts(episode.image(camera, step))
        advance(done, len(episodes))
    num_frames = sum(episode.num_steps for episode in episodes)
    return {
        "observation.state": vector_statistics([episode.state() for episode in episodes]),
        "action": vector_statistics([episode.actions() for episode in episodes]),
        **{
            f"observation.images.{camera}": image_statistics(counted, num_frames)
            for camera, counted in counts.items()
        },
    }


def write_json(path: Path, content: Json) -> None:
    """A JSON file that is either whole or not there; UserError when it exists or cannot be."""
    with new_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
