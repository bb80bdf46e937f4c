"""Checks of what pictures look like between episodes and cameras: turned, recoloured, exchanged.

Nothing in a picture says how it was stored, but an episode that looks like all others only after it
is turned, its red and blue are exchanged, or its cameras are, was stored differently.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt

from data_tools.doctor.checks.collection import MAD_TO_STD
from data_tools.finding import DATASET, Finding, Rule

FloatArray = npt.NDArray[np.float64]
SIDE: Final = 8
MIN_EPISODES: Final = 5
# A turned picture must fit the usual one this much better than the stored one [ratio of distances],
# and the stored one must be this far off [of 255, on average].
MAX_RATIO: Final = 0.5
MIN_DISTANCE: Final = 6.0
# An episode's two cameras are exchanged where both fit the other's usual picture this much better,
# so many deviations from how episodes mostly fit; and where most fit their own better.
MAX_EXCHANGED_RATIO: Final = 0.55
MIN_DEVIATIONS: Final = 5.0
MIN_OWN_SHARE: Final = 0.75
# Overlap (0 to 1) of two cameras' distributions of colours: as stored, and with red as blue.
MAX_OVERLAP: Final = 0.25
MIN_SWAPPED_OVERLAP: Final = 0.55
CHROMA_BINS: Final = 16
# Every n-th pixel is enough for colours.
LARGEST_SIDE: Final = 64
# Grey pixels [difference of the largest and the smallest channel] have no colour to compare.
MIN_CHROMA: Final = 24
MIN_COLOURED: Final = 0.01

SWAPPED_COLORS = Rule(
    name="swapped_colors",
    severity="warning",
    sentence="An episode, or a camera, looks like the others only with red and blue exchanged.",
    threshold="one colour order",
    remedy="Look at the frames (robot-data view); correct color_order for these files.",
)
TURNED_FRAMES = Rule(
    name="turned_frames",
    severity="warning",
    sentence="An episode's pictures look like the others' only when they are turned.",
    threshold="one orientation",
    remedy="Look at the frames (robot-data view); correct orientation for these files.",
)
EXCHANGED_CAMERAS = Rule(
    name="exchanged_cameras",
    severity="error",
    sentence="Two cameras of an episode show each what the other shows in the other episodes.",
    threshold="one view a camera",
    remedy="Look at the frames (robot-data view); exchange the two in these files.",
)
SAME_PICTURES = Rule(
    name="same_pictures",
    severity="warning",
    sentence="Two episodes with different numbers have the same pictures.",
    threshold="pictures of the episode itself",
    remedy="Check which video belongs to which episode.",
)
RULES = (SWAPPED_COLORS, TURNED_FRAMES, EXCHANGED_CAMERAS, SAME_PICTURES)

_TURNS: Final[Mapping[str, Callable[[FloatArray], FloatArray]]] = {
    "flipped vertically": lambda picture: picture[::-1],
    "mirrored": lambda picture: picture[:, ::-1],
    "rotated by 180 degrees": lambda picture: picture[::-1, ::-1],
}


def thumbnail(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """uint8[8, 8, 3], the means of 8 x 8 fields of uint8[y, x, 3]."""
    rows = np.linspace(0, frame.shape[0], SIDE + 1).astype(int)[:-1]
    columns = np.linspace(0, frame.shape[1], SIDE + 1).astype(int)[:-1]
    sums = np.add.reduceat(np.add.reduceat(frame, rows, 0, np.float64), columns, 1)
    ones = np.ones(frame.shape[:2])
    counts = np.add.reduceat(np.add.reduceat(ones, rows, 0), columns, 1)
    return (sums / counts[..., None]).astype(np.uint8)


def check_odd_episodes(
    camera: str, thumbnails: Mapping[str, npt.NDArray[np.uint8]]
) -> Iterator[Finding]:
    """Episodes whose first picture fits the usual one only when it is turned or recoloured.

    Args:
        camera: its name.
        thumbnails: episode name -> `thumbnail` of its first frame.
    """
    if len(thumbnails) < MIN_EPISODES or len({each.shape for each in thumbnails.values()}) > 1:
        return
    stack = np.array(list(thumbnails.values()), dtype=np.float64)
    usual = np.median(stack, axis=0)
    for name, picture in zip(thumbnails, stack, strict=True):
        distance = _distance(picture, usual)
        if distance < MIN_DISTANCE:
            continue
        told = f"camera {camera!r}: {distance:.0f} grey levels from the usual picture, and "
        swapped = _distance(picture[..., ::-1], usual)
        if swapped < MAX_RATIO * distance:
            value = f"{told}{swapped:.0f} with red and blue exchanged"
            yield SWAPPED_COLORS.found(name, value)
            continue
        turned = {turn: _distance(apply(picture), usual) for turn, apply in _TURNS.items()}
        best = min(turned, key=lambda turn: turned[turn])
        if turned[best] < MAX_RATIO * distance:
            yield TURNED_FRAMES.found(name, f"{told}{turned[best]:.0f} when {best}")


def check_exchanged(
    thumbnails: Mapping[str, Mapping[str, npt.NDArray[np.uint8]]],
) -> Iterator[Finding]:
    """Episodes in which two cameras were plugged in, or named, the other way round.

    Nothing is said of cameras that look alike, and of scenes that vary more than cameras differ.

    Args:
        thumbnails: camera name -> episode name -> `thumbnail` of its first frame.
    """
    for one, other in combinations(thumbnails, 2):
        episodes = [name for name in thumbnails[one] if name in thumbnails[other]]
        if len(episodes) < MIN_EPISODES:
            continue
        stacks = [
            np.array([thumbnails[camera][name] for name in episodes], dtype=np.float64)
            for camera in (one, other)
        ]
        for index in np.flatnonzero(_are_exchanged(*stacks)):
            value = f"cameras {one!r} and {other!r}: each nearer to the other's usual picture"
            yield EXCHANGED_CAMERAS.found(episodes[index], value)


def _are_exchanged(one: FloatArray, other: FloatArray) -> npt.NDArray[np.bool_]:
    """bool[e] of two cameras' thumbnails, float64[e, 8, 8, 3]."""
    usual = [np.median(stack, axis=0) for stack in (one, other)]
    fits = [[np.abs(stack - each).mean(axis=(1, 2, 3)) for each in usual] for stack in (one, other)]
    own, crossed = fits[0][0] + fits[1][1], fits[0][1] + fits[1][0]
    # one grey level more on either side: what is smaller is rounding
    misfit = np.log((own + 1) / (crossed + 1))
    middle = np.median(misfit)
    deviation = MAD_TO_STD * np.median(np.abs(misfit - middle))
    if np.mean(misfit < 0) < MIN_OWN_SHARE:
        return np.zeros(len(one), dtype=bool)
    # the one as well as the other: a scene of its own may bring one camera nearer by chance
    is_nearer = (fits[0][1] < fits[0][0]) & (fits[1][0] < fits[1][1])
    is_odd = misfit - middle > MIN_DEVIATIONS * deviation
    is_far = (own / 2 >= MIN_DISTANCE) & (misfit > -np.log(MAX_EXCHANGED_RATIO))
    are_exchanged: npt.NDArray[np.bool_] = is_nearer & is_odd & is_far
    return are_exchanged


