"""VideoWriter: frames to one video, encoded as LeRobot does."""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.packet import Packet
from av.video.frame import PictureType
from av.video.stream import VideoStream

from data_tools.conventions import CameraSpec
from data_tools.formats.lerobot.lerobot_options import ENCODERS, LeRobotOptions

PIXEL_FORMAT = "yuv420p"


class VideoWriter:
    """One video file that is being written.

    Attributes:
        path: the file.
        num_frames: frames given so far; the next one's time is num_frames / fps.
        num_bytes: of the frames encoded so far, which lag some behind those given.
    """

    def __init__(self, path: Path, camera: CameraSpec, fps: float, options: LeRobotOptions) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.num_frames = self.num_bytes = 0
        rate = Fraction(fps).limit_denominator(1001)
        self._time_base = 1 / rate
        # the encoder of AV1 reads this where it starts, and talks to the terminal without it
        os.environ.setdefault("SVT_LOG", "1")
        self._container = av.open(str(path), "w", format="mp4")
        stream = self._container.add_stream(
            ENCODERS[options.codec], rate=rate, options=_encoder_options(options)
        )
        assert isinstance(stream, VideoStream)  # ENCODERS names encoders of videos
        self._stream = stream
        self._stream.width, self._stream.height = camera.width, camera.height
        self._stream.pix_fmt = PIXEL_FORMAT

    def add(self, frame: npt.NDArray[np.uint8], *, is_first: bool) -> None:
        """Encode uint8[y, x, 3], RGB, as the next frame, a key frame if it is an episode's first.

        Without that, an episode could begin with a blend of the last frame of the one before.
        """
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture.pts, picture.time_base = self.num_frames, self._time_base
        if is_first:
            picture.pict_type = PictureType.I
        self._mux(self._stream.encode(picture))
        self.num_frames += 1

    def close(self) -> None:
        """Encode what is left and finish the file."""
        self._mux(self._stream.encode(None))
        self._container.close()

    def abandon(self) -> None:
        """Close a file that will be deleted."""
        self._stream.encode(None)  # AV1's encoder complains of a stream without an end
        self._container.close()

    def _mux(self, packets: "list[Packet[VideoStream]]") -> None:
        self._container.mux(packets)
        self.num_bytes += sum(packet.size for packet in packets)


def video_info(camera: CameraSpec, fps: float, options: LeRobotOptions) -> dict[str, object]:
    """What info.json says about the videos of a camera."""
    return {
        "video.height": camera.height,
        "video.width": camera.width,
        "video.codec": options.codec,
        "video.pix_fmt": PIXEL_FORMAT,
        "video.is_depth_map": False,
        "video.fps": fps,
        "video.channels": 3,
        "has_audio": False,
    }


def _encoder_options(options: LeRobotOptions) -> dict[str, str]:
    threads = str(options.encoder_threads)
    common = {"g": str(options.keyframe_interval), "crf": str(options.crf)}
    match options.codec:
        case "av1":
            # LeRobot's preset 12 blurs every second frame in the SVT-AV1 of PyAV 18
            return {**common, "preset": "8", "svtav1-params": f"lp={threads}"}
        case "h264":
            return {**common, "threads": threads}
        case "hevc":
            return {
                **common,
                "x265-params": f"log-level=error:pools={threads}:open-gop=0:bframes=0",
            }
