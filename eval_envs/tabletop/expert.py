"""The scripted expert: for every state the action that leads on, whatever happened before.

Each expert is a function of what the state shows (gripper, blocks, zone) and of the task. There is
no phase counter and no memory of the last command, so a policy that sees the state can fit it, and
a missed grasp or a block that slipped is just another state to act from.
"""

import numpy as np
import numpy.typing as npt

from eval_envs.tabletop.layout import Array
from eval_envs.tabletop.scene import HIGH, LOW, TableState
from eval_envs.tabletop.tasks import Task, height_above_table, is_on_zone, rests_on
from eval_envs.tabletop.world import MAX_OPENING

MAX_STEP = 0.04
"""Displacement [m] of an action of 1."""
OPEN, CLOSED = -1.0, 1.0

_TRAVEL_HEIGHT = 0.10
_HOVER = 0.03
_ALIGNED = 0.012
_FUNNEL_SLOPE = 1.5
_PUSH_HEIGHT = 0.022
_PUSH_STANDOFF = 0.055
_PUSH_LANE = 0.012
_PUSH_STEP = 0.02


def expert_action(state: TableState, task: Task) -> npt.NDArray[np.float32]:
    """float32[4] in [-1, 1]: dx, dy, dz in units of `MAX_STEP`, and the gripper, -1 open to +1.

    Raises:
        ValueError: a family that the expert does not know.
    """
    match task.family:
        case "reach":
            return _reach(state, task.target)
        case "push":
            return _push(state, task.target)
        case "pick":
            return _pick(state, task.target)
        case "place":
            return _put(state, task.target, np.array([*state.zone, 0.0]), _is_placed(state, task))
        case "stack" if task.base is not None:
            top = state.blocks[task.base] + (0.0, 0.0, state.half_sizes[task.base, 2])
            return _put(state, task.target, top, rests_on(state, task.target, task.base, 0.013))
    raise ValueError(
        f"task: found {task}; expected one the expert knows. Name a family of tasks.py."
    )


def _reach(state: TableState, block: int) -> npt.NDArray[np.float32]:
    top = state.blocks[block] + (0.0, 0.0, state.half_sizes[block, 2] + _HOVER)
    return _approach(state, top, OPEN)


def _pick(state: TableState, block: int) -> npt.NDArray[np.float32]:
    if is_held(state, block):
        return _action(np.array([0.0, 0.0, 1.0]) * MAX_STEP, CLOSED)
    return _grasp(state, block)


def _grasp(state: TableState, block: int) -> npt.NDArray[np.float32]:
    """Open, come from above, and close when the block is between the fingers."""
    goal = _grasp_point(state, block)
    if _is_around(state, block):
        return _action(goal - state.gripper, CLOSED)
    if state.opening < MAX_OPENING - 0.015:  # opening first keeps the fingers off the block
        goal[2] += _HOVER + state.half_sizes[block, 2]
    return _approach(state, goal, OPEN)


def _put(state: TableState, block: int, support: Array, is_done: bool) -> npt.NDArray[np.float32]:
    """Grasp, carry over the support point, lower, and let go."""
    if is_done:
        rise = MAX_STEP if state.opening > MAX_OPENING - 0.02 else 0.0
        return _action(np.array([0.0, 0.0, rise]), OPEN)
    if not is_held(state, block):
        return _grasp(state, block)
    hanging = state.gripper - state.blocks[block]
    goal = support + hanging + (0.0, 0.0, state.half_sizes[block, 2])
    return _approach(state, goal, CLOSED)


def _push(state: TableState, block: int) -> npt.NDArray[np.float32]:
    """Get behind the block with closed fingers, then push it straight to the zone."""
    centre = state.blocks[block, :2]
    way = state.zone - centre
    ahead = way / max(float(np.linalg.norm(way)), 1e-6)
    offset = state.gripper[:2] - centre
    along, aside = float(offset @ ahead), offset - (offset @ ahead) * ahead
    behind = centre - _PUSH_STANDOFF * ahead
    low = state.gripper[2] < _PUSH_HEIGHT + 0.015
    in_lane = -_PUSH_STANDOFF - 0.02 < along < -0.01 and float(np.linalg.norm(aside)) < _PUSH_LANE
    height = _PUSH_HEIGHT - state.gripper[2]
    if low and in_lane:
        return _action(np.array([*(ahead * _PUSH_STEP - aside), height]), CLOSED)
    return _approach(state, np.array([*behind, _PUSH_HEIGHT]), CLOSED)


def _is_placed(state: TableState, task: Task) -> bool:
    well_inside = is_on_zone(state, task.target, margin=0.02)
    return well_inside and height_above_table(state, task.target) < 0.006


def is_held(state: TableState, block: int) -> bool:
    """Whether the block is between the fingers and they touch it."""
    around = np.abs(state.gripper - state.blocks[block]).max() < 0.022
    return bool(around and state.opening < 2 * state.half_sizes[block, :2].max() + 0.006)


def _is_around(state: TableState, block: int) -> bool:
    offset = np.abs(state.gripper - _grasp_point(state, block))
    return bool((offset < _ALIGNED).all())


def _grasp_point(state: TableState, block: int) -> Array:
    point: Array = np.clip(state.blocks[block], LOW, HIGH)
    return point


def _approach(state: TableState, goal: Array, gripper: float) -> npt.NDArray[np.float32]:
    """Towards the goal through a funnel above it: travel high, descend as the goal gets near."""
    distance = float(np.linalg.norm(goal[:2] - state.gripper[:2]))
    above = _FUNNEL_SLOPE * max(distance - _ALIGNED, 0.0)
    height = min(goal[2] + above, max(_TRAVEL_HEIGHT, goal[2]))
    too_low = max(height - state.gripper[2], 0.0)
    sideways = (goal[:2] - state.gripper[:2]) * np.clip(1.0 - (too_low - 0.01) / 0.03, 0.0, 1.0)
    return _action(np.array([*sideways, height - state.gripper[2]]), gripper)


def _action(displacement: Array, gripper: float) -> npt.NDArray[np.float32]:
    """The displacement [m], its horizontal part shortened to one step's reach, as an action."""
    scaled = displacement / MAX_STEP
    scaled[:2] /= max(1.0, float(np.linalg.norm(scaled[:2])))
    return np.append(np.clip(scaled, -1.0, 1.0), gripper).astype(np.float32)
