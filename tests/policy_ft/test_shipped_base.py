"""The shipped base looks and listens: blind it fails, told of another object it serves that one."""

import pytest

from eval_envs.episodes import seeded_suite
from eval_envs.perturb import BlankImages, SwappedInstruction
from eval_envs.playing import Wrapper
from eval_envs.pool import LocalPool
from policy_ft.evaluation.results import EvaluationResult
from policy_ft.evaluation.rollout import evaluate
from policy_ft.execution.chunks import recorded_replan_steps
from policy_ft.execution.executor import RecedingHorizon
from policy_ft.formats.load import load_policy
from policy_ft.policy import Policy
from policy_ft.quickstart import BASE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(BASE)


def run(policy: Policy, *wrappers: Wrapper, task: str) -> EvaluationResult:
    seeds = range(3_000_000, 3_000_020)
    with LocalPool(10, wrappers) as pool:
        return evaluate(
            policy,
            seeded_suite("eval_envs:Tabletop-v0", {"task": task}, seeds),
            pool=pool,
            executor=RecedingHorizon(recorded_replan_steps(policy.provenance)),
            num_sampling_steps=policy.config.num_sampling_steps,
        )


@pytest.mark.parametrize("task", ["reach", "pick"])
def test_base_needs_eyes_and_ears(policy: Policy, task: str) -> None:
    as_it_is = run(policy, task=task).success.success_rate
    blind = run(policy, BlankImages, task=task).success.success_rate
    misled = run(policy, SwappedInstruction, task=task)
    assert as_it_is >= 0.75
    assert blind <= as_it_is / 2
    assert misled.success.success_rate <= as_it_is / 2
    assert misled.success_any.success_rate >= 0.6