def _distance(one: FloatArray, other: FloatArray) -> float:
    return float(np.abs(one - other).mean())


def chroma(frame: npt.NDArray[np.uint8]) -> FloatArray:
    """float64[16, 16]: how often a share of red and a share of blue meet, over coloured pixels."""
    strides = [max(1, side // LARGEST_SIDE) for side in frame.shape[:2]]
    pixels = frame[:: strides[0], :: strides[1]].reshape(-1, 3).astype(np.float64)
    num_pixels = len(pixels)
    pixels = pixels[np.ptp(pixels, axis=1) >= MIN_CHROMA]
    total = pixels.sum(axis=1, keepdims=True)
    shares = (pixels / total)[:, [0, 2]]
    counts, *_ = np.histogram2d(
        shares[:, 0], shares[:, 1], bins=CHROMA_BINS, range=[[0, 1], [0, 1]]
    )
    return counts / num_pixels


def check_cameras(colors: Mapping[str, FloatArray]) -> Iterator[Finding]:
    """Cameras of one scene of which one shows red where the other shows blue.

    Args:
        colors: camera name -> mean of `chroma` over all episodes.
    """
    names = list(colors)
    for i, name in enumerate(names):
        for other in names[i + 1 :]:
            one, two = colors[name], colors[other]
            if min(one.sum(), two.sum()) < MIN_COLOURED:
                continue
            one, two = one / one.sum(), two / two.sum()
            stored, swapped = (float(np.minimum(one, each).sum()) for each in (two, two.T))
            if stored < MAX_OVERLAP and swapped > MIN_SWAPPED_OVERLAP:
                value = (
                    f"cameras {name!r} and {other!r} share {stored:.0%} of their colours, and "
                    f"{swapped:.0%} with red and blue exchanged in one"
                )
                yield SWAPPED_COLORS.found(DATASET, value)


def check_same_pictures(
    pictures: Sequence[tuple[str, bytes, tuple[bytes, ...]]],
) -> Iterator[Finding]:
    """Episodes whose first, middle and last pictures are those of another episode.

    Args:
        pictures: of each episode its name, a hash of its numbers, and hashes of its pictures.
    """
    first_with: dict[tuple[bytes, ...], tuple[str, bytes]] = {}
    for name, numbers, digests in pictures:
        if len(set(digests)) < 2:
            continue  # a still camera is told of elsewhere
        other, others_numbers = first_with.setdefault(digests, (name, numbers))
        if other != name and others_numbers != numbers:
            yield SAME_PICTURES.found(name, f"the pictures of {other}")
