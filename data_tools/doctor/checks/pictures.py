"""Checks of the pictures: decodable, lit, alive, one view a camera, one colour order.

How sharp a picture is, by its steepest edges.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import combinations, pairwise
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from data_tools.doctor.checks.recording import NO_RATE, Declared, Recording
from data_tools.errors import Fault, UserError
from data_tools.finding import Finding, Rule, Told, not_checked

# The edges that count [quantile], and the pixels over which their contrast is taken.
STEEPEST: Final = 0.99
EDGE: Final = 4
# Below this contrast [of 255] there is no edge to judge by.
MIN_CONTRAST: Final = 12.0
# So many rows and columns are enough.
MAX_LINES: Final = 64


def steepness(frame: npt.NDArray[np.uint8]) -> float:
    """Which share of the contrast of the steepest edges lies within one pixel, 0 to 1; else NaN.

    An ideal edge has 1, and one that a lens blurs has less; noise and light change it little.
    """
    height, width = frame.shape[:2]
    if min(height, width) <= EDGE:
        return float("nan")
    rows = np.linspace(0, height - 1, min(height, MAX_LINES)).astype(int)
    columns = np.linspace(0, width - 1, min(width, MAX_LINES)).astype(int)
    lines = [frame[rows], frame[:, columns].transpose(1, 0, 2)]
    greys = [each.mean(axis=2, dtype=np.float32) for each in lines]
    one, four = (
        float(
            np.quantile(
                np.concatenate([np.abs(g[:, gap:] - g[:, :-gap]).ravel() for g in greys]), STEEPEST
            )
        )
        for gap in (1, EDGE)
    )
    return one / four if four >= MIN_CONTRAST else float("nan")


Frame = npt.NDArray[np.uint8]

MIN_BRIGHTNESS: Final = 5.0
MAX_BRIGHTNESS: Final = 250.0
# A state column that spans less than this over an episode is taken as standing still.
MIN_MOTION: Final = 1e-3
FREEZE_S: Final = 1.0
# Where two of the three frames are equal, so many between them tell whether the camera hung.
NUM_BETWEEN: Final = 3
MIN_KNOWN: Final = 3
# A camera at half the control rate shows each picture twice; beyond that it is much too slow.
MAX_REPEATED: Final = 0.6

UNDECODABLE_FRAME = Rule(
    name="undecodable_frame",
    severity="error",
    sentence="A frame does not decode, is cut off, or has another size than declared.",
    threshold="an image of the declared size",
    remedy="Leave the episode out or record it again.",
)
BLACK_FRAME = Rule(
    name="black_frame",
    severity="warning",
    sentence="A frame is black: the camera was covered or off.",
    threshold=f"a mean brightness of at least {MIN_BRIGHTNESS:g} of 255",
    remedy="Look at the frame; leave the episode out if the camera saw nothing.",
)
WHITE_FRAME = Rule(
    name="white_frame",
    severity="warning",
    sentence="A frame is white: the camera was overexposed.",
    threshold=f"a mean brightness of at most {MAX_BRIGHTNESS:g} of 255",
    remedy="Look at the frame; leave the episode out if the camera saw nothing.",
)
FROZEN_CAMERA = Rule(
    name="frozen_camera",
    severity="warning",
    sentence="A camera shows one picture while the robot moves.",
    threshold=f"a change within {FREEZE_S:g} s of motion",
    remedy="Check the camera's recording.",
)
REPEATED_FRAMES = Rule(
    name="repeated_frames",
    severity="warning",
    sentence="Most pictures of a camera are the one before, again (--deep).",
    threshold=f"at most {MAX_REPEATED:.0%} repeated pictures",
    remedy="The camera is slower than the control rate: record, or resample, at its rate.",
)
DUPLICATED_CAMERA = Rule(
    name="duplicated_camera",
    severity="warning",
    sentence="Two cameras show the same pictures.",
    threshold="two views",
    remedy="Check which camera is plugged in where, or drop one.",
)
RULES = (
    *(UNDECODABLE_FRAME, BLACK_FRAME, WHITE_FRAME, FROZEN_CAMERA, REPEATED_FRAMES),
    DUPLICATED_CAMERA,
)


@dataclass(frozen=True)
class Pictures:
    """What is kept of one camera in one episode, in place of the pictures.

    Attributes:
        camera: its name.
        steps: the steps that were decoded, in order.
        digests: a hash of each.
        brightness: the mean of each, 0 to 255.
        first: the picture at the first of these steps, uint8[y, x, 3]; None when none decodes.
        last: the picture at the episode's last step; None when it does not decode.
        is_complete: whether these are all the episode's steps.
        is_looked_at: whether each frame was decoded, or told that it does not decode.
        steepness: of edges (see `optics`), of the first, the middle and the last that decode.
    """

    camera: str
    steps: tuple[int, ...]
    digests: tuple[bytes, ...]
    brightness: tuple[float, ...]
    first: Frame | None
    last: Frame | None
    is_complete: bool
    is_looked_at: bool
    steepness: tuple[float, ...]

    @property
    def ends(self) -> tuple[bytes, bytes, bytes]:
        """The digests of the first, the middle and the last step that decode, of at least one."""
        middle = bisect_left(self.steps, (self.steps[-1] + 1) // 2)
        return self.digests[0], self.digests[middle], self.digests[-1]


def look(
    recording: Recording, camera: str, *, deep: bool, report: Callable[[Finding], None]
) -> Pictures:
    """Decodes a camera's pictures, one at a time; those that do not decode are reported.

    Args:
        recording: of which episode.
        camera: name of the camera.
        deep: whether to decode every frame, and not the first, the middle and the last alone, with
            a few between two of these that are equal.
        report: takes the findings.
    """
    length = recording.num_steps
    few = sorted({0, length // 2, length - 1})
    steep: list[float] = []
    told = _decoded(recording, camera, few, report, lambda frame: steep.append(steepness(frame)))
    if deep:
        others = [step for step in range(length) if step not in few]
        told |= _decoded(recording, camera, others, report)
    for start, end in pairwise(few) if not deep else ():
        if start in told and end in told and told[start].digest == told[end].digest:
            between = np.linspace(start, end, NUM_BETWEEN + 2).astype(int)
            more = sorted({*between.tolist()} - {start, end})
            told |= _decoded(recording, camera, more, report)
    steps = tuple(sorted(told))
    looks = [told[step] for step in steps]
    return Pictures(
        camera=camera,
        steps=steps,
        digests=tuple(each.digest for each in looks),
        brightness=tuple(each.brightness for each in looks),
        first=looks[0].frame if looks else None,
        last=told[length - 1].frame if length - 1 in told else None,
        is_complete=len(told) == length,
        is_looked_at=deep or len(told) == length,
        steepness=tuple(steep),
    )


class _Look(NamedTuple):
    digest: bytes
    brightness: float
    frame: Frame | None


def _decoded(
    recording: Recording,
    camera: str,
    steps: Iterable[int],
    report: Callable[[Finding], None],
    study: Callable[[Frame], None] = lambda frame: None,
) -> dict[int, _Look]:
    """What is kept of these steps' frames that decode; of the first and last the frames."""
    told: dict[int, _Look] = {}
    for step in steps:
        try:
            frame = recording.episode.image(camera, step)
        except UserError as error:
            report(_undecodable(recording.name, camera, step, error))
            continue
        study(frame)
        kept = frame if not told or step == recording.num_steps - 1 else None
        told[step] = _Look(frame_digest(frame), float(frame.mean()), kept)
    return told


