"""Single frames of videos: seek to the key frame before, decode to the frame, check its time."""

import os
import threading
from collections.abc import Iterator
from fractions import Fraction
from typing import Final

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from data_tools.errors import UserError, describe
from data_tools.files.cache import LruCache
from data_tools.lerobot.index import VideoPlace

MAX_OPEN_VIDEOS: Final = 16
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

    def frame(self, place: VideoPlace, time_s: float, tolerance_s: float) -> npt.NDArray[np.uint8]:
        """uint8[y, x, 3], RGB: the frame nearest to a time since the start of the episode.

        Args:
            place: the file, and where the episode starts in it.
            time_s: in seconds.
            tolerance_s: how far from that time the frame may be.

        Raises:
            UserError: the file cannot be decoded, holds fewer frames than its episodes have, or
                none near that time.
        """
        with self._lock:
            if self._pid != os.getpid():
                self._forget()
            try:
                video = self._videos.get_or_make(place.path, lambda: _Video(place))
                return video.frame(place.start_s + time_s, tolerance_s)
            except UserError:
                raise
            except (av.FFmpegError, OSError, ValueError, ArithmeticError) as error:
                found = f"a damaged video ({' '.join(str(error).split())[:200]})"
                remedy = "Copy or download it again, or leave its episodes out."
                raise UserError(describe(place.path, found, "a whole video", remedy)) from error

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._videos: LruCache[_Video] = LruCache(
            MAX_OPEN_VIDEOS, weigh=lambda _: 1, on_evict=_Video.close
        )


class _Video:
    """One open video and the place its decoder has come to."""

    def __init__(self, place: VideoPlace) -> None:
        self._path = place.path
        self._container: InputContainer = av.open(place.path)
        if not self._container.streams.video:
            self.close()
            remedy = "Download it again."
            raise UserError(describe(place.path, "no video stream", "one", remedy))
        self._stream: VideoStream = self._container.streams.video[0]
        if self._stream.codec_context is None:
            self.close()
            found, remedy = "a video of an unknown codec", "Download it again."
            raise UserError(describe(place.path, found, "one that this PyAV decodes", remedy))
        self._stream.thread_type = "NONE"
        self._stream.codec_context.thread_count = 1
        self._require_frames(place)
        self._time_base = self._stream.time_base or Fraction(1, av.time_base)
        self._step_s = float(1 / (self._stream.average_rate or Fraction(1)))
        self._frames: Iterator[VideoFrame] = iter(())
        self._decoded_s = float("inf")  # time of the frame decoded last

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def frame(self, time_s: float, tolerance_s: float) -> npt.NDArray[np.uint8]:
        """uint8[y, x, 3], RGB: the frame nearest to a time since the start of the file."""
        try:
            frame = self._decode_near(time_s)
        except BaseException:
            self._decoded_s = float("inf")  # wherever the decoder is now, seek before the next
            raise
        found_s = self._decoded_s if frame is not None else float("nan")
        if frame is None or not abs(found_s - time_s) <= tolerance_s:
            self._decoded_s = float("inf")
            found = "the end" if frame is None else f"a frame at {found_s:.6f} s"
            expected = f"one within {tolerance_s:g} s of {time_s:.6f} s"
            remedy = "Download the video again; if it stays so, leave the episode out."
            raise UserError(describe(self._path, found, expected, remedy))
        return frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)

    def _decode_near(self, time_s: float) -> VideoFrame | None:
        """The first frame less than half a step before that time; None when the file ends."""
        half_s = self._step_s / 2
        if half_s < time_s - self._decoded_s < (MAX_FRAMES_AHEAD + 0.5) * self._step_s:
            frame = self._decode_to(time_s - half_s)
            if frame is not None and self._decoded_s < time_s + half_s:
                return frame
        # A decoder that starts at a key frame may leave out frames shown before it (open groups of
        # pictures); then it has to start earlier, at last from the beginning.
        for back_s in (0.0, 1.0, time_s):
            self._seek(max(0.0, time_s - back_s))
            frame = self._decode_to(time_s - half_s)
            if frame is not None and self._decoded_s < time_s + half_s:
                break
        return frame

    def _seek(self, time_s: float) -> None:
        # half a step later, so that rounding never ends up before a key frame at that very time
        target = round((time_s + self._step_s / 2) / self._time_base)
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

    def _require_frames(self, place: VideoPlace) -> None:
        """UserError when the file's header counts other frames than its episodes have."""
        found, expected = self._stream.frames, place.num_frames  # 0 where the header is silent
        if found == 0 or found == expected or (found > expected and not place.is_whole):
            return
        self.close()
        remedy = "Copy or download the video again; if it stays so, leave its episodes out."
        few = "" if place.is_whole else "at least "
        raise UserError(
            describe(
                place.path,
                f"{found} frames",
                f"{few}{expected}, the length of its episodes",
                remedy,
            )
        )
