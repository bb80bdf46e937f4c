"""Which frame of a video each step has seen, and whether its time and its number agree on that."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from data_tools.finding import Finding
from data_tools.formats.lerobot.index import VideoPlace
from data_tools.formats.lerobot.sources import Sources
from data_tools.formats.lerobot.video_files import VideoFiles
from data_tools.rules import FRAME_COUNT, WRONG_CLOCK

Seconds = npt.NDArray[np.float64]

FLOAT32_EPSILON: Final = 2.0**-23  # which LeRobot keeps times in


@dataclass(frozen=True)
class Located:
    """Where the frames of one episode's steps are in one camera's video.

    Attributes:
        seconds: float64[t], when the frame of each step is shown, from the start of the file; of no
            use where there is a doubt.
        doubt: why nobody can say which frames belong to which steps; None where it is clear.
    """

    seconds: Seconds
    doubt: Finding | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return self.seconds.nbytes


@dataclass(frozen=True)
class FrameClock:
    """Finds the frames of steps by number or time.

    Attributes:
        sources: the folder's clock and tolerance.
        fps: steps a second.
        videos: the open files.
    """

    sources: Sources
    fps: float
    videos: VideoFiles

    def locate(self, name: str, camera: str, place: VideoPlace, times: Seconds) -> Located:
        """The frames of an episode's steps.

        Args:
            name: of the episode.
            camera: its name, for messages.
            place: where the episode's frames are.
            times: float64[t], seconds of its steps, as recorded.

        Raises:
            UserError: the video cannot be read.
        """
        every = self._every(place.path)
        clock, count = self.sources.clock, len(every)
        if count == 0 or (clock != "timestamp" and count != place.num_frames):
            value = f"{count} frames of camera {camera!r} in {place.path}"
            if count and np.isfinite(times).all():
                value += _needed(every, place.start_s + times)
            threshold = f"{place.num_frames}, one a step"
            return Located(times, FRAME_COUNT.found(name, value, threshold=threshold))
        if clock != "frame_index" and not np.isfinite(times).all():
            value = f"{(~np.isfinite(times)).sum()} times that are not finite"
            return Located(times, WRONG_CLOCK.found(name, value))
        allowed = self.sources.tolerance_s + float(np.abs(times).max()) * FLOAT32_EPSILON
        at = place.start_s + times
        if clock == "timestamp":
            found = _nearest(every, at)
            worst = float(np.abs(found - at).max())
            if worst <= allowed:
                return Located(found)
            value = f"{_described(times)}; the nearest frames of {camera!r} up to {worst:.3g} s off"
            value += _needed(every, at)
            return Located(found, WRONG_CLOCK.found(name, value, threshold=f"{allowed:.3g} s"))
        own = every[place.first_frame : place.first_frame + len(times)]
        if clock == "frame_index":
            return Located(own)
        return Located(own, self._disagreement(name, place, times, every, allowed))

    def _every(self, path: str) -> Seconds:
        """float64[n], rising: seconds of all frames of a video."""
        header = self.videos.header(path)
        if self.sources.clock is None and header.is_regular(self.fps):
            return np.arange(header.num_frames) / self.fps
        return self.videos.frame_times(path)

    def _disagreement(
        self, name: str, place: VideoPlace, times: Seconds, every: Seconds, allowed: float
    ) -> Finding | None:
        """Times that lead to other frames than the steps' numbers, or between two."""
        own = every[place.first_frame : place.first_frame + len(times)]
        beside = np.abs(place.start_s + times - own)
        half_step = 0.5 * (float(np.median(np.diff(own))) if len(own) > 1 else 1 / self.fps)
        others, worst = int((~(beside < half_step)).sum()), float(beside.max())
        if not others and worst <= allowed:
            return None
        value = (
            f"{_described(times)}: up to {worst:.3g} s from the frames of their numbers, and in "
            f"{others} of {len(times)} steps nearer to another frame"
        )
        if not abs(place.start_s - own[0]) <= allowed:
            value += f"; by the index the video starts at {place.start_s:g} s, by its frames "
            value += f"at {own[0]:g} s"
        value += _needed(every, place.start_s + times)
        threshold = f"frame_index / {self.fps:g}, within {self.sources.tolerance_s:g} s"
        return WRONG_CLOCK.found(name, value, threshold=threshold)


def _needed(every: Seconds, at: Seconds) -> str:
    """The tolerance, rounded up to two digits, with which each time has a frame."""
    found = _nearest(every, at)
    worst, different = float(np.abs(found - at).max()), len(np.unique(found))
    digit = 10.0 ** (math.floor(math.log10(worst)) - 1) if worst > 0 else 1e-4
    shared = f" gives {len(at)} steps {different} frames and" if different < len(at) else ""
    tolerance = (math.floor(worst / digit) + 1) * digit
    return f"; clock: timestamp{shared} needs tolerance_s: {tolerance:.2g}"


def _nearest(every: Seconds, wanted: Seconds) -> Seconds:
    """float64[n]: of rising times, at least one, those nearest to the wanted ones."""
    after = np.searchsorted(every, wanted).clip(0, len(every) - 1)
    before = every[(after - 1).clip(0)]
    return np.where(np.abs(wanted - before) <= np.abs(every[after] - wanted), before, every[after])


def _described(times: Seconds) -> str:
    step = f", the median step {np.median(np.diff(times)):.4g} s" if len(times) > 1 else ""
    return f"times from {times[0]:.6g} s to {times[-1]:.6g} s{step}"
