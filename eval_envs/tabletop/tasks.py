"""The task families: how each is worded, when it is reached, and how long it may take."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from eval_envs.tabletop.layout import ZONE_HALF_SIZE, Array
from eval_envs.tabletop.scene import TableState

LIFT_HEIGHT = 0.05
"""Height above the table [m] of the underside of a block that counts as picked up."""
_CARRIED_HEIGHT = 0.04
"""A block that rose this far [m] was carried; one that merely tips over stays below."""


@dataclass(frozen=True)
class Task:
    """A command: the family, the index of its block, and for `stack` that of the block below."""

    family: str
    target: int
    base: int | None = None


@dataclass(frozen=True)
class Family:
    """What tasks of one kind share.

    Attributes:
        sentences: paraphrases; `{block}` is the commanded block, `{base}` the one to stack it on.
        is_reached: (state, highest, block) -> whether that block meets the goal now. `highest` is
            float64[n], how far each block has been above its resting height so far in the episode
            [m].
        max_steps: control steps after which an episode is truncated.
        needs_base: whether a second block is named.
    """

    sentences: tuple[str, ...]
    is_reached: Callable[[TableState, Array, int], bool]
    max_steps: int
    needs_base: bool = False


def is_on_zone(state: TableState, block: int, margin: float = 0.005) -> bool:
    """Whether the block's centre lies over the zone, at least `margin` [m] inside its edge."""
    offset = np.abs(state.blocks[block, :2] - state.zone)
    return bool((offset < ZONE_HALF_SIZE - margin).all())


def height_above_table(state: TableState, block: int) -> float:
    """Height [m] of the block's underside above the table, were it upright."""
    return float(state.blocks[block, 2] - state.half_sizes[block, 2])


def is_released(state: TableState, block: int) -> bool:
    """Whether the fingers are well clear of the block: opened wider than it, or away from it."""
    wider = state.opening > 2 * state.half_sizes[block, :2].max() + 0.012
    away = np.abs(state.gripper - state.blocks[block]).max() > 0.045
    return bool(wider or away)


def rests_on(state: TableState, block: int, base: int, tolerance: float = 0.02) -> bool:
    """Whether the block lies on top of the base: centres within `tolerance` [m], gap under 6 mm."""
    gap = height_above_table(state, block) - (state.blocks[base, 2] + state.half_sizes[base, 2])
    aside = np.linalg.norm(state.blocks[block, :2] - state.blocks[base, :2])
    return bool(aside < tolerance and abs(gap) < 0.006)


def is_hovering(state: TableState, highest: Array, block: int) -> bool:
    """Whether the grasp point is within 2.5 cm of the block sideways and 4.5 cm above its top."""
    aside = np.linalg.norm(state.gripper[:2] - state.blocks[block, :2])
    above = state.gripper[2] - state.blocks[block, 2] - state.half_sizes[block, 2]
    return bool(aside < 0.025 and above < 0.045)


def is_pushed(state: TableState, highest: Array, block: int) -> bool:
    """Whether the block is in the zone and was not carried there."""
    return bool(is_on_zone(state, block) and highest[block] < _CARRIED_HEIGHT)


def is_picked(state: TableState, highest: Array, block: int) -> bool:
    """Whether the block is up in the air and in the gripper."""
    held = np.abs(state.gripper - state.blocks[block]).max() < 0.03
    return bool(held and height_above_table(state, block) > LIFT_HEIGHT)


def is_placed(state: TableState, highest: Array, block: int) -> bool:
    """Whether the block was lifted and now lies on the zone, released."""
    resting = height_above_table(state, block) < 0.005
    return bool(
        highest[block] > _CARRIED_HEIGHT
        and resting
        and is_on_zone(state, block)
        and is_released(state, block)
    )


def is_stacked(state: TableState, highest: Array, block: int) -> bool:
    """Whether the block lies on any other block, released."""
    others = (base for base in range(len(state.blocks)) if base != block)
    return is_released(state, block) and any(rests_on(state, block, base) for base in others)


FAMILIES = {
    "reach": Family(
        (
            "reach for the {block}",
            "move to the {block}",
            "go to the {block}",
            "move the gripper over the {block}",
            "hover over the {block}",
            "bring the hand to the {block}",
        ),
        is_hovering,
        max_steps=25,
    ),
    "push": Family(
        (
            "push the {block} into the zone",
            "push the {block} onto the white square",
            "slide the {block} to the zone",
            "shove the {block} into the white zone",
            "move the {block} into the zone by pushing it",
            "push the {block} to the white area",
        ),
        is_pushed,
        max_steps=50,
    ),
    "pick": Family(
        (
            "pick up the {block}",
            "lift the {block}",
            "grab the {block} and lift it",
            "take the {block}",
            "pick the {block} up",
            "grasp the {block} and raise it",
        ),
        is_picked,
        max_steps=35,
    ),
    "place": Family(
        (
            "place the {block} on the zone",
            "put the {block} on the white square",
            "pick up the {block} and place it on the zone",
            "set the {block} down on the white zone",
            "carry the {block} to the zone",
            "put the {block} down in the white area",
        ),
        is_placed,
        max_steps=55,
    ),
    "stack": Family(
        (
            "stack the {block} on the {base}",
            "put the {block} on top of the {base}",
            "place the {block} onto the {base}",
            "pick up the {block} and stack it on the {base}",
            "set the {block} down on top of the {base}",
        ),
        is_stacked,
        max_steps=55,
        needs_base=True,
    ),
}


def is_success(task: Task, state: TableState, highest: Array) -> bool:
    """Whether the commanded block meets the goal, on the commanded base if there is one."""
    if task.base is not None and not rests_on(state, task.target, task.base):
        return False
    return FAMILIES[task.family].is_reached(state, highest, task.target)


def is_success_any(task: Task, state: TableState, highest: Array) -> bool:
    """Whether any block at all meets the goal: control without grounding."""
    reached = FAMILIES[task.family].is_reached
    return any(reached(state, highest, block) for block in range(len(state.blocks)))


def word(task: Task, names: Sequence[str], random: np.random.Generator) -> str:
    """The task as one of the family's sentences at random; `names` are those of the blocks."""
    sentences = FAMILIES[task.family].sentences
    base = "" if task.base is None else names[task.base]
    return sentences[int(random.integers(len(sentences)))].format(
        block=names[task.target], base=base
    )
