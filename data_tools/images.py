"""Camera frames on disk: JPEG rows padded to one length, and back to RGB upright pixels."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import simplejpeg

from data_tools.conventions import CameraSpec

JPEG_START = b"\xff\xd8\xff"


class UndecodableFrameError(ValueError):
    """The bytes of a frame are not a JPEG image, or not a whole one."""


def encode_frames(frames: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    """JPEG frames as uint8[t, n]: one row a frame, zero-padded to the n bytes of the longest.

    Chroma is kept at full resolution (4:4:4): with 2 x 2 subsampling the colour of a small block
    bleeds into the table, and frames of a policy are small.

    Args:
        frames: uint8[t, y, x, 3], RGB.
        quality: JPEG quality, 1 to 100.
    """
    encoded = [
        simplejpeg.encode_jpeg(
            np.ascontiguousarray(frame), quality=quality, colorspace="RGB", colorsubsampling="444"
        )
        for frame in frames
    ]
    return _pad_rows(encoded)


def decode_frame(data: bytes) -> npt.NDArray[np.uint8]:
    """uint8[y, x, 3] from a zero-padded JPEG, channels in the order they were encoded in.

    Raises:
        UndecodableFrameError: the bytes do not hold a whole JPEG image; the message says what it
            starts with.
    """
    if not data.startswith(JPEG_START):
        raise UndecodableFrameError(f"bytes starting with {data[:4]!r}, which is not a JPEG")
    try:
        frame: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace="RGB")
    except ValueError as error:
        raise UndecodableFrameError(f"a broken JPEG ({error})") from error
    return frame


def to_rgb_upright(frame: npt.NDArray[np.uint8], stored: CameraSpec) -> npt.NDArray[np.uint8]:
    """uint8[y, x, 3], RGB, upright, contiguous, from a frame stored as the camera declares.

    Raises:
        ValueError: the declared orientation is 'unknown'; nobody may turn a frame by a guess.
    """
    match stored.orientation:
        case "flipped_vertical":
            frame = frame[::-1]
        case "rotated_180":
            frame = frame[::-1, ::-1]
        case "unknown":
            raise ValueError(f"camera {stored.name!r}: orientation {stored.orientation!r}")
    if stored.color_order == "bgr":
        frame = frame[:, :, ::-1]
    return np.ascontiguousarray(frame)


def _pad_rows(encoded: Sequence[bytes]) -> npt.NDArray[np.uint8]:
    rows = np.zeros((len(encoded), max(map(len, encoded))), dtype=np.uint8)
    for row, data in zip(rows, encoded, strict=True):
        row[: len(data)] = np.frombuffer(data, dtype=np.uint8)
    return rows
