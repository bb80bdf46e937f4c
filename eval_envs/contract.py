"""What an environment declares and returns, and a check that it does.

On top of Gymnasium's interface an environment offers, on `env.unwrapped`:

* `conventions`: the `Conventions` of its cameras, state and actions;
* `max_episode_steps`: control steps after which an episode is cut off, at most;
* observations {"images": {camera: uint8[y, x, 3]}, "state": float32[s], "instruction": str}; one
  without cameras may leave the images out;
* `is_success` in every `info`, and where "some object met the goal, commanded or not" means
  something else, `success_any`, too.

Two optional methods save most of the rendering: `advance(action)` steps without looking and
`observe()` looks. They are what `ChunkStep` uses, and together they must equal `step`.

In an `AsyncVectorEnv` give `context="spawn"` (a forked OpenGL context hangs) and
`shared_memory=False` (Gymnasium 1.4 reads a Text observation from shared memory only once).
"""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.utils.env_checker import check_env as check_gymnasium_env
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker

from data_tools.conventions import Conventions
from data_tools.episode import Observation
from data_tools.errors import UserError, describe, raise_faults

FloatArray = npt.NDArray[np.float32]


@runtime_checkable
class LooksWhenAsked(Protocol):
    """An environment that can step without rendering."""

    def advance(self, action: FloatArray) -> tuple[float, bool, bool, dict[str, Any]]:
        """One control step without an observation: reward, terminated, truncated, info."""

    def observe(self) -> dict[str, Any]:
        """The observation of this moment; must not change the episode."""


def to_observation(observation: Mapping[str, Any]) -> Observation:
    """The vocabulary's Observation from what one environment (not a vector of them) returned."""
    return Observation(
        images=dict(observation.get("images", {})),
        state=observation["state"],
        instruction=str(observation["instruction"]),
    )


def successes(info: Mapping[str, Any]) -> tuple[bool, bool]:
    """`is_success` and `success_any` of one step; the first stands for a missing second.

    Raises:
        UserError: `info` holds no `is_success`.
    """
    if "is_success" not in info:
        remedy = "Report whether the goal is met at reset and at every step."
        raise UserError(describe("info", f"the keys {sorted(info)}", "'is_success'", remedy))
    return bool(info["is_success"]), bool(info.get("success_any", info["is_success"]))


