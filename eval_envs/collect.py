"""Demonstrations of a scripted expert, to HDF5."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
import numpy.typing as npt

from data_tools.conventions import Conventions
from data_tools.errors import UserError, describe, raise_faults
from data_tools.writer import EpisodeWriter
from eval_envs.disturbance import Disturbance
from eval_envs.making import make_env

SOURCE = "scripted_expert"
_BLOCK = 8
_SPARE_ATTEMPTS = 50


@runtime_checkable
class HasExpert(Protocol):
    """An environment that knows how its task is done."""

    def expert_action(self) -> npt.NDArray[np.float32]:
        """float32[a], the expert's action at this moment; a function of the visible state alone."""


@dataclass(frozen=True)
class Demonstration:
    """One episode of the expert: observation t was seen just before action t was asked for."""

    images: dict[str, npt.NDArray[np.uint8]]
    state: npt.NDArray[np.float32]
    actions: npt.NDArray[np.float32]
    instruction: str
    is_success: bool
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Recipe:
    env_id: str
    env_args: dict[str, Any]
    seed: int
    noise: float


def collect(
    path: str | Path,
    *,
    task: str,
    num_episodes: int,
    seed: int,
    noise: float = 0.0,
    env_id: str = "eval_envs:Tabletop-v0",
    env_args: Mapping[str, Any] | None = None,
    workers: int = 1,
    keep_failures: bool = False,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """The path of a new HDF5 file with `num_episodes` demonstrations.

    Attempt i is a function of (seed, i) alone, so the file does not depend on `workers`. Attempts
    that miss the goal are left out, unless `keep_failures`; they are kept with success = False
    then.

    Args:
        path: the file to make.
        task: the environment's task, e.g. "pick" or "reach+push".
        num_episodes: episodes in the file, at least 1.
        seed: together with the attempt's number, the seed of everything random.
        noise: strength of `Disturbance`; 0 is the expert undisturbed, 1 the usual amount of
            mistakes to recover from.
        env_id: Gymnasium id of an environment with `expert_action`.
        env_args: further keyword arguments of `gymnasium.make`.
        workers: processes to spread the episodes over.
        keep_failures: whether attempts that miss the goal stay in.
        overwrite: whether an existing file may be replaced.
        progress: called with the number of episodes written so far.

    Raises:
        UserError: a setting out of range, an environment without an expert, or an expert that keeps
            missing the goal.
    """
    _check_counts(num_episodes=num_episodes, workers=workers)
    recipe = _Recipe(env_id, {"task": task, **(env_args or {})}, seed, noise)
    with EpisodeWriter(path, _conventions(recipe), overwrite=overwrite, source=SOURCE) as writer:
        for attempt, demonstration in enumerate(_attempts(recipe, workers)):
            if demonstration.is_success or keep_failures:
                _write(writer, demonstration)
                if progress is not None:
                    progress(writer.num_episodes)
            if writer.num_episodes == num_episodes:
                break
            if attempt + 1 >= 2 * num_episodes + _SPARE_ATTEMPTS:
                found = f"{writer.num_episodes} successes in {attempt + 1} attempts"
                remedy = "Lower the noise, or keep the failures."
                raise UserError(
                    describe(f"collecting {task!r}", found, f"{num_episodes} successes", remedy)
                )
    return Path(path)


def demonstrate(
    env: gymnasium.Env[dict[str, Any], npt.NDArray[np.float32]], seed: int, index: int, noise: float
) -> Demonstration:
    """Attempt `index` of the expert; a function of (environment, seed, index, noise)."""
    columns = env.unwrapped.conventions.action  # type: ignore[attr-defined]
    disturbance = Disturbance(np.random.default_rng([seed, index, 1]), columns, noise)
    reset_seed = int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
    observation, info = env.reset(seed=reset_seed)
    observations, actions, is_over = [observation], [], False
    while not is_over:
        action = env.unwrapped.expert_action()  # type: ignore[attr-defined]
        actions.append(action)
        observation, _, terminated, truncated, info = env.step(disturbance(action))
        observations.append(observation)
        is_over = terminated or truncated
    seen = observations[:-1]
    return Demonstration(
        images={
            name: np.stack([step["images"][name] for step in seen]) for name in seen[0]["images"]
        },
        state=np.stack([step["state"] for step in seen]),
        actions=np.stack(actions),
        instruction=seen[0]["instruction"],
        is_success=bool(info["is_success"]),
        attributes={
            "seed": reset_seed,
            "attempt": index,
            "noise": noise,
            **{key: info[key] for key in ("family", "target") if key in info},
        },
    )


def _attempts(recipe: _Recipe, workers: int) -> Iterator[Demonstration]:
    """Attempts 0, 1, 2, ... without end, in order."""
    if workers == 1:
        env = _make(recipe)
        try:
            for index in itertools.count():
                yield demonstrate(env, recipe.seed, index, recipe.noise)
        finally:
            env.close()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        blocks = itertools.count(0, _BLOCK)
        pending: deque[Future[list[Demonstration]]] = deque()
        try:
            while True:
                while len(pending) < 2 * workers:
                    pending.append(pool.submit(_demonstrate_block, recipe, next(blocks)))
                yield from pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _demonstrate_block(recipe: _Recipe, start: int) -> list[Demonstration]:
    env = _make(recipe)
    try:
        return [
            demonstrate(env, recipe.seed, index, recipe.noise)
            for index in range(start, start + _BLOCK)
        ]
    finally:
        env.close()


def _make(recipe: _Recipe) -> gymnasium.Env[dict[str, Any], npt.NDArray[np.float32]]:
    return make_env(recipe.env_id, recipe.env_args)


def _conventions(recipe: _Recipe) -> Conventions:
    env = _make(recipe)
    try:
        if not isinstance(env.unwrapped, HasExpert):
            remedy = "Choose an environment that has one; `eval-envs list` shows them."
            raise UserError(
                describe(recipe.env_id, "no expert_action", "a scripted expert", remedy)
            )
        return env.unwrapped.conventions  # type: ignore[attr-defined]
    finally:
        env.close()


def _check_counts(**counts: int) -> None:
    faults = [
        describe(name, repr(count), "at least 1", "Give a positive number.")
        for name, count in counts.items()
        if count < 1
    ]
    raise_faults(faults)


def _write(writer: EpisodeWriter, demonstration: Demonstration) -> None:
    writer.add(
        images=demonstration.images,
        state=demonstration.state,
        actions=demonstration.actions,
        instruction=demonstration.instruction,
        success=demonstration.is_success,
        attributes=demonstration.attributes,
    )
