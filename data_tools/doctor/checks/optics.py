"""Checks of one camera against itself in other episodes: out of focus, or moved.

Neither shows in one picture: a soft picture may be a soft scene, and every view is a view. But an
episode whose edges are half as sharp as those of the others in one scene was filmed out of focus,
and pictures that all fit the earlier ones only when they are shifted, all by one way, are a moved
camera's.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from data_tools.doctor.checks.collection import MAD_TO_STD
from data_tools.doctor.checks.looks import thumbnail
from data_tools.doctor.checks.pictures import Pictures
from data_tools.doctor.checks.recording import Recording
from data_tools.finding import DATASET, Rule, Told, not_checked

Frame = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.floating]

# Pictures of so many episodes are kept.
MAX_EPISODES: Final = 2_000
MIN_EPISODES: Final = 5
# An episode is out of focus where its edges are this much less steep than is usual, and so many
# deviations; and where it shows the usual scene, whose means over fields no blur changes.
MAX_STEEPNESS: Final = 0.66
MIN_DEVIATIONS: Final = 4.0
MAX_SCENE_DISTANCE: Final = 16.0

# The longer side of what is kept of a picture to see whether the camera was moved.
SIDE: Final = 64
# Episodes before and after a move that must agree on it.
WINDOW: Final = 5
MIN_WINDOW: Final = 3
# A move is at least, and at most, so far [of the longer side].
MIN_MOVE: Final = 0.025
MAX_MOVE: Final = 0.3
# How well [correlation] pictures fit once they are shifted back, and which part of the misfit goes.
MIN_FIT: Final = 0.5
MAX_REMAINING: Final = 0.6
# A camera at the hand sees another view where the robot starts elsewhere: so many deviations of
# where it usually starts, and more than this [of any unit].
MAX_START_DEVIATIONS: Final = 3.0
MIN_START: Final = 0.02
# How far [pixels of what is kept] single episodes may disagree about the move.
TOLERANCE: Final = 1.5

BLURRED_CAMERA = Rule(
    name="blurred_camera",
    severity="warning",
    sentence="A camera is out of focus in an episode: its edges are softer than in the others.",
    threshold=f"edges at least {MAX_STEEPNESS:.0%} as steep as is usual in this scene",
    remedy="Look at the frames (robot-data view); clean or focus the lens, leave the episode out.",
)
MOVED_CAMERA = Rule(
    name="moved_camera",
    severity="warning",
    sentence="A camera was moved: from this episode on its pictures fit the earlier ones shifted.",
    threshold=f"one view, to {MIN_MOVE:.1%} of the longer side",
    remedy="Look at the frames before and after; if the policy is to run with one view, record "
    "that, or leave the others out.",
)
RULES = (BLURRED_CAMERA, MOVED_CAMERA)


class Outlook(NamedTuple):
    """What is kept of a camera in one episode.

    Attributes:
        steepness: of the steepest edges, 0 to 1, in the first picture, and in the sharpest of
            those looked at; NaN where there is no edge.
        scene: uint8[8, 8, 3], means of fields of the first picture.
        small: uint8[y, x], the first picture in grey, 64 pixels on its longer side.
        start: float64[s], the robot's state in it.
    """

    steepness: tuple[float, float]
    scene: Frame
    small: Frame
    start: npt.NDArray[np.float64]


class Outlooks:
    """Keeps what each camera saw in each episode, of 2,000 episodes evenly spread at most.

    Args:
        num_episodes: of the dataset.
    """

    def __init__(self, num_episodes: int) -> None:
        self._share = max(1, num_episodes // MAX_EPISODES)
        self._num_seen = 0
        self._cameras: dict[str, dict[str, Outlook]] = {}

    def add(self, recording: Recording, seen: Sequence[Pictures]) -> None:
        """Take down what the cameras of the next episode saw."""
        self._num_seen += 1
        if self._num_seen % self._share:
            return
        for each in seen:
            if each.first is not None:
                known = [steep for steep in each.steepness if not np.isnan(steep)]
                outlook = Outlook(
                    (each.steepness[0], max(known, default=float("nan"))),
                    thumbnail(each.first),
                    _small(each.first),
                    recording.state[0],
                )
                self._cameras.setdefault(each.camera, {})[recording.name] = outlook

    def check(self) -> Iterator[Told]:
        """Cameras that are out of focus in an episode, or were moved between two."""
        if self._share > 1:
            why = f"of more than {MAX_EPISODES} episodes one in {self._share} is compared"
            yield not_checked(DATASET, why, *RULES)
        for camera, outlooks in self._cameras.items():
            if len({each.small.shape for each in outlooks.values()}) > 1:
                why = "its pictures differ in size"
                yield not_checked(f"camera {camera!r}", why, *RULES)
                continue
            yield from check_focus(camera, outlooks)
            yield from check_moves(camera, outlooks)


def _small(frame: Frame) -> Frame:
    factor = max(1.0, max(frame.shape[:2]) / SIDE)
    shape = [max(1, round(side / factor)) for side in frame.shape[:2]]
    rows, columns = (
        np.linspace(0, side, count + 1).astype(int)[:-1]
        for side, count in zip(frame.shape[:2], shape, strict=True)
    )
    grey = frame.mean(axis=2, dtype=np.float32)
    sums = np.add.reduceat(np.add.reduceat(grey, rows, 0), columns, 1)
    counts = np.outer(
        *(np.diff([*at, side]) for at, side in zip((rows, columns), frame.shape[:2], strict=True))
    )
    return (sums / counts).astype(np.uint8)


def check_focus(camera: str, outlooks: Mapping[str, Outlook]) -> Iterator[Told]:
    """Episodes in which a camera shows the usual scene with much softer edges.

    Args:
        camera: its name.
        outlooks: episode name -> what was kept of it.
    """
    # an episode that is cut off has other views than the others, but for the first; and a picture
    # may be smeared by motion, but not the sharpest
    steep = np.log([each.steepness for each in outlooks.values()])
    known = ~np.isnan(steep).any(axis=1)
    if known.sum() < MIN_EPISODES:
        why = f"fewer than {MIN_EPISODES} episodes show edges to compare"
        yield not_checked(f"camera {camera!r}", why, BLURRED_CAMERA)
        return
    middle = np.median(steep[known], axis=0)
    deviation = MAD_TO_STD * np.median(np.abs(steep[known] - middle), axis=0)
    limit = middle - np.maximum(-np.log(MAX_STEEPNESS), MIN_DEVIATIONS * deviation)
    usual = np.median([each.scene for each in outlooks.values()], axis=0)
    for (name, outlook), values in zip(outlooks.items(), steep, strict=True):
        distance = float(np.abs(outlook.scene - usual).mean())
        # written so that no edge is soft, too
        if distance < MAX_SCENE_DISTANCE and not (values >= limit).any():
            share = float(np.exp(values[1] - middle[1]))
            edges = "no edge" if np.isnan(share) else f"edges {share:.0%} as steep as usual"
            yield BLURRED_CAMERA.found(name, f"camera {camera!r} with {edges}")


class _Fit(NamedTuple):
    """How a picture fits another: correlation as it is, at best, and the shift (y, x) for it."""

    still: float
    best: float
    shift: tuple[int, int]


def check_moves(camera: str, outlooks: Mapping[str, Outlook]) -> Iterator[Told]:
    """The episodes from which on a camera sees the scene from elsewhere.

    Args:
        camera: its name.
        outlooks: episode name -> what was kept of it, in the order of the dataset.
    """
    names = list(outlooks)
    if len(names) < 2 * MIN_WINDOW:
        why = f"fewer than {2 * MIN_WINDOW} episodes"
        yield not_checked(f"camera {camera!r}", why, MOVED_CAMERA)
        return
    edges = [_edges(each.small) for each in outlooks.values()]
    starts = [each.start for each in outlooks.values()]
    found = {
        at: fit
        for at in range(MIN_WINDOW, len(edges) - MIN_WINDOW + 1)
        if _start_alike(starts, at) and (fit := _moved_at(edges, at)) is not None
    }
    for at, fit in found.items():
        others = [
            found[each].still for each in range(at - WINDOW, at + WINDOW + 1) if each in found
        ]
        if fit.still == min(others):
            share = np.hypot(*fit.shift) / max(edges[0].shape)
            value = (
                f"camera {camera!r} shifted by {share:.0%} of the longer side against the episodes "
                f"before it (correlation {fit.best:.2f}, and {fit.still:.2f} as it is)"
            )
            yield MOVED_CAMERA.found(names[at], value)


def _start_alike(starts: Sequence[npt.NDArray[np.float64]], at: int) -> bool:
    """Whether the robot starts from this episode on where it started before."""
    sides = [np.array(starts[max(0, at - WINDOW) : at]), np.array(starts[at : at + WINDOW])]
    gap = np.abs(np.median(sides[0], axis=0) - np.median(sides[1], axis=0))
    spread = np.maximum(sides[0].std(axis=0), sides[1].std(axis=0))
    return bool((gap <= np.maximum(MIN_START, MAX_START_DEVIATIONS * spread)).all())


def _moved_at(edges: Sequence[FloatArray], at: int) -> _Fit | None:
    """How the pictures from here on fit those before, if the camera was moved in between."""
    before, after = edges[max(0, at - WINDOW) : at], edges[at : at + WINDOW]
    fit = _fit(np.median(before, axis=0), np.median(after, axis=0))
    if not _is_move(fit, max(edges[0].shape)):
        return None
    for side, others, sign in ((before, after, 1), (after, before, -1)):
        usual = np.median(others, axis=0)
        for index, picture in enumerate(side):
            own = np.median([*side[:index], *side[index + 1 :]], axis=0)
            stays, moves = _fit(own, picture), _fit(usual, picture)
            wanted = -sign * np.array(fit.shift)
            if np.abs(np.array(stays.shift)).max() > TOLERANCE or stays.still <= moves.still:
                return None
            if np.abs(np.array(moves.shift) - wanted).max() > 2 * TOLERANCE:
                return None
    return fit


def _is_move(fit: _Fit, side: int) -> bool:
    is_far = np.hypot(*fit.shift) >= MIN_MOVE * side
    is_better = 1 - fit.best < MAX_REMAINING * (1 - fit.still)
    return bool(is_far and fit.best > MIN_FIT and is_better)


def _edges(small: Frame) -> FloatArray:
    """float32[y, x]: how much grey changes about each pixel; light changes it by a factor."""
    down, right = np.gradient(small.astype(np.float32))
    return np.hypot(down, right).astype(np.float32)


def _fit(one: FloatArray, other: FloatArray) -> _Fit:
    """Correlations of `other`, moved back by each shift, with `one`, over what both show.

    All shifts at once by Fourier transforms (Padfield 2012).
    """
    height, width = one.shape
    shape = (2 * height, 2 * width)
    ones = np.fft.rfft2(np.ones_like(one), shape)
    first, second, squares_1, squares_2 = (
        np.fft.rfft2(each, shape) for each in (one, other, one**2, other**2)
    )

    def over(left: npt.NDArray[np.complex128], right: npt.NDArray[np.complex128]) -> FloatArray:
        return np.fft.irfft2(np.conj(left) * right, shape)

    counts = np.maximum(over(ones, ones), 1)
    sums_1, sums_2 = over(first, ones), over(ones, second)
    shared = over(first, second) - sums_1 * sums_2 / counts
    spread_1 = over(squares_1, ones) - sums_1**2 / counts
    spread_2 = over(ones, squares_2) - sums_2**2 / counts
    correlation = shared / np.sqrt(np.maximum(spread_1 * spread_2, 1e-6))
    reach = int(MAX_MOVE * max(height, width))
    downs, rights = (
        np.arange(-min(reach, side // 2), min(reach, side // 2) + 1) for side in (height, width)
    )
    table = correlation[np.ix_(downs, rights)]
    down, right = np.unravel_index(int(np.argmax(table)), table.shape)
    return _Fit(
        float(correlation[0, 0]), float(table[down, right]), (int(downs[down]), int(rights[right]))
    )