class ChunkStep(gymnasium.Wrapper[dict[str, Any], FloatArray, dict[str, Any], FloatArray]):
    """An environment whose action is a chunk of several; it looks only after the last one.

    The action space is float32[n, a]. `step` executes the rows in order and stops where the episode
    ends; a chunk of fewer rows is taken, too (outside a vector environment, which needs one shape).
    The reward is summed, and `info` is that of the last executed step with `steps_taken`, the
    `rewards` of the steps, `is_success` and `success_any` (at any executed step) and
    `is_success_final` (at the last).

    Put wrappers that change observations outside: with `advance` and `observe` this one bypasses
    what it wraps.

    Args:
        env: the environment whose steps are executed.
        chunk_length: most actions executed between two looks.
        look_at_end: False saves rendering what nobody acts on: where the environment looks when
            asked, the step that ends an episode then returns the observation before that step.

    Raises:
        UserError: chunk_length below 1, or wrappers inside that would be bypassed; in an episode, a
            chunk of another shape or an `info` without `is_success`.
    """

    def __init__(
        self,
        env: gymnasium.Env[dict[str, Any], FloatArray],
        chunk_length: int,
        *,
        look_at_end: bool = True,
    ) -> None:
        super().__init__(env)
        if chunk_length < 1:
            raise UserError(
                describe(
                    "chunk_length",
                    repr(chunk_length),
                    "at least 1",
                    "Give the actions to execute per look.",
                )
            )
        space = env.action_space
        if not isinstance(space, gymnasium.spaces.Box):
            raise UserError(
                describe(
                    "environment, action_space",
                    repr(space),
                    "a Box of the columns its conventions declare",
                    "Choose a continuous environment, or wrap this one.",
                )
            )
        self.action_space = gymnasium.spaces.Box(
            np.tile(space.low, (chunk_length, 1)),
            np.tile(space.high, (chunk_length, 1)),
            dtype=np.float32,
        )
        self._look_at_end = look_at_end
        self._seen: dict[str, Any] = {}
        self._looks_when_asked = isinstance(env.unwrapped, LooksWhenAsked)
        if self._looks_when_asked:
            _require_no_wrappers(env)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The wrapped environment's, with the same keys in `info` as after a step."""
        self._seen, info = self.env.reset(seed=seed, options=options)
        is_success, success_any = successes(info)
        return self._seen, {
            **info,
            "steps_taken": 0,
            "rewards": [],
            "is_success": is_success,
            "is_success_final": is_success,
            "success_any": success_any,
        }

    def step(self, action: FloatArray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Execute float32[m, a], m at most the chunk length, and look once."""
        chunk = np.asarray(action, np.float32)
        length, width = self.action_space.shape or (0, 0)
        if chunk.ndim != 2 or chunk.shape[1] != width or not 1 <= len(chunk) <= length:
            expected = f"1 to {length} rows of {width} columns"
            raise UserError(
                describe(
                    "action chunk",
                    f"shape {chunk.shape}",
                    expected,
                    "Give one row per action, none left out.",
                )
            )
        rewards: list[float] = []
        outcomes = []
        for row in chunk:
            observation, reward, terminated, truncated, info = self._step_once(row)
            rewards.append(reward)
            outcomes.append(successes(info))
            if is_over := terminated or truncated:
                break
        info = {
            **info,
            "steps_taken": len(outcomes),
            "rewards": rewards,
            "is_success": any(is_success for is_success, _ in outcomes),
            "is_success_final": outcomes[-1][0],
            "success_any": any(success_any for _, success_any in outcomes),
        }
        if observation is not None:
            self._seen = observation
        elif self._look_at_end or not is_over:
            self._seen = self.unwrapped.observe()  # type: ignore[attr-defined]
        return self._seen, sum(rewards), terminated, truncated, info

    def _step_once(
        self, action: FloatArray
    ) -> tuple[dict[str, Any] | None, float, bool, bool, dict[str, Any]]:
        if self._looks_when_asked:
            return None, *self.unwrapped.advance(action)  # type: ignore[attr-defined]
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, float(reward), terminated, truncated, info


def check_env(env: gymnasium.Env[dict[str, Any], FloatArray]) -> None:
    """Nothing, when the environment keeps this contract and Gymnasium's; closes it at the end.

    Raises:
        UserError: every fault found, Gymnasium's warnings included.
    """
    faults = [*_declaration_faults(env)]
    if not faults:
        faults += [*_space_faults(env), *_episode_faults(env)]
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            check_gymnasium_env(env.unwrapped)
        faults += [f"Gymnasium's check_env warns: {warning.message}" for warning in caught]
    except Exception as error:  # Gymnasium reports through assertions and many other types
        faults.append(f"Gymnasium's check_env: {type(error).__name__}: {error}")
    raise_faults(faults)


def _require_no_wrappers(env: gymnasium.Env[Any, Any]) -> None:
    inside = []
    while isinstance(env, gymnasium.Wrapper):
        if not isinstance(env, OrderEnforcing | PassiveEnvChecker):
            inside.append(type(env).__name__)
        env = env.env
    if inside:
        remedy = "Wrap ChunkStep in them, or use the environment's own settings."
        raise UserError(
            describe(
                "ChunkStep", f"{', '.join(inside)} inside", "no wrapper it would bypass", remedy
            )
        )


def _declaration_faults(env: gymnasium.Env[Any, Any]) -> Iterator[str]:
    conventions = getattr(env.unwrapped, "conventions", None)
    if not isinstance(conventions, Conventions):
        remedy = "Declare cameras, state and actions in a data_tools.conventions.Conventions."
        yield describe("env.unwrapped.conventions", repr(conventions), "a Conventions", remedy)
    elif conventions.control_hz is None:
        remedy = "Declare at how many steps per second the environment is controlled."
        where = "env.unwrapped.conventions.control_hz"
        yield describe(where, "unknown (null)", "control steps per second", remedy)
    steps = getattr(env.unwrapped, "max_episode_steps", None)
    if not isinstance(steps, int) or steps < 1:
        remedy = "Declare after how many control steps an episode is truncated."
        yield describe("env.unwrapped.max_episode_steps", repr(steps), "a positive integer", remedy)
    if not isinstance(env.observation_space, gymnasium.spaces.Dict):
        remedy = "Return images, state and instruction in a dictionary."
        yield describe("observation_space", repr(env.observation_space), "a Dict", remedy)


def _space_faults(env: gymnasium.Env[Any, Any]) -> Iterator[str]:
    conventions: Conventions = env.unwrapped.conventions  # type: ignore[attr-defined]
    spaces, action, box = env.observation_space, conventions.action, gymnasium.spaces.Box
    images: dict[str, gymnasium.Space[Any]] = {
        camera.name: box(0, 255, (camera.height, camera.width, 3), np.uint8)
        for camera in conventions.cameras
    }
    low, high = np.array(action.low, np.float32), np.array(action.high, np.float32)
    pairs: list[tuple[str, gymnasium.Space[Any] | None, gymnasium.Space[Any]]] = [
        ("observation_space['images']", _part(spaces, "images"), gymnasium.spaces.Dict(images)),
        ("action_space", env.action_space, box(low, high, dtype=np.float32)),
    ]
    if not images and pairs[0][1] is None:
        del pairs[0]
    for where, found, wanted in pairs:
        if found != wanted:
            yield describe(
                where,
                repr(found),
                f"{wanted!r}, as the conventions declare",
                "Let space and declaration agree.",
            )
    state, width = _part(spaces, "state"), len(conventions.state.names)
    if not isinstance(state, box) or state.shape != (width,) or state.dtype != np.float32:
        remedy = "Let space and declaration agree."
        yield describe(
            "observation_space['state']", repr(state), f"a float32 Box of {width} columns", remedy
        )
    if not isinstance(_part(spaces, "instruction"), gymnasium.spaces.Text):
        remedy = "Put the task's sentence into every observation."
        yield describe(
            "observation_space['instruction']",
            repr(_part(spaces, "instruction")),
            "a Text space",
            remedy,
        )


def _part(space: gymnasium.Space[Any], key: str) -> gymnasium.Space[Any] | None:
    return space.spaces.get(key) if isinstance(space, gymnasium.spaces.Dict) else None


def _episode_faults(env: gymnasium.Env[Any, Any]) -> Iterator[str]:
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(5)]
    first = _play(env, actions, look_always=True)
    for step, (observation, info) in enumerate(first):
        instruction = observation.get("instruction", "") if isinstance(observation, dict) else ""
        if not str(instruction).strip():
            yield describe(
                f"step {step}, instruction",
                repr(instruction),
                "a sentence",
                "Say what is to be done.",
            )
        for key in ("is_success", *({"success_any"} & set(info))):
            if not isinstance(info.get(key), bool | np.bool_):
                remedy = "Report it at reset and at every step."
                yield describe(
                    f"step {step}, info[{key!r}]", repr(info.get(key)), "True or False", remedy
                )
    if not data_equivalence(first, _play(env, actions, look_always=True), exact=True):
        remedy = "Draw everything random from self.np_random and reset all state."
        yield describe(
            "two episodes of seed 7", "different numbers", "the same, bit for bit", remedy
        )
    if isinstance(env.unwrapped, LooksWhenAsked):
        blind = _play(env, actions, look_always=False)
        if not data_equivalence(first[-1], blind[-1], exact=True):
            remedy = "Let step be advance and observe, and let observe change nothing."
            yield describe(
                "advance and observe",
                "another last observation",
                "the one of step, bit for bit",
                remedy,
            )


def _play(
    env: gymnasium.Env[Any, Any], actions: list[Any], look_always: bool
) -> list[tuple[Any, dict[str, Any]]]:
    seen = [env.reset(seed=7)]
    for action in actions:
        if look_always:
            observation, _, terminated, truncated, info = env.step(action)
        else:
            _, terminated, truncated, info = env.unwrapped.advance(action)  # type: ignore[attr-defined]
            observation = None
        seen.append((observation, info))
        if terminated or truncated:
            break
    if not look_always:
        seen[-1] = (env.unwrapped.observe(), seen[-1][1])  # type: ignore[attr-defined]
    return seen
