"""Where blocks, zone and gripper stand when an episode begins."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

BASE_COLORS = ("red", "green", "blue", "yellow")
HELD_BACK_COLORS = ("purple", "orange")
COLORS = BASE_COLORS + HELD_BACK_COLORS
HALF_SIZES = {
    "cube": (0.020, 0.020, 0.020),
    "cylinder": (0.021, 0.021, 0.020),
    "brick": (0.018, 0.028, 0.016),
}
"""Half-extents [m] along x, y, z of each shape; fingers close along x."""
SHAPES = tuple(HALF_SIZES)
MAX_BLOCKS = 4
ZONE_HALF_SIZE = 0.05

_BLOCK_RANGE = 0.125
_ZONE_RANGE = 0.11
_BLOCK_CLEARANCE = 0.09
_ZONE_CLEARANCE = 0.10
_RUN_UP = 0.07
_CORRIDOR = 0.048
_MAX_YAW_RAD = 0.15


@dataclass(frozen=True)
class Block:
    """A block: colour, shape, position of its centre [m] and turn about the vertical [rad]."""

    color: str
    shape: str
    x: float
    y: float
    yaw: float

    @property
    def half_sizes(self) -> tuple[float, float, float]:
        """Half-extents [m] along x, y, z."""
        return HALF_SIZES[self.shape]


@dataclass(frozen=True)
class Layout:
    """The start of an episode; positions in metres in the table frame (origin mid-table, z up)."""

    blocks: tuple[Block, ...]
    zone: tuple[float, float]
    gripper: tuple[float, float, float]


def sample_layout(
    random: np.random.Generator, colors: Sequence[str], shapes: Sequence[str]
) -> Layout:
    """A random layout, one block of each colour, all graspable and with a free way to the zone.

    The rule is the same for all blocks, whichever is commanded, so a layout says nothing about the
    task.
    """
    count = len(colors)
    while True:
        zone = random.uniform(-_ZONE_RANGE, _ZONE_RANGE, 2)
        centres = random.uniform(-_BLOCK_RANGE, _BLOCK_RANGE, (count, 2))
        if _is_clear(zone, centres):
            break
    yaws = random.uniform(-_MAX_YAW_RAD, _MAX_YAW_RAD, count)
    kinds = random.integers(len(shapes), size=count)
    blocks = tuple(
        Block(color, shapes[kind], float(x), float(y), float(yaw))
        for color, kind, (x, y), yaw in zip(colors, kinds, centres, yaws, strict=True)
    )
    gripper = random.uniform((-0.12, -0.12, 0.11), (0.12, 0.12, 0.17))
    return Layout(
        blocks,
        (float(zone[0]), float(zone[1])),
        (float(gripper[0]), float(gripper[1]), float(gripper[2])),
    )


def _is_clear(zone: Array, centres: Array) -> bool:
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1) + np.eye(len(centres))
    to_zone = np.linalg.norm(centres - zone, axis=-1)
    if apart.min() < _BLOCK_CLEARANCE or to_zone.min() < _ZONE_CLEARANCE:
        return False
    return all(_corridor_is_free(centres, index, zone) for index in range(len(centres)))


def _corridor_is_free(centres: Array, index: int, zone: Array) -> bool:
    way = zone - centres[index]
    length = float(np.linalg.norm(way))
    ahead = way / length
    offsets = np.delete(centres, index, axis=0) - centres[index]
    along = np.clip(offsets @ ahead, -_RUN_UP, length)
    return bool((np.linalg.norm(offsets - along[:, None] * ahead, axis=-1) > _CORRIDOR).all())
