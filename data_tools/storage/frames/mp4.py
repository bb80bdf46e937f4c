"""Frames to a video that browsers play."""

import io
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import IO

import av
import numpy as np
import numpy.typing as npt

RGBFrame = npt.NDArray[np.uint8]


def write_mp4(
    target: str | IO[bytes], frames: Iterable[RGBFrame], frames_per_s: float
) -> Iterator[int]:
    """Write an H.264 video; yields the number of each frame when it is in.

    Args:
        target: path of the file, whose name may end in anything, or where its bytes go.
        frames: uint8[y, x, 3], RGB, all of one even size.
        frames_per_s: the rate.
    """
    rate = Fraction(frames_per_s).limit_denominator(1000)
    with av.open(target, mode="w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "20"})
        stream.pix_fmt = "yuv420p"
        for number, frame in enumerate(frames):
            if number == 0:
                stream.height, stream.width = frame.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            yield number
        container.mux(stream.encode())


def encode_mp4(frames: Iterable[RGBFrame], frames_per_s: float) -> bytes:
    """The bytes of such a video."""
    buffer = io.BytesIO()
    for _ in write_mp4(buffer, frames, frames_per_s):
        pass
    return buffer.getvalue()
