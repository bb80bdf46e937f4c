"""Checks of one episode's images, on the first, the middle and the last frame of each camera."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt

from data_tools.conventions import Conventions
from data_tools.episode import Episode
from data_tools.errors import UserError
from data_tools.finding import Finding

MIN_BRIGHTNESS: Final = 5.0
MAX_BRIGHTNESS: Final = 250.0
# A state column that spans less than this over an episode is taken as standing still.
MIN_MOTION: Final = 1e-3
FREEZE_S: Final = 1.0

Frames = Mapping[int, npt.NDArray[np.uint8]]


def check_frames(episode: Episode, conventions: Conventions) -> Iterator[Finding]:
    """Frames that do not decode, are black or white, or do not change while the robot does."""
    steps = sorted({0, episode.num_steps // 2, episode.num_steps - 1})
    rate = conventions.known_control_hz("tell a frozen camera from a short episode")
    cameras: dict[str, Frames] = {}
    for camera in conventions.camera_names:
        frames: dict[int, npt.NDArray[np.uint8]] = {}
        for step in steps:
            try:
                frames[step] = episode.image(camera, step)
            except UserError as error:
                yield _undecodable(episode, camera, step, error)
        cameras[camera] = frames
        yield from _check_brightness(episode, camera, frames)
        yield from _check_frozen(episode, camera, frames, rate)
    yield from _check_duplicates(episode, cameras)


def _undecodable(episode: Episode, camera: str, step: int, error: UserError) -> Finding:
    return Finding(
        rule="undecodable_frame",
        severity="error",
        where=episode.name,
        step=step,
        value=f"camera {camera!r}: {error}",
        threshold="an image of the declared size",
        remedy="Leave the episode out or record it again.",
    )


def _check_brightness(episode: Episode, camera: str, frames: Frames) -> Iterator[Finding]:
    for step, frame in frames.items():
        brightness = float(frame.mean())
        if not MIN_BRIGHTNESS <= brightness <= MAX_BRIGHTNESS:
            yield Finding(
                rule="black_frame" if brightness < MIN_BRIGHTNESS else "white_frame",
                severity="warning",
                where=episode.name,
                step=step,
                value=f"camera {camera!r} with mean brightness {brightness:.1f}",
                threshold=f"{MIN_BRIGHTNESS:g} to {MAX_BRIGHTNESS:g}",
                remedy="Look at the frame: the camera was covered, off or overexposed.",
            )
            return


def _check_frozen(
    episode: Episode, camera: str, frames: Frames, control_hz: float
) -> Iterator[Finding]:
    motion = float(np.ptp(episode.state(), axis=0).max())
    is_long = episode.num_steps > FREEZE_S * control_hz
    is_same = len({frame.tobytes() for frame in frames.values()}) == 1
    if len(frames) > 1 and is_long and is_same and motion > MIN_MOTION:
        yield Finding(
            rule="frozen_camera",
            severity="warning",
            where=episode.name,
            value=f"camera {camera!r} shows one picture at the steps {list(frames)}",
            threshold=f"a change while the state moves by {motion:.3g}",
            remedy="Check the camera's recording.",
        )


def _check_duplicates(episode: Episode, cameras: Mapping[str, Frames]) -> Iterator[Finding]:
    for (name, frames), (other, others) in combinations(cameras.items(), 2):
        shared = frames.keys() & others.keys()
        if shared and all(np.array_equal(frames[step], others[step]) for step in shared):
            yield Finding(
                rule="duplicated_camera",
                severity="warning",
                where=episode.name,
                value=f"the same pictures from {name!r} and {other!r}",
                threshold="two views",
                remedy="Check which camera is plugged in where, or drop one.",
            )
