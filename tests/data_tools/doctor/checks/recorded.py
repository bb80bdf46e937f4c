"""Robots recorded in memory, written to files as a lab would have them."""

from itertools import cycle
from pathlib import Path

import numpy as np

from data_tools.writer import EpisodeWriter

SENTENCES = ("put the red cup on the plate", "open the drawer")


def write(dataset, path: Path, sentences=SENTENCES) -> Path:
    """The file, in our own layout; the sentences take turns."""
    with EpisodeWriter(path, dataset.conventions) as writer:
        for episode, sentence in zip(dataset.episodes, cycle(sentences), strict=False):
            clock = episode.clock
            writer.add(
                images={camera: np.stack(frames) for camera, frames in episode.frames.items()},
                state=episode.state(),
                actions=episode.actions(),
                instruction=sentence,
                success=episode.is_success,
                times=None if clock is None else clock - clock[0],
            )
    return path
