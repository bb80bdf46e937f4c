"""LeRobotOptions: how a LeRobot folder is written."""

from typing import Final, Literal, Self

import av
from pydantic import Field, StrictInt, model_validator

from data_tools.conventions import Conventions
from data_tools.declaration import Declaration
from data_tools.errors import describe

Codec = Literal["av1", "h264", "hevc"]
ENCODERS: Final[dict[Codec, str]] = {"av1": "libsvtav1", "h264": "libx264", "hevc": "libx265"}


def best_codec() -> Codec:
    """av1, LeRobot's own choice, where PyAV can encode it; else h264."""
    return "av1" if ENCODERS["av1"] in av.codecs_available else "h264"


class LeRobotOptions(Declaration):
    """How a LeRobot folder is written. Sizes, crf and key frames are LeRobot's own."""

    version: Literal["v2.1", "v3.0"] = Field(
        "v3.0", description="v3.0 for LeRobot from 0.4, v2.1 for earlier."
    )
    images: Literal["video", "png"] = Field(
        "video",
        description="video: small and lossy. png: lossless, in the Parquet files, much larger.",
    )
    codec: Codec = Field(
        default_factory=best_codec, description="How videos are encoded: av1, h264 or hevc."
    )
    crf: StrictInt = Field(
        30, ge=0, le=51, description="Loss of the videos: larger is smaller and worse."
    )
    keyframe_interval: StrictInt = Field(
        2, gt=0, description="Frames from one key frame to the next; random access decodes so many."
    )
    encoder_threads: StrictInt = Field(1, gt=0, description="Threads of each video's encoder.")
    robot_type: str = Field("unknown", min_length=1, description="Name of the robot.")
    chunks_size: StrictInt = Field(1000, gt=0, description="Most files of one folder.")
    data_files_size_in_mb: StrictInt = Field(
        100, gt=0, description="Size in MiB at which v3.0 begins another Parquet file."
    )
    video_files_size_in_mb: StrictInt = Field(
        200, gt=0, description="Size in MiB at which v3.0 begins another video."
    )

    @model_validator(mode="after")
    def _codec_can_be_encoded(self) -> Self:
        if self.images == "video" and ENCODERS[self.codec] not in av.codecs_available:
            remedy = f"Set codec to {best_codec()!r}, or images to 'png'."
            found, expected = f"{self.codec!r}", "a codec that this PyAV can encode"
            raise ValueError(describe("codec", found, expected, remedy))
        return self

    def camera_faults(self, conventions: Conventions) -> list[str]:
        """Cameras that cannot be written so: 4:2:0 video has even sides, AV1 of 64 at least."""
        if self.images == "png":
            return []
        least = 64 if self.codec == "av1" else 16
        remedy = "Set images to 'png', or resize the frames."
        return [
            describe(
                f"camera {camera.name!r}",
                f"{camera.width} x {camera.height} pixels",
                f"even sides of {least} or more for {self.codec} video",
                remedy,
            )
            for camera in conventions.cameras
            if min(camera.height, camera.width) < least or camera.height % 2 or camera.width % 2
        ]
