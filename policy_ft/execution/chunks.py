"""Asking a policy for action chunks, of several robots or environments at once.

A policy predicts `action_horizon` actions, of which an executor executes the first `replan_steps`
before it looks again. Executing another share than the one a policy was selected with moves success
by tens of points, so the number is always explicit.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from data_tools.conventions import Conventions
from data_tools.episode import Observation
from policy_ft.data.noise import rollout_noise
from policy_ft.errors import UserError, describe, raise_faults
from policy_ft.models.solvers import SampleRequest, Solver
from policy_ft.transforms.checks import nonfinite_numbers

FloatArray = npt.NDArray[np.float32]


class ChunkPolicy(Protocol):
    """Whatever predicts action chunks: a fine-tuned policy, or a control experiment."""

    @property
    def conventions(self) -> Conventions:
        """What it expects to see and what its actions mean."""

    @property
    def chunk_shape(self) -> tuple[int, int]:
        """(h, a): shape of the noise of one chunk; a may exceed the robot's action columns."""

    def act(
        self, observations: Sequence[Observation], request: SampleRequest
    ) -> Sequence[FloatArray]:
        """One chunk float32[h, a] in the robot's own units for each observation.

        Args:
            observations: what is seen now, of b robots.
            request: how to draw the chunks; its noise is given.
        """


def recorded_replan_steps(provenance: Mapping[str, Any]) -> int:
    """The replan_steps that a checkpoint's provenance records.

    Raises:
        UserError: it records none, as of a policy that was never evaluated.
    """
    recorded = provenance.get("replan_steps")
    if not isinstance(recorded, int):
        raise UserError(
            describe(
                "replan_steps",
                f"{recorded!r} in the checkpoint's provenance.json",
                "the number of actions to execute before predicting again",
                "Give --replan-steps, at most the policy's action horizon.",
            )
        )
    return recorded


def plan_chunks(
    policy: ChunkPolicy,
    observations: Sequence[Observation],
    episode_seeds: Sequence[int],
    chunk_indices: Sequence[int],
    solver: Solver,
) -> list[FloatArray]:
    """A chunk float32[h, a] for each episode, from one call of the policy.

    Args:
        policy: predicts the chunks.
        observations: what is seen now in each of b episodes.
        episode_seeds: the seed of each episode.
        chunk_indices: how many chunks each episode has executed before.
        solver: of the flow.

    Raises:
        UserError: the policy refuses to act, or gives numbers that are not finite; names the
            episodes.
    """
    noise = np.stack(
        [
            rollout_noise(seed, index, policy.chunk_shape)
            for seed, index in zip(episode_seeds, chunk_indices, strict=True)
        ]
    )
    places = [
        f"chunk {index} of the episode with seed {seed}"
        for seed, index in zip(episode_seeds, chunk_indices, strict=True)
    ]
    try:
        chunks = policy.act(observations, SampleRequest(noise, solver))
    except UserError as error:
        raise UserError([_placed(fault, places) for fault in error.faults]) from None
    raise_faults(_nonfinite(chunks, places, policy.conventions.action.names))
    return list(chunks)


def _placed(fault: str, places: Sequence[str]) -> str:
    """What a policy says of one of its observations, said of the chunk that it was asked for."""
    named = re.search(r"observation(?: (\d+))?", fault)
    if named is None:
        return f"{places[0]}: {fault}"
    return fault.replace(named[0], places[int(named[1] or 0)], 1)


def _nonfinite(
    chunks: Sequence[FloatArray], places: Sequence[str], names: Sequence[str]
) -> Iterator[str]:
    """One fault for each chunk that no robot may execute, whichever policy it comes from."""
    for chunk, place in zip(chunks, places, strict=True):
        bad = nonfinite_numbers(chunk, names)
        if bad:
            remedy = "Mend the policy's act; nothing of this call was executed."
            yield describe(f"actions for {place}", bad, "finite numbers for a robot", remedy)
