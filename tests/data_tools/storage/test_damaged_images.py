"""Images whose header claims what no camera has, or whose pixels 8-bit RGB cannot hold."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from data_tools.storage.frames.images import UndecodableFrameError, decode_frame
from tests.data_tools.fixtures.contents import encoded, scene


def claiming(form: str, height: int, width: int) -> bytes:
    """An image of 24 x 32 pixels whose header says otherwise."""
    data = bytearray(encoded(scene(0), form))
    if form == "PNG":
        data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
        data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    else:
        start = data.index(b"\xff\xc0") + 5
        data[start : start + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_more_pixels_than_a_camera_has_are_refused_before_there_is_room_for_them(form):
    with pytest.raises(UndecodableFrameError, match=r"60000 x 60000 pixels; expected at most"):
        decode_frame(claiming(form, 60_000, 60_000))


def test_transparent_pixels_are_refused_and_opaque_ones_read():
    pixels = np.dstack([scene(0), np.full(scene(0).shape[:2], 255, np.uint8)])
    np.testing.assert_array_equal(decode_frame(png(Image.fromarray(pixels))), scene(0))
    pixels[3, 3, 3] = 254
    with pytest.raises(UndecodableFrameError, match="transparent pixels, whose colour is open"):
        decode_frame(png(Image.fromarray(pixels)))


def test_a_depth_map_is_no_frame():
    depth = Image.fromarray(np.full((24, 32), 1000, np.uint16))
    with pytest.raises(UndecodableFrameError, match="not of 8-bit colours"):
        decode_frame(png(depth))


@pytest.mark.parametrize("mode", ["L", "P"])
def test_grey_and_palettes_are_read_as_rgb(mode):
    image = Image.fromarray(scene(0)).convert(mode)
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode_frame(png(image)), expected)
