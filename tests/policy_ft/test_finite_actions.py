"""No number that is not finite leaves a policy, and what made it is told."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from data_tools.episode import Observation
from eval_envs.collect import collect
from eval_envs.episodes import seeded_suite
from eval_envs.pool import LocalPool
from policy_ft.errors import UserError
from policy_ft.evaluation.rollout import evaluate
from policy_ft.execution.chunks import plan_chunks
from policy_ft.execution.executor import RecedingHorizon
from policy_ft.models.solvers import Euler, SampleRequest
from policy_ft.policy import Policy
from policy_ft.transforms import Statistics

NOISE = np.zeros((2, 4, 4), np.float32)


@pytest.fixture
def observations(policy: Policy) -> list[Observation]:
    rng = np.random.default_rng(0)
    return [
        Observation(
            {n: rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for n in ("front", "wrist")},
            rng.normal(size=4).astype(np.float32),
            text,
        )
        for text in ("push the red block", "lift the blue cylinder")
    ]


def poison_weight(policy: Policy) -> None:
    policy.model.expert.action_out_proj.weight.data[1, 3] = torch.nan


def overflow_weights(policy: Policy) -> None:
    policy.model.expert.action_out_proj.weight.data.fill_(3e38)


def overflow_statistics(policy: Policy) -> None:
    actions = policy.transforms.statistics.actions
    huge = actions.model_copy(update={"mean": (0.0, 3.4e38, 0.0), "std": (1.0, 3.4e38, 1.0)})
    statistics = policy.transforms.statistics.model_copy(update={"actions": huge})
    object.__setattr__(policy, "transforms", replace(policy.transforms, statistics=statistics))
    assert isinstance(policy.transforms.statistics, Statistics)
    policy.model.expert.action_out_proj.weight.data.mul_(100.0)


@pytest.mark.parametrize(
    ("spoil", "column", "cause"),
    [
        (poison_weight, "'x'", r"1 tensors.*first 'expert.action_out_proj.weight'.*an earlier"),
        (overflow_weights, "'x'", r"Every weight is finite.*load them as float32"),
        (
            overflow_statistics,
            "'y'",
            r"statistics scale them.*again on data of this robot",
        ),
    ],
)
def test_an_action_that_is_not_finite_is_told_with_its_column_and_cause(
    policy, observations, spoil, column, cause
):
    spoil(policy)
    with pytest.raises(UserError, match=cause) as caught:
        policy.act(observations, SampleRequest(NOISE))
    assert "actions for observation " in str(caught.value)
    assert f"of column {column}" in str(caught.value)


def test_only_the_sample_at_fault_is_named(policy, observations):
    noise = NOISE.copy()
    noise[1, 2, 0] = np.inf
    with pytest.raises(UserError, match="noise that was given is not finite") as caught:
        policy.act(observations, SampleRequest(noise))
    (fault,) = caught.value.faults
    assert fault.startswith("actions for observation 1: found ")


@pytest.mark.parametrize(
    ("request_of", "words"),
    [
        (lambda: SampleRequest(NOISE[:1]), r"found the shape \[1, 4, 4\]; expected \[2, 4, 4\]"),
        (lambda: SampleRequest(solver=Euler(0)), "num_steps: found 0; expected at least 1"),
    ],
)
def test_a_request_that_cannot_be_meant_is_refused(policy, observations, request_of, words):
    with pytest.raises(UserError, match=words):
        policy.act(observations, request_of())


def test_an_observation_at_fault_is_named_among_several(policy, observations):
    bad = replace(observations[1], state=np.full(4, np.nan, np.float32))
    with pytest.raises(UserError, match="observation 1, state, column 'x': found nan"):
        policy.act([observations[0], bad])


class Chunks:
    """Acts with what it is given, one chunk after the other, whatever it sees."""

    chunk_shape = (4, 4)

    def __init__(self, conventions: Any, chunks: list[np.ndarray]) -> None:
        self.conventions, self._chunks = conventions, iter(chunks)

    def act(self, observations, request):
        return [next(self._chunks) for _ in observations]


def test_rollouts_stop_before_anything_that_is_not_finite_is_executed():
    executed: list[np.ndarray] = []

    class Spy(gymnasium.Wrapper):
        def step(self, action):
            executed.append(action)
            return super().step(action)

    env_args = {"task": "reach", "image_size": 16}
    env = gymnasium.make("eval_envs:Tabletop-v0", **env_args)
    good, bad = np.zeros((4, 4), np.float32), np.zeros((4, 4), np.float32)
    bad[3, 1] = np.nan
    policy = Chunks(env.unwrapped.conventions, [good, good, good, bad])
    env.close()
    suite = seeded_suite("eval_envs:Tabletop-v0", env_args, [5, 9])
    with LocalPool(2, [Spy]) as pool, pytest.raises(UserError) as caught:
        evaluate(policy, suite, pool=pool, executor=RecedingHorizon(2), num_sampling_steps=1)
    assert len(executed) == 2
    assert np.isfinite(executed).all()
    assert str(caught.value) == (
        "actions for chunk 1 of the episode with seed 9: found nan at step 3 of column "
        "'delta_y'; expected finite numbers for a robot. Mend the policy's act; nothing "
        "of this call was executed."
    )


@pytest.fixture
def rolled(run_config, small_model, tmp_path):
    """Settings of a run with rollouts of the seeds 0 to 2 in the tabletop."""
    path = collect(
        tmp_path / "reach.hdf5",
        task="reach",
        num_episodes=3,
        seed=0,
        env_args={"image_size": 32},
    )
    evaluation = {"env_args": {"task": "reach", "image_size": 32}, "episodes": 3, "seed": 0}
    return run_config(
        policy={"model": small_model(max_prompt_tokens=32)},
        data={"path": str(path)},
        training={"steps": 1},
        validation={"every": 100, "num_windows": 1},
        evaluation={**evaluation, "replan_steps": 4, "every": 1},
    )


SPOILED = """
import sys
import torch
from policy_ft import assemble
from policy_ft.config.config_file import load_config
from policy_ft.execution import chunks
from policy_ft.errors import UserError

drawn = chunks.rollout_noise

def spoiled(seed, index, shape):
    return drawn(seed, index, shape) * (float("nan") if seed == 1 else 1.0)

chunks.rollout_noise = spoiled
try:
    assemble.train(load_config(sys.argv[1]))
except UserError as error:
    print("refused:", error)
"""


@pytest.mark.slow
def test_every_process_stops_where_one_of_them_meets_what_is_not_finite(rolled, tmp_path):
    """Of two processes only the second rolls out seed 1; the first would wait for it for ever."""
    (tmp_path / "run.yaml").write_text(
        json.dumps({**rolled.model_dump(mode="json"), "output_dir": str(tmp_path / "two")})
    )
    (tmp_path / "spoiled.py").write_text(SPOILED)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(tmp_path / "spoiled.py"), str(tmp_path / "run.yaml")]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    words = "refused: actions for chunk 0 of the episode with seed 1: found nan"
    assert done.stdout.count(words) == 2


def test_what_a_policy_refuses_in_rollouts_is_said_of_the_episode(policy, observations):
    bad = replace(observations[1], state=np.full(4, np.inf, np.float32))
    for seen, seeds in (([observations[0], bad], [7, 8]), ([bad], [8])):
        with pytest.raises(UserError) as caught:
            plan_chunks(policy, seen, seeds, [4] * len(seen), Euler(1))
        for fault in caught.value.faults:
            assert fault.startswith("chunk 4 of the episode with seed 8, state, column ")