def _undecodable(name: str, camera: str, step: int, error: UserError) -> Finding:
    """The finding of a frame, in the words of what was found where it should be."""
    told = ", ".join(each.found if isinstance(each, Fault) else each for each in error.faults)
    return UNDECODABLE_FRAME.found(name, f"camera {camera!r}: {told}", step=step)


def frame_digest(frame: Frame) -> bytes:
    """A hash of the pixels."""
    return blake2b(frame.tobytes(), digest_size=8).digest()


def check_pictures(
    recording: Recording, declared: Declared, seen: Sequence[Pictures]
) -> Iterator[Told]:
    """Pictures that are black, white, frozen, repeated, or another camera's."""
    if not all(pictures.is_looked_at for pictures in seen):
        why = "of each camera only a few frames were decoded, the first, middle and last among them"
        rules = (UNDECODABLE_FRAME, BLACK_FRAME, WHITE_FRAME, REPEATED_FRAMES)
        yield not_checked(recording.name, f"{why} (--deep decodes all)", *rules)
    for pictures in seen:
        yield from _check_brightness(recording, pictures)
        yield from _check_frozen(recording, declared, pictures)
        yield from _check_repeated(recording, pictures)
    for one, other in combinations(seen, 2):
        shared = set(one.steps) & set(other.steps)
        if shared and all(_at(one, step) == _at(other, step) for step in shared):
            value = f"the same pictures from {one.camera!r} and {other.camera!r}"
            yield DUPLICATED_CAMERA.found(recording.name, value)


