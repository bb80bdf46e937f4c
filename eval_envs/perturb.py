"""Controls: what a policy does when it cannot see, or is told of another object.

A policy that reaches the goal without images, or the commanded object when another one was named,
did not learn what its success rate seems to say. Wrap these around `ChunkStep`, not inside it.
"""

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from data_tools.errors import UserError, describe

_GREY = 127


class BlankImages(
    gymnasium.ObservationWrapper[dict[str, Any], npt.NDArray[np.float32], dict[str, Any]]
):
    """The same environment with every image uniformly grey."""

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        """The observation with blank images."""
        images = {name: np.full_like(image, _GREY) for name, image in observation["images"].items()}
        return {**observation, "images": images}


class SwappedInstruction(
    gymnasium.Wrapper[
        dict[str, Any], npt.NDArray[np.float32], dict[str, Any], npt.NDArray[np.float32]
    ]
):
    """The same environment, its instruction naming another object than the one the goal is about.

    Needs `info["target"]`, the commanded object's name, and `info["others"]`, names of further
    objects, of which the first is named instead. `is_success` still judges the commanded object: a
    policy that listens scores near zero.
    """

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The first observation, wrongly instructed; UserError when there is no other object."""
        observation, info = self.env.reset(seed=seed, options=options)
        others = info.get("others", ())
        if "target" not in info or not others:
            remedy = "Use an environment that names its objects, with more than one of them."
            raise UserError(
                describe("info['others']", repr(others), "names of objects not commanded", remedy)
            )
        self._commanded, self._named = str(info["target"]), str(others[0])
        return self._swap(observation), info

    def step(
        self, action: npt.NDArray[np.float32]
    ) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        """One step; the observation is wrongly instructed."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._swap(observation), reward, terminated, truncated, info

    def _swap(self, observation: dict[str, Any]) -> dict[str, Any]:
        sentence = observation["instruction"].replace(self._commanded, self._named)
        return {**observation, "instruction": sentence}
