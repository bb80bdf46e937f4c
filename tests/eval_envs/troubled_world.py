"""A point world in which some episodes go wrong, each in its own way."""

import faulthandler
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from tests.policy_ft.point_world import Point

ENV = "tests.eval_envs.troubled_world:Troubled-v0"


class Troubled(Point):
    """Args: an episode's trouble by its seed, the kind of images, a file for a child's id."""

    def __init__(
        self, trouble: dict[str, str] | None = None, sees: str = "", child: str = ""
    ) -> None:
        super().__init__()
        if child:
            Path(child).write_text(str(subprocess.Popen(["sleep", "3600"]).pid))
        print("a simulator that talks")
        self._troubles, self._sees = trouble or {}, sees
        self._trouble("make")

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self._seed = str(seed)
        self._trouble("reset")
        return super().reset(seed=seed, options=options)

    def step(self, action: np.ndarray) -> Any:
        seen, _, *rest = super().step(action)
        if self._steps == 6:
            self._trouble("step")
        return seen, -float(np.linalg.norm(self._place - self._goal)), *rest

    def close(self) -> None:
        if "close" in self._troubles.values():
            raise RuntimeError("it does not close")

    def _trouble(self, stage: str) -> None:
        kind, _, when = self._troubles.get(getattr(self, "_seed", "make"), "").partition(" in ")
        if when != stage:
            return
        if kind == "raises":
            raise RuntimeError(f"the {stage} of {self!r} failed")
        if kind == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "crashes":
            faulthandler._sigsegv()  # type: ignore[attr-defined]
        if kind == "exits":
            os._exit(3)
        if kind == "hangs":
            time.sleep(3600)

    def _seen(self) -> dict[str, Any]:
        images = {
            "": {},
            "floats": {"float": np.full((2, 2, 3), 0.5)},
            "objects": {"object": np.array([None])},
        }
        return {**super()._seen(), "images": images[self._sees]}


gymnasium.register(id="Troubled-v0", entry_point=Troubled)
