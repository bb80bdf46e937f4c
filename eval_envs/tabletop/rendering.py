"""Pixels of a MuJoCo scene, off screen.

This module is the one place that chooses how OpenGL is reached, and it only fills in what the user
left unset: where neither MUJOCO_GL nor a display is set, it asks MuJoCo for EGL, which also works
on a machine without a screen or a graphics card; and it tells Mesa's software renderer to use the
calling thread (LP_NUM_THREADS=0), which makes small images twice as fast. Import MuJoCo from here.
"""

import atexit
import os
import sys
import weakref

import numpy as np
import numpy.typing as npt

from data_tools.errors import UserError

_NO_GL = (
    "OpenGL: found no usable context (MUJOCO_GL={backend!r}: {error}); "
    "expected one for off-screen rendering. "
    "Run: apt-get install libegl1 libgl1-mesa-dri libopengl0"
)

if (
    sys.platform == "linux"
    and not os.environ.get("DISPLAY")
    and not os.environ.get("WAYLAND_DISPLAY")
):
    os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("LP_NUM_THREADS", "0")

try:
    import mujoco
except (ImportError, AttributeError, RuntimeError) as error:
    raise UserError(_NO_GL.format(backend=os.environ.get("MUJOCO_GL"), error=error)) from error

__all__ = ["PROFILE", "SceneRenderer", "mujoco"]

PROFILE = f"mujoco-{mujoco.__version__} fast"
"""What makes the pixels: the MuJoCo release, without multisampling, shadows and reflections."""


class SceneRenderer:
    """Draws the named cameras of one model, with the fast profile of `PROFILE`.

    Holds one OpenGL context, made at the first frame; `close` frees it. Images up to `max_size`
    pixels a side.
    """

    def __init__(self, model: mujoco.MjModel, max_size: int) -> None:
        model.vis.quality.offsamples = 0
        model.vis.global_.offwidth = model.vis.global_.offheight = max_size
        self._model = model
        try:
            self._gl = mujoco.GLContext(max_size, max_size)
            self._gl.make_current()
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        except Exception as error:  # the backends share no exception type
            raise UserError(
                _NO_GL.format(backend=os.environ.get("MUJOCO_GL"), error=error)
            ) from error
        atexit.register(_close_if_open, weakref.ref(self))  # before MuJoCo ends EGL itself
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=100)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[flag] = False
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED

    def render(
        self, data: mujoco.MjData, camera: str, height: int, width: int
    ) -> npt.NDArray[np.uint8]:
        """uint8[y, x, 3], RGB, upright: the scene as `data` has it, seen by the named camera."""
        self._gl.make_current()
        self._camera.fixedcamid = self._model.camera(camera).id
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(
            self._model, data, self._option, None, self._camera, everything, self._scene
        )
        viewport = mujoco.MjrRect(0, 0, width, height)
        mujoco.mjr_render(viewport, self._scene, self._context)
        pixels = np.empty((height, width, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, viewport, self._context)
        return np.ascontiguousarray(pixels[::-1])  # OpenGL's first row is the bottom one

    def close(self) -> None:
        """Free the OpenGL context; drawing again is an error."""
        if self._gl is not None:
            self._gl.make_current()
            self._context.free()
            self._gl.free()
            self._gl = None


def _close_if_open(renderer: "weakref.ref[SceneRenderer]") -> None:
    alive = renderer()
    if alive is not None:
        alive.close()
