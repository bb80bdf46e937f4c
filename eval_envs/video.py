"""Frames to a video."""

import io
from collections.abc import Sequence

import av
import numpy as np
import numpy.typing as npt


def encode_mp4(frames: Sequence[npt.NDArray[np.uint8]], frames_per_s: float) -> bytes:
    """An H.264 video that browsers play, of frames uint8[y, x, 3], RGB, all of one even size."""
    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=round(frames_per_s), options={"crf": "20"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()
