"""An episode as a video: its cameras side by side, with the step and the instruction above."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from data_tools.episode import Episode
from data_tools.storage.frames.videos import write_mp4
from data_tools.view.drawing import draw_line, tile

UNKNOWN_RATE_HZ = 10.0

_CAMERA_HEIGHT, _BAND, _GAP = 320, 52, 4
_DARK, _LIGHT, _DIM = "#111418", "#ffffff", "#9fb1c4"


def write_video(
    episode: Episode, cameras: Sequence[str], control_hz: float | None, path: Path
) -> Iterator[int]:
    """Write an H.264 video that browsers play, one frame a step; yields each step when it is in.

    Args:
        episode: what is filmed.
        cameras: from left to right, each scaled to one height.
        control_hz: rate of the video, so that it shows the robot in real time; 10 frames a second
            where nobody knows.
        path: the file, whose name may end in anything.
    """
    pictures = (
        np.asarray(video_frame(episode, cameras, step, control_hz))
        for step in range(episode.num_steps)
    )
    return write_mp4(str(path), pictures, control_hz or UNKNOWN_RATE_HZ)


def video_frame(
    episode: Episode, cameras: Sequence[str], step: int, control_hz: float | None
) -> Image.Image:
    """RGB picture with even sides: a band of text above the cameras, at 320 rows each."""
    tiles = []
    for camera in cameras:
        frame = episode.image(camera, step)
        tiles.append(tile(frame, max(1, round(frame.shape[1] * _CAMERA_HEIGHT / frame.shape[0]))))
    width = max(sum(each.width for each in tiles) + _GAP * (len(tiles) - 1), 480)
    height = _BAND + max(each.height for each in tiles)
    picture = Image.new("RGB", (width + width % 2, height + height % 2), _DARK)
    draw = ImageDraw.Draw(picture)
    draw_line(draw, (8, 6), episode.instruction, width=width - 16, size=15, color=_LIGHT, bold=True)
    when = "at an unknown rate" if control_hz is None else f"{step / control_hz:.2f} s"
    count = f"step {step} of {episode.num_steps}, {when}: {', '.join(cameras)}"
    draw_line(draw, (8, 28), count, width=width - 16, size=13, color=_DIM)
    left = 0
    for each in tiles:
        picture.paste(each, (left, _BAND))
        left += each.width + _GAP
    return picture
