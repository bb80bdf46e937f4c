"""The JPEG files of an episode's camera: as they are stored, or encoded once."""

from typing import Final

import numpy as np
import numpy.typing as npt

from data_tools.episode import Episode, StoresJpeg
from data_tools.errors import UserError, describe
from data_tools.storage.frames.images import encode_jpeg

DEFAULT_QUALITY: Final = 95


def require_quality(quality: int) -> None:
    """UserError unless JPEG has such a quality."""
    if not 1 <= quality <= 100:
        expected, remedy = "a whole number from 1 to 100", "95 is a good value."
        raise UserError(describe("quality", repr(quality), expected, remedy))


def jpeg_frames(episode: Episode, camera: str, quality: int) -> list[bytes]:
    """The JPEG of every frame: the stored bytes where there are any, else encoded at `quality`.

    A lossy image is never encoded a second time unless its size was changed. Every frame is decoded
    all the same: what is copied can be read.

    Raises:
        UserError: a frame's stored bytes are no whole image of the declared size.
    """
    return [_jpeg(episode, camera, step, quality) for step in range(episode.num_steps)]


def _jpeg(episode: Episode, camera: str, step: int, quality: int) -> bytes:
    frame = episode.image(camera, step)
    stored = episode.jpeg(camera, step) if isinstance(episode, StoresJpeg) else None
    return stored or encode_jpeg(frame, quality)


def as_float32(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """float32[t, d], the type every format we write keeps numbers in."""
    return np.asarray(values, dtype=np.float32)
