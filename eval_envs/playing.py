"""Playing episodes chunk by chunk, and what comes of each chunk."""

import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from data_tools.conventions import Conventions
from data_tools.episode import Observation
from data_tools.errors import UserError, describe, raise_faults, shown
from eval_envs.contract import ChunkStep, to_observation
from eval_envs.episodes import EpisodeSpec
from eval_envs.making import Environment, make_env

FloatArray = npt.NDArray[np.float32]
Wrapper = Callable[[Environment], Environment]
Stage = Literal["make", "reset", "step"]

_ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
"""Where things lie in memory differs from run to run, and records of the same loss must not."""

_LONGEST_CHUNK = 4096
"""Actions executed between two looks, at most; no policy predicts as many."""


@dataclass(frozen=True)
class Look:
    """What is seen after a reset or after the actions of a chunk.

    Attributes:
        observation: of this moment; where an episode ends it may be the one before, for nobody acts
            on it.
        rewards: one for each executed action: none after a reset, fewer than were sent where the
            episode ended.
        is_over: whether the episode has ended.
        success: whether the commanded goal was reached at some of these steps.
        success_final: whether it was reached at the last of them.
        success_any: whether some object met the goal at some of them, commanded or not.
        family: of the task; '' where the environment names none.
        target: the commanded object; '' where the environment names none.
        conventions: what the environment declares; None but after a reset.
    """

    observation: Observation
    rewards: tuple[float, ...]
    is_over: bool
    success: bool
    success_final: bool
    success_any: bool
    family: str
    target: str
    conventions: Conventions | None = None


@dataclass(frozen=True)
class Lost:
    """An episode that its simulator did not bring to an end.

    Attributes:
        stage: what it was doing: making the environment, resetting it, or stepping.
        error: what happened, in a line.
        traceback: where, as far as anyone can tell.
    """

    stage: Stage
    error: str
    traceback: str

    def __post_init__(self) -> None:
        for name in ("error", "traceback"):
            object.__setattr__(self, name, _ADDRESS.sub("0x...", getattr(self, name)))

    @property
    def words(self) -> str:
        """The traceback as the end of a message."""
        return f"It said:\n{self.traceback}" if self.traceback else "It said nothing."

    @classmethod
    def by(cls, error: Exception, stage: Stage) -> Self:
        """The loss of the episode in which this was raised."""
        line = " ".join("".join(traceback.format_exception_only(error)).split())
        return cls(stage, line, "".join(traceback.format_exception(error)).strip())


class EpisodePlayer:
    """One environment and the episode that runs in it.

    The environment is kept from episode to episode as long as they are made alike.

    Args:
        wrappers: put around every environment in this order, outside of `ChunkStep`.
    """

    def __init__(self, wrappers: Sequence[Wrapper] = ()) -> None:
        self._wrappers = tuple(wrappers)
        self._env: Environment | None = None
        self._made_as: tuple[str, Mapping[str, JsonValue], bool] = ("", {}, False)
        self._stage: Stage = "make"

    def make(self, spec: EpisodeSpec, look_at_end: bool = False) -> None:
        """Make the environment of an episode, if it is not there from one before.

        Args:
            spec: the episode.
            look_at_end: whether to look after an episode's last action, which no policy needs.

        Raises:
            UserError: it cannot be made, or declares nothing.
            Exception: whatever the simulator raises.
        """
        made_as = (spec.env_id, spec.env_args, look_at_end)
        if self._env is not None and self._made_as == made_as:
            return
        self.close()
        self._stage = "make"
        bare = make_env(spec.env_id, spec.env_args)
        env: Environment = ChunkStep(bare, _LONGEST_CHUNK, look_at_end=look_at_end)
        for wrapper in self._wrappers:
            env = wrapper(env)
        self._env, self._made_as = env, made_as
        self._conventions = declared_conventions(env, spec.env_id)

    def reset(self, seed: int) -> Look:
        """The first look of the episode with this seed, in the environment that was made.

        Raises:
            UserError: the environment breaks the contract.
            Exception: whatever the simulator raises.
        """
        assert self._env is not None
        self._stage = "reset"
        raw, info = self._env.reset(seed=seed)
        return _look(raw, info, is_over=False, conventions=self._conventions)

    def execute(self, actions: FloatArray) -> Look:
        """The look after executing float32[n, a] in order; stops where the episode ends.

        Raises:
            UserError: the environment breaks the contract, or refuses the actions.
            Exception: whatever the simulator raises.
        """
        assert self._env is not None
        self._stage = "step"
        raw, _, terminated, truncated, info = self._env.step(actions)
        return _look(raw, info, is_over=bool(terminated or truncated), conventions=None)

    def lose(self, error: Exception) -> Lost:
        """The loss of the episode, whose simulator raised this; its environment is not used again.

        An error of closing it is told with the loss.
        """
        lost = Lost.by(error, self._stage)
        try:
            self.close()
        except Exception as another:  # a broken simulator may raise anything
            told = Lost.by(another, self._stage).traceback
            lost = replace(lost, traceback=f"{lost.traceback}\nand in closing it:\n{told}")
        return lost

    def close(self) -> None:
        """Free the environment; the next episode makes one anew."""
        env, self._env = self._env, None
        if env is not None:
            env.close()


def declared_conventions(env: Environment, env_id: str) -> Conventions:
    """What an environment declares; UserError when it declares nothing."""
    declared = getattr(env.unwrapped, "conventions", None)
    if isinstance(declared, Conventions):
        return declared
    remedy = "Give it a `conventions` property; eval_envs/contract.py says what it holds."
    found, expected = f"the declaration {declared!r}", "conventions of its cameras, state, actions"
    raise UserError(describe(f"environment {env_id}", found, expected, remedy))


def _array_faults(seen: Observation) -> Iterator[str]:
    """Whether types and ranges are those that were declared, the policy asks."""
    for name, array in {"state": seen.state, **seen.images}.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            remedy = "Return numpy arrays; eval_envs/contract.py says which."
            yield describe(f"observation, {name}", shown(array), "an array of numbers", remedy)


def _look(
    raw: Mapping[str, Any],
    info: Mapping[str, Any],
    *,
    is_over: bool,
    conventions: Conventions | None,
) -> Look:
    seen = to_observation(raw)
    raise_faults(_array_faults(seen))
    return Look(
        observation=seen,
        rewards=tuple(map(float, info["rewards"])),
        is_over=is_over,
        success=bool(info["is_success"]),
        success_final=bool(info["is_success_final"]),
        success_any=bool(info["success_any"]),
        family=str(info.get("family", "")),
        target=str(info.get("target", "")),
        conventions=conventions,
    )
