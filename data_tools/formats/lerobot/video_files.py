"""Single frames of videos: seek to the key frame before, decode to the frame, check its time.

What a video's header says of its frames, and the times of all of them, is read without decoding.
"""

import math
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Final, TypeVar

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from data_tools.errors import UserError, describe
from data_tools.storage.files.cache import LruCache

T = TypeVar("T")

MAX_OPEN_VIDEOS: Final = 16
TIMES_CACHE_BYTES: Final = 64 << 20
# Seconds within which a frame is the one that is looked for.
SAME_FRAME_S: Final = 1e-4
# Going on decoding beats a seek for the next few frames only: a seek empties the decoder.
MAX_FRAMES_AHEAD: Final = 4


class VideoFiles:
    """Videos kept open for decoding in this process; beyond 16 the least recently used closes.

    Decodes on one thread: a loader has a process for each core. Picklable and safe to inherit:
    nothing that is open is shared.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._forget()

    def __getstate__(self) -> dict[str, object]:
        return {}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__()  # type: ignore[misc]

    def frame(self, path: str, time_s: float) -> npt.NDArray[np.uint8]:
        """uint8[y, x, 3], RGB: the frame that is shown from that second of the file on.

        Raises:
            UserError: the file cannot be decoded, or no frame begins there.
        """
        return self._with(path, lambda video: video.frame(time_s))

    def header(self, path: str) -> "Header":
        """What the file says of its frames; UserError when it cannot be read."""
        return self._with(path, lambda video: video.header)

    def frame_times(self, path: str) -> npt.NDArray[np.float64]:
        """float64[n], rising: seconds from the file's start at which its frames are shown.

        Raises:
            UserError: the file cannot be read.
        """

        def read() -> npt.NDArray[np.float64]:
            return self._with(path, _Video.frame_times)

        with self._lock:
            return self._times.get_or_make(path, read)

    def _with(self, path: str, use: "Callable[[_Video], T]") -> T:
        with self._lock:
            if self._pid != os.getpid():
                self._forget()
            try:
                return use(self._videos.get_or_make(path, lambda: _Video(path)))
            except UserError:
                raise
            except (av.FFmpegError, OSError, ValueError, ArithmeticError) as error:
                found = f"a damaged video ({' '.join(str(error).split())[:200]})"
                remedy = "Copy or download it again, or leave its episodes out."
                raise UserError(describe(path, found, "a whole video", remedy)) from error

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._videos: LruCache[_Video] = LruCache(
            MAX_OPEN_VIDEOS, weigh=lambda _: 1, on_evict=_Video.close
        )
        self._times: LruCache[npt.NDArray[np.float64]] = LruCache(
            TIMES_CACHE_BYTES, weigh=lambda times: times.nbytes
        )


@dataclass(frozen=True)
class Header:
    """What a video says of its frames.

    Attributes:
        num_frames: how many; 0 where it does not say.
        start_s: when the first is shown; None where it does not say.
        rate: frames a second on average.
        tick_s: to how many seconds times are rounded.
        is_even: whether its list of frames has all of them, as far apart as one another.
    """

    num_frames: int
    start_s: float | None
    rate: float
    tick_s: float
    is_even: bool

    def is_regular(self, fps: float) -> bool:
        """Whether it says that its frames are at 0, 1 / fps, 2 / fps, ..."""
        if not self.is_even or self.start_s is None or self.tick_s > SAME_FRAME_S:
            return False
        drift_s = self.num_frames * abs(1 / fps - 1 / self.rate) if self.rate else math.inf
        return max(abs(self.start_s), drift_s) <= SAME_FRAME_S / 2


class _Video:
    """One open video and the place its decoder has come to."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._container: InputContainer = av.open(path)
        if not self._container.streams.video:
            self.close()
            remedy = "Download it again."
            raise UserError(describe(path, "no video stream", "one", remedy))
        self._stream: VideoStream = self._container.streams.video[0]
        if self._stream.codec_context is None:
            self.close()
            found, remedy = "a video of an unknown codec", "Download it again."
            raise UserError(describe(path, found, "one that this PyAV decodes", remedy))
        self._stream.thread_type = "NONE"
        self._stream.codec_context.thread_count = 1
        self._time_base = self._stream.time_base or Fraction(1, av.time_base)
        self._step_s = float(1 / (self._stream.average_rate or Fraction(1)))
        self._same_s = min(SAME_FRAME_S, self._step_s / 4)
        self._frames: Iterator[VideoFrame] = iter(())
        self._decoded_s = float("inf")  # time of the frame decoded last

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    @cached_property
    def header(self) -> Header:
        """What the file says of its frames."""
        count, start = self._stream.frames, self._stream.start_time
        start_s = None if start is None else float(start * self._time_base)
        rate = float(self._stream.average_rate or 0)
        # when they are decoded, which is as even as when they are shown
        listed = [entry.timestamp for entry in self._stream.index_entries]
        steps = np.diff(np.sort(listed))
        is_even = 0 < count == len(listed) and (count < 3 or int(np.ptp(steps)) <= 1)
        return Header(count, start_s, rate, float(self._time_base), is_even)

    def frame_times(self) -> npt.NDArray[np.float64]:
        """float64[n], rising: when its frames are shown, read from the packets and not decoded."""
        self._decoded_s = float("inf")  # the decoder reads from the same place
        self._container.seek(0, stream=self._stream, backward=True)
        shown = [
            packet.pts
            for packet in self._container.demux(self._stream)
            if packet.pts is not None and not packet.is_discard
        ]
        return np.array(sorted(shown), np.float64) * float(self._time_base)

    def frame(self, time_s: float) -> npt.NDArray[np.uint8]:
        """uint8[y, x, 3], RGB: the frame that is shown from that second of the file on."""
        try:
            frame = self._decode_at(time_s)
        except BaseException:
            self._decoded_s = float("inf")  # wherever the decoder is now, seek before the next
            raise
        if frame is None or not self._decoded_s <= time_s + self._same_s:
            found = "the end" if frame is None else f"the next frame at {self._decoded_s:.6f} s"
            self._decoded_s = float("inf")
            remedy = "Copy or download the video again; if it stays so, leave the episode out."
            if frame is not None:
                remedy = (
                    "Its frames are not evenly spaced: write `layout: {clock: frame_index}` into "
                    "conventions.yaml, or encode it again."
                )
            expected = f"a frame at {time_s:.6f} s"
            raise UserError(describe(self._path, found, expected, remedy))
        return frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)

    def _decode_at(self, time_s: float) -> VideoFrame | None:
        """The first frame at that time or later; None when the file ends."""
        ahead_s = time_s - self._decoded_s
        if self._same_s < ahead_s < (MAX_FRAMES_AHEAD + 0.5) * self._step_s:
            frame = self._decode_to(time_s - self._same_s)
            if frame is not None and self._decoded_s <= time_s + self._same_s:
                return frame
        # A decoder that starts at a key frame may leave out frames shown before it (open groups of
        # pictures); then it has to start earlier, at last from the beginning.
        for back_s in (0.0, 1.0, time_s):
            self._seek(max(0.0, time_s - back_s))
            frame = self._decode_to(time_s - self._same_s)
            if frame is not None and self._decoded_s <= time_s + self._same_s:
                break
        return frame

    def _seek(self, time_s: float) -> None:
        # a little later, so that rounding never ends up before a key frame at that very time
        target = round((time_s + self._same_s) / self._time_base)
        self._container.seek(target, stream=self._stream, backward=True)
        self._frames = self._container.decode(self._stream)

    def _decode_to(self, time_s: float) -> VideoFrame | None:
        """The first frame at this time or later, None at the end of the file."""
        for frame in self._frames:
            if frame.pts is not None:
                self._decoded_s = float(frame.pts * self._time_base)
                if self._decoded_s >= time_s:
                    return frame
        return None
