"""The JPEG files of an episode's camera: as they are stored, or encoded once."""

import numpy as np
import numpy.typing as npt

from data_tools.episode import Episode
from data_tools.frames.images import encode_jpeg
from data_tools.rewrite.edited import StoresJpeg


def jpeg_frames(episode: Episode, camera: str, quality: int) -> list[bytes]:
    """The JPEG of every frame: the stored bytes where there are any, else encoded at `quality`.

    A lossy image is never encoded a second time unless its size was changed.
    """
    return [
        _stored(episode, camera, step) or encode_jpeg(episode.image(camera, step), quality)
        for step in range(episode.num_steps)
    ]


def _stored(episode: Episode, camera: str, step: int) -> bytes | None:
    return episode.jpeg(camera, step) if isinstance(episode, StoresJpeg) else None


def as_float32(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """float32[t, d], the type every format we write keeps numbers in."""
    return np.asarray(values, dtype=np.float32)
