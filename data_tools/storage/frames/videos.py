"""Frames of a video file by number, decoded with PyAV from the key frame before.

Frames to a video that browsers play.
"""

import io
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

# What PyAV raises: its end of a file is no OSError.
UNDECODABLE = (av.FFmpegError, OSError, ValueError, OverflowError)
MAX_FORWARD_FRAMES = 48  # beyond this many frames ahead, seeking is cheaper than decoding on


class UndecodableVideoError(ValueError):
    """A video cannot be opened, or has no such frame; the message says which."""


class VideoFrames:
    """An open video whose frames are asked for by number. Not picklable; close it after use.

    Decodes on when the next frame wanted lies a little ahead, and from the key frame before it
    otherwise, so reading in order costs one decode a frame.

    Args:
        path: the video file.

    Raises:
        UndecodableVideoError: it is missing, damaged or has no pictures.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        try:
            self._container = av.open(self.path)
        except UNDECODABLE as error:
            raise UndecodableVideoError(f"a video that cannot be opened ({error})") from error
        if not self._container.streams.video:
            self._container.close()
            raise UndecodableVideoError("a file without pictures")
        self._stream = self._container.streams.video[0]
        if self._stream.codec_context is None or not self._stream.height * self._stream.width:
            self._container.close()
            raise UndecodableVideoError("a video of unknown codec or size")
        # One thread: a loader has a process a core already.
        self._stream.thread_type = "NONE"
        self._stream.codec_context.thread_count = 1
        self._times: list[int] | None = None  # read when the first frame is asked for
        self._decoder: Iterator[VideoFrame] | None = None
        self._next = -1

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return int(self._stream.height), int(self._stream.width)

    @property
    def stated_length(self) -> int:
        """Number of frames as the header says; 0 when it does not."""
        return int(self._stream.frames)

    def __len__(self) -> int:
        return len(self._presentation_times())

    def frame(self, number: int) -> npt.NDArray[np.uint8]:
        """uint8[y, x, 3], RGB: the frame of this number, counted from 0 in the order of display.

        Raises:
            UndecodableVideoError: there is no such frame, or it does not decode.
        """
        times = self._presentation_times()
        if not 0 <= number < len(times):
            raise UndecodableVideoError(f"no frame {number}: the video has {len(times)}")
        wanted = times[number]
        is_ahead = self._next <= number <= self._next + MAX_FORWARD_FRAMES
        try:
            if not is_ahead or self._decoder is None:
                self._seek(wanted)
            for frame in self._decoder or ():
                if frame.pts is not None and frame.pts >= wanted:
                    self._next = number + 1
                    return np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
        except UNDECODABLE as error:
            self._decoder = None
            raise UndecodableVideoError(f"a frame that does not decode ({error})") from error
        self._decoder = None
        raise UndecodableVideoError(f"a video that ends before its frame {number}")

    def close(self) -> None:
        """Close the file."""
        self._decoder = None
        self._container.close()

    def _presentation_times(self) -> list[int]:
        """The time of every frame in the order of display, read without decoding any."""
        if self._times is None:
            try:
                packets = self._container.demux(self._stream)
                self._times = sorted(packet.pts for packet in packets if packet.pts is not None)
            except UNDECODABLE as error:
                raise UndecodableVideoError(f"a damaged video ({error})") from error
        return self._times

    def _seek(self, time: int) -> None:
        self._container.seek(time, stream=self._stream, backward=True)
        self._decoder = self._container.decode(self._stream)
        self._next = -1


def video_length_and_size(path: str | Path) -> tuple[int, tuple[int, int]]:
    """Number of frames and (height, width) of a video, from its header where that says both.

    Raises:
        UndecodableVideoError: it is missing, damaged or has no pictures.
    """
    video = VideoFrames(path)
    try:
        return video.stated_length or len(video), video.size
    finally:
        video.close()


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
