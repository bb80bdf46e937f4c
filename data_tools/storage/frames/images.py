"""Camera frames on disk: JPEG and PNG rows padded to one length, and back to RGB upright pixels.

Resizing of whole frames at their aspect ratio.
"""

import io
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError

from data_tools.conventions import CameraSpec

JPEG_START: Final = b"\xff\xd8\xff"
PNG_START: Final = b"\x89PNG\r\n\x1a\n"
# A header is a claim: 64 million pixels are more than any robot's camera has.
MAX_PIXELS: Final = 1 << 26
PNG_MODES: Final = ("1", "L", "LA", "P", "RGB", "RGBA")


class UndecodableFrameError(ValueError):
    """The bytes of a frame are not a JPEG or PNG image, or not a whole one."""


def encode_frames(frames: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    """JPEG frames as uint8[t, n]: one row a frame, zero-padded to the n bytes of the longest.

    Args:
        frames: uint8[t, y, x, 3], RGB.
        quality: JPEG quality, 1 to 100.
    """
    return pad_rows([encode_jpeg(frame, quality) for frame in frames])


def encode_jpeg(frame: npt.NDArray[np.uint8], quality: int) -> bytes:
    """The JPEG of one frame, uint8[y, x, 3].

    Chroma is kept at full resolution (4:4:4): with 2 x 2 subsampling the colour of a small block
    bleeds into the table, and frames of a policy are small.
    """
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(frame), quality=quality, colorspace="RGB", colorsubsampling="444"
    )


def encode_png(frame: npt.NDArray[np.uint8]) -> bytes:
    """The PNG of one frame, uint8[y, x, 3], at the fastest compression level."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame)).save(stream, format="PNG", compress_level=1)
    return stream.getvalue()


def decode_frame(data: bytes, raw_size: tuple[int, int] | None = None) -> npt.NDArray[np.uint8]:
    """uint8[y, x, 3] from a JPEG or PNG, zero-padded or not, channels in the order encoded.

    Args:
        data: the stored bytes.
        raw_size: (height, width) that bytes of no known format have if they are bare pixels.

    Raises:
        UndecodableFrameError: the bytes do not hold a whole image; the message says what they
            start with.
    """
    if data.startswith(JPEG_START):
        _require_size(*jpeg_size(data))
        try:
            frame: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace="RGB")
        except ValueError as error:
            raise UndecodableFrameError(f"a broken JPEG ({error})") from error
        return frame
    if data.startswith(PNG_START):
        return _decode_png(data)
    if raw_size is not None and len(data) == raw_size[0] * raw_size[1] * 3:
        return np.frombuffer(data, dtype=np.uint8).reshape(*raw_size, 3)
    raise UndecodableFrameError(f"bytes starting with {data[:4]!r}, which is not a JPEG or PNG")


def encoded_size(data: bytes, raw_sizes: Sequence[tuple[int, int]] = ()) -> tuple[int, int]:
    """(height, width) of an encoded frame, from its header.

    Args:
        data: the stored bytes.
        raw_sizes: sizes that bare pixels may have; told apart by the number of bytes.

    Raises:
        UndecodableFrameError: the bytes are no image.
    """
    if data.startswith(JPEG_START):
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        except ValueError as error:
            raise UndecodableFrameError(f"a broken JPEG ({error})") from error
        return height, width
    if data.startswith(PNG_START):
        return _decode_png(data).shape[:2]
    for height, width in raw_sizes:
        if len(data) == height * width * 3:
            return height, width
    raise UndecodableFrameError(f"bytes starting with {data[:4]!r}, which is not a JPEG or PNG")


def three_channels(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """uint8[y, x, 3] from pixels with one channel (repeated), three, or four (the last alpha)."""
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[:, :, :3]


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Height and width that the header of a JPEG tells; UndecodableFrameError without one."""
    if not data.startswith(JPEG_START):
        raise UndecodableFrameError(f"bytes starting with {data[:4]!r}, which is not a JPEG")
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise UndecodableFrameError(f"a broken JPEG ({error})") from error
    return height, width


def _require_size(height: int, width: int) -> None:
    """UndecodableFrameError for more pixels than any camera has, before there is room for them."""
    if height * width > MAX_PIXELS:
        raise UndecodableFrameError(
            f"an image of {height} x {width} pixels; expected at most {MAX_PIXELS}"
        )


def _require_plain_colors(image: Image.Image) -> None:
    """UndecodableFrameError for what 8-bit RGB cannot hold: depth maps, pixels seen through."""
    if image.mode not in PNG_MODES:
        raise UndecodableFrameError(f"a PNG of mode {image.mode}, not of 8-bit colours")
    if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
        raise UndecodableFrameError("a PNG with transparent pixels, whose colour is open")


def _decode_png(data: bytes) -> npt.NDArray[np.uint8]:
    _require_size(int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big"))
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            _require_plain_colors(image)
            return np.asarray(image.convert("RGB"), dtype=np.uint8)
    except UndecodableFrameError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise UndecodableFrameError(f"a broken PNG ({error})") from error


def to_rgb_upright(frame: npt.NDArray[np.uint8], stored: CameraSpec) -> npt.NDArray[np.uint8]:
    """uint8[y, x, 3], RGB, upright, contiguous, from a frame stored as the camera declares.

    A frame of unknown orientation stays as it is stored; `open_dataset` refuses it unless asked to
    show what nobody has declared.
    """
    match stored.orientation:
        case "flipped_vertical":
            frame = frame[::-1]
        case "rotated_180":
            frame = frame[::-1, ::-1]
    if stored.color_order == "bgr":
        frame = frame[:, :, ::-1]
    return np.ascontiguousarray(frame)


def pad_rows(encoded: Sequence[bytes]) -> npt.NDArray[np.uint8]:
    """uint8[t, n]: rows of bytes, zero-padded to the n of the longest."""
    rows = np.zeros((len(encoded), max(map(len, encoded))), dtype=np.uint8)
    for row, data in zip(rows, encoded, strict=True):
        row[: len(data)] = np.frombuffer(data, dtype=np.uint8)
    return rows


def resize_center_pad(
    image: npt.NDArray[np.uint8], height: int, width: int
) -> npt.NDArray[np.uint8]:
    """uint8[height, width, 3]: the whole image at its aspect ratio, centred on black.

    A 100 x 200 image for 64 x 64 becomes 32 x 64, with 16 black rows above and below. PIL's
    bilinear filter (antialiased) on uint8; sizes and borders round down, as in openpi's
    `image_tools.py`, so that pretrained weights see the pixels they were trained on.

    Args:
        image: uint8[y, x, 3].
        height: rows of the result.
        width: columns of the result.
    """
    rows, columns = image.shape[:2]
    if (rows, columns) == (height, width):
        return image
    new_rows, new_columns = fitting_size(rows, columns, height, width)
    resized: Any = Image.fromarray(image).resize((new_columns, new_rows), Image.Resampling.BILINEAR)
    top, left = (height - new_rows) // 2, (width - new_columns) // 2
    padded = np.zeros((height, width, 3), dtype=np.uint8)
    padded[top : top + new_rows, left : left + new_columns] = np.asarray(resized)
    return padded


def fitting_size(rows: int, columns: int, height: int, width: int) -> tuple[int, int]:
    """Largest (rows, columns) of the same aspect ratio within height and width, rounded down."""
    ratio = max(columns / width, rows / height)
    return int(rows / ratio), int(columns / ratio)
