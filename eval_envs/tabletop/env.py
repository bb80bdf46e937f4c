"""`Tabletop-v0`: blocks on a table, a command in words, two cameras."""

import string
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from data_tools.conventions import ActionSpec, CameraSpec, Conventions, GripperSpec, StateSpec
from data_tools.errors import UserError, describe, raise_faults
from eval_envs.tabletop.expert import CLOSED, MAX_STEP, OPEN, expert_action
from eval_envs.tabletop.layout import BASE_COLORS, SHAPES, Layout, sample_layout
from eval_envs.tabletop.rendering import PROFILE
from eval_envs.tabletop.scene import CAMERAS, HIGH, LOW, Scene, TableState
from eval_envs.tabletop.settings import Settings
from eval_envs.tabletop.tasks import FAMILIES, Task, is_success, is_success_any, word
from eval_envs.tabletop.world import CONTROL_HZ, MAX_OPENING

_RENDER_SIZE = 240
_CHARSET = string.ascii_letters + string.digits + string.punctuation + " "
_MARGIN = 0.05
"""How far [m] the gripper may be carried beyond the workspace, and blocks may press the fingers."""


class TabletopEnv(gymnasium.Env[dict[str, Any], npt.NDArray[np.float32]]):
    """A gripper above a table with coloured blocks and a white zone; every episode is a sentence.

    Observation: `images` (camera name -> uint8[y, x, 3]), `state` float32[4] (grasp point x, y, z
    and finger opening, metres) and `instruction`. Action: float32[4] in [-1, 1]: displacement along
    x, y, z in units of 4 cm from the measured position, and the gripper from -1 (open) to +1
    (closed); 10 control steps a second. Reward: 1 when the commanded goal is reached, else 0.

    `info` at every step: `is_success` (the commanded block meets the goal now), `success_any` (some
    block has met it at some step so far), `family`, `target` (colour and shape of the commanded
    block), `others` (of the blocks that the sentence does not mention) and `elapsed_steps`.

    Args:
        task: reach, push, pick, place or stack; several joined by '+' or in a sequence are drawn
            from anew every episode.
        image_size: pixels a side, or (height, width); 8 to 96.
        cameras: which of 'front' and 'wrist' to render, in this order.
        colors: colours a commanded block may have.
        scene_colors: colours of the blocks around it; every block has another colour.
        shapes: shapes the blocks are drawn from.
        num_blocks: blocks on the table, 1 to 4.
        terminate_on_success: end the episode when the goal is reached.
        instruction: a sentence that replaces every episode's own.
        render_mode: 'rgb_array' for `render()` at 240 pixels.

    Raises:
        UserError: every argument that cannot be honoured.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": int(CONTROL_HZ)}  # noqa: RUF012

    def __init__(
        self,
        task: str | Sequence[str] = "pick",
        *,
        image_size: int | tuple[int, int] = 64,
        cameras: Sequence[str] = CAMERAS,
        colors: Sequence[str] = BASE_COLORS,
        scene_colors: Sequence[str] = BASE_COLORS,
        shapes: Sequence[str] = SHAPES,
        num_blocks: int = 3,
        terminate_on_success: bool = True,
        instruction: str | None = None,
        render_mode: str | None = None,
    ) -> None:
        self._settings = Settings(
            families=tuple(task.split("+")) if isinstance(task, str) else tuple(task),
            image_size=(image_size, image_size) if isinstance(image_size, int) else image_size,
            cameras=tuple(cameras),
            colors=tuple(colors),
            scene_colors=tuple(scene_colors),
            shapes=tuple(shapes),
            num_blocks=num_blocks,
            terminate_on_success=terminate_on_success,
            instruction=instruction,
            render_mode=render_mode,
        )
        faults = self._settings.faults()
        raise_faults(faults)
        self.render_mode = render_mode
        self.conventions = _conventions(self._settings)
        self.max_episode_steps = max(FAMILIES[name].max_steps for name in self._settings.families)
        self.observation_space = _observation_space(self._settings)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
        self._scene = Scene()
        self._layout: Layout | None = None

    @property
    def task(self) -> Task:
        """The task of the running episode."""
        return self._task

    @property
    def table_state(self) -> TableState:
        """Where everything is now; what the expert looks at, not part of the observation."""
        return self._scene.state()

    def expert_action(self) -> npt.NDArray[np.float32]:
        """float32[4], the scripted expert's action at this moment."""
        return expert_action(self.table_state, self._task)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The first observation of an episode; with a seed, a function of the seed alone."""
        super().reset(seed=seed, options=options)
        random, settings = self.np_random, self._settings
        family = settings.families[int(random.integers(len(settings.families)))]
        order = [int(slot) for slot in random.permutation(settings.num_blocks)]
        self._task = Task(family, order[0], order[-1] if FAMILIES[family].needs_base else None)
        self._layout = sample_layout(random, self._draw_colors(order[0]), settings.shapes)
        self._names = [f"{block.color} {block.shape}" for block in self._layout.blocks]
        self._instruction = settings.instruction or word(self._task, self._names, random)
        self._scene.reset(self._layout)
        self._steps = 0
        self._rest_heights = self.table_state.blocks[:, 2]
        self._highest = np.zeros(settings.num_blocks)
        self._success_any = False
        return self.observe(), self._judge()

    def step(
        self, action: npt.NDArray[np.float32]
    ) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One control step and the observation after it."""
        reward, terminated, truncated, info = self.advance(action)
        return self.observe(), reward, terminated, truncated, info

    def advance(self, action: npt.NDArray[np.float32]) -> tuple[float, bool, bool, dict[str, Any]]:
        """One control step without rendering: reward, terminated, truncated, info.

        Raises:
            UserError: an action that is not four finite numbers.
            ResetNeeded: no episode has begun.
        """
        if self._layout is None:
            raise gymnasium.error.ResetNeeded(
                "Tabletop-v0: found a step before any episode; expected a reset. Call reset()."
            )
        command = _clipped(action)
        opening = MAX_OPENING * (CLOSED - command[3]) / (CLOSED - OPEN)
        self._scene.move(command[:3] * MAX_STEP, opening)
        self._steps += 1
        info = self._judge()
        terminated = info["is_success"] and self._settings.terminate_on_success
        is_late = self._steps >= FAMILIES[self._task.family].max_steps
        return float(info["is_success"]), terminated, is_late and not terminated, info

    def observe(self) -> dict[str, Any]:
        """The observation of this moment, images rendered now."""
        state = self.table_state
        height, width = self._settings.image_size
        return {
            "images": {
                name: self._scene.render(name, height, width) for name in self._settings.cameras
            },
            "state": np.array([*state.gripper, state.opening], np.float32),
            "instruction": self._instruction,
        }

    def render(self) -> npt.NDArray[np.uint8] | None:
        """uint8[240, 240, 3], the front camera; None without a render mode."""
        if self.render_mode is None:
            return None
        return self._scene.render("front", _RENDER_SIZE, _RENDER_SIZE)

    def close(self) -> None:
        """Free the renderer."""
        self._scene.close()

    def _judge(self) -> dict[str, Any]:
        state, task = self.table_state, self._task
        self._highest = np.maximum(self._highest, state.blocks[:, 2] - self._rest_heights)
        self._success_any = self._success_any or is_success_any(task, state, self._highest)
        others = [name for i, name in enumerate(self._names) if i not in (task.target, task.base)]
        return {
            "is_success": is_success(task, state, self._highest),
            "success_any": self._success_any,
            "family": task.family,
            "target": self._names[task.target],
            "others": tuple(others),
            "elapsed_steps": self._steps,
        }

    def _draw_colors(self, target: int) -> list[str]:
        random, settings = self.np_random, self._settings
        commanded = settings.colors[int(random.integers(len(settings.colors)))]
        others = [color for color in settings.scene_colors if color != commanded]
        drawn = [others[i] for i in random.permutation(len(others))[: settings.num_blocks - 1]]
        return [*drawn[:target], commanded, *drawn[target:]]


