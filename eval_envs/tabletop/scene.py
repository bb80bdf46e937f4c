"""The physics: a table, blocks, and a gripper that moves along x, y, z; MuJoCo primitives only.

Blocks are grasped by friction between two force-limited fingers. One compiled model serves every
episode: each of its four block bodies carries all three shapes, of which one is switched on; a
block that an episode does not use is parked below the table without weight or contacts.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eval_envs.tabletop.layout import MAX_BLOCKS, SHAPES, Array, Layout
from eval_envs.tabletop.rendering import SceneRenderer, mujoco
from eval_envs.tabletop.world import MAX_OPENING, SUBSTEPS, world_xml

LOW = np.array([-0.2, -0.2, 0.02])
HIGH = np.array([0.2, 0.2, 0.2])
"""Corners of the workspace [m]: where the grasp point between the fingertips may go."""
CAMERAS = ("front", "wrist")
MAX_IMAGE_SIZE = 480

_RGBA = {
    "red": (0.9, 0.08, 0.08, 1),
    "green": (0.1, 0.75, 0.15, 1),
    "blue": (0.12, 0.25, 0.95, 1),
    "yellow": (0.95, 0.85, 0.08, 1),
    "purple": (0.6, 0.12, 0.8, 1),
    "orange": (1.0, 0.45, 0.02, 1),
}


@dataclass(frozen=True)
class TableState:
    """Where everything is, in metres in the table frame; what expert and goals look at.

    Attributes:
        gripper: float64[3], the grasp point, midway between the fingers and 1 cm above their tips.
        opening: distance between the fingers.
        blocks: float64[n, 3], centres of the blocks of this episode.
        half_sizes: float64[n, 3], their half-extents.
        zone: float64[2], centre of the zone.
    """

    gripper: Array
    opening: float
    blocks: Array
    half_sizes: Array
    zone: Array


class Scene:
    """One MuJoCo world with its renderer."""

    def __init__(self) -> None:
        self.model = mujoco.MjModel.from_xml_string(world_xml())
        self.data = mujoco.MjData(self.model)
        self._renderer: SceneRenderer | None = None
        self._count = 0
        self._half_sizes = np.zeros((0, 3))
        self._arm = [self.model.joint(axis).qposadr[0] for axis in "xyz"]
        self._fingers = [
            self.model.joint(f"{side}_finger").qposadr[0] for side in ("left", "right")
        ]
        self._blocks = [self.model.joint(f"block{i}").qposadr[0] for i in range(MAX_BLOCKS)]

    def reset(self, layout: Layout) -> None:
        """Put everything where the layout says, at rest, with an open gripper."""
        mujoco.mj_resetData(self.model, self.data)
        self._count = len(layout.blocks)
        self._half_sizes = np.array([block.half_sizes for block in layout.blocks])
        for slot in range(MAX_BLOCKS):
            self._place_block(slot, layout)
        self.data.mocap_pos[0] = (*layout.zone, 0.0)
        self.data.qpos[self._arm] = layout.gripper
        self.data.qpos[self._fingers] = MAX_OPENING / 2
        self._command(np.array(layout.gripper), MAX_OPENING)
        mujoco.mj_forward(self.model, self.data)

    def move(self, displacement: Array, opening: float) -> None:
        """One control step: to measured position plus displacement [m], and to an opening [m]."""
        target = np.clip(self.data.qpos[self._arm] + displacement, LOW, HIGH)
        self._command(target, opening)
        mujoco.mj_step(self.model, self.data, SUBSTEPS)

    def state(self) -> TableState:
        """A copy of where everything is now."""
        qpos = self.data.qpos
        return TableState(
            gripper=qpos[self._arm].copy(),
            opening=float(qpos[self._fingers].sum()),
            blocks=np.stack(
                [qpos[address : address + 3] for address in self._blocks[: self._count]]
            ),
            half_sizes=self._half_sizes,
            zone=self.data.mocap_pos[0, :2].copy(),
        )

    def render(self, camera: str, height: int, width: int) -> npt.NDArray[np.uint8]:
        """uint8[y, x, 3], RGB, upright, seen by the camera `front` or `wrist`."""
        if self._renderer is None:
            self._renderer = SceneRenderer(self.model, MAX_IMAGE_SIZE)
        mujoco.mj_kinematics(
            self.model, self.data
        )  # mj_forward would change the solver's warm start
        mujoco.mj_comPos(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
        return self._renderer.render(self.data, camera, height, width)

    def close(self) -> None:
        """Free the renderer, if any."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _command(self, target: Array, opening: float) -> None:
        self.data.ctrl[:3] = target
        self.data.ctrl[3:] = opening / 2

    def _place_block(self, slot: int, layout: Layout) -> None:
        address = self._blocks[slot]
        used = slot < len(layout.blocks)
        self.model.body_gravcomp[self.model.body(f"block{slot}").id] = 0.0 if used else 1.0
        for shape in SHAPES:
            geom = self.model.geom(f"block{slot}_{shape}")
            on = used and layout.blocks[slot].shape == shape
            geom.contype[0] = geom.conaffinity[0] = int(on)
            geom.rgba[:] = _RGBA[layout.blocks[slot].color] if on else (0, 0, 0, 0)
        pose = (0.1 * slot, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0)
        if used:
            block = layout.blocks[slot]
            turn = (np.cos(block.yaw / 2), 0.0, 0.0, np.sin(block.yaw / 2))
            pose = (block.x, block.y, block.half_sizes[2], *turn)
        self.data.qpos[address : address + 7] = pose