def _at(pictures: Pictures, step: int) -> bytes:
    return pictures.digests[pictures.steps.index(step)]


def _check_brightness(recording: Recording, pictures: Pictures) -> Iterator[Finding]:
    brightness = np.array(pictures.brightness)
    for rule, is_odd in (
        (BLACK_FRAME, brightness < MIN_BRIGHTNESS),
        (WHITE_FRAME, brightness > MAX_BRIGHTNESS),
    ):
        if is_odd.any():
            first = int(np.argmax(is_odd))
            value = (
                f"camera {pictures.camera!r} with mean brightness {brightness[first]:.1f} "
                f"({is_odd.sum()} of {len(is_odd)} frames looked at)"
            )
            yield rule.found(recording.name, value, step=pictures.steps[first])


def _check_frozen(recording: Recording, declared: Declared, pictures: Pictures) -> Iterator[Told]:
    """The longest time without a change; where few frames are known, in three of them or more."""
    steps, digests = pictures.steps, pictures.digests
    longest = declared.steps(FREEZE_S)
    if longest is None:
        yield not_checked(recording.name, NO_RATE, FROZEN_CAMERA)
    if longest is None or len(steps) < 2:
        return
    runs = _runs(digests)
    first, last = max(runs, key=lambda run: steps[run[1]] - steps[run[0]])
    is_sure = pictures.is_complete or last - first + 1 >= min(MIN_KNOWN, len(steps))
    if steps[last] - steps[first] < longest or not is_sure:
        return
    motion = float(np.ptp(recording.state[steps[first] : steps[last] + 1], axis=0).max())
    if motion > MIN_MOTION:
        value = (
            f"camera {pictures.camera!r} with one picture from step {steps[first]} to "
            f"{steps[last]} while the state moves by {motion:.3g}"
        )
        yield FROZEN_CAMERA.found(recording.name, value, step=steps[first])


def _runs(digests: Sequence[bytes]) -> list[tuple[int, int]]:
    """(first, last) index of each run of equal digests."""
    changes = [i for i in range(1, len(digests)) if digests[i] != digests[i - 1]]
    return list(zip([0, *changes], [*(i - 1 for i in changes), len(digests) - 1], strict=True))


def _check_repeated(recording: Recording, pictures: Pictures) -> Iterator[Finding]:
    if not pictures.is_complete or recording.num_steps < 10:
        return
    moved = (np.abs(np.diff(recording.state, axis=0)) > 0).any(axis=1)
    again = np.array([a == b for a, b in zip(pictures.digests, pictures.digests[1:], strict=False)])
    is_partly = len(set(pictures.digests)) > 1
    share = float(again[moved].mean()) if moved.any() else 0.0
    if is_partly and share > MAX_REPEATED:
        value = f"camera {pictures.camera!r} repeating {share:.0%} of its pictures in motion"
        yield REPEATED_FRAMES.found(recording.name, value)