def _clipped(action: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    command = np.asarray(action, np.float64)
    if command.shape != (4,) or not np.isfinite(command).all():
        remedy = "Give dx, dy, dz and the gripper, each in [-1, 1]."
        raise UserError(describe("action", f"{command.tolist()}", "4 finite numbers", remedy))
    return np.clip(command, -1.0, 1.0)


def _observation_space(settings: Settings) -> gymnasium.spaces.Dict:
    image = gymnasium.spaces.Box(0, 255, (*settings.image_size, 3), np.uint8)
    low = np.array([*(LOW - _MARGIN), -_MARGIN], np.float32)
    high = np.array([*(HIGH + _MARGIN), MAX_OPENING + _MARGIN], np.float32)
    return gymnasium.spaces.Dict(
        {
            "images": gymnasium.spaces.Dict({name: image for name in settings.cameras}),
            "state": gymnasium.spaces.Box(low, high, dtype=np.float32),
            "instruction": gymnasium.spaces.Text(max_length=500, charset=_CHARSET),
        }
    )


def _conventions(settings: Settings) -> Conventions:
    height, width = settings.image_size
    return Conventions(
        cameras=tuple(
            CameraSpec(name=name, height=height, width=width, source=PROFILE)
            for name in settings.cameras
        ),
        state=StateSpec(
            names=("gripper_x", "gripper_y", "gripper_z", "gripper_opening"),
            units=("m",) * 4,
            frame="table",
        ),
        action=ActionSpec(
            names=("delta_x", "delta_y", "delta_z", "gripper"),
            units=(f"{MAX_STEP} m",) * 3 + ("1",),
            references=("delta", "delta", "delta", "absolute"),
            low=(-1.0,) * 4,
            high=(1.0,) * 4,
            frame="table",
            grippers=(GripperSpec(column="gripper", open_value=OPEN, closed_value=CLOSED),),
        ),
        control_hz=CONTROL_HZ,
    )
