"""Rollouts during training: the number that selects the best checkpoint."""

from accelerate import Accelerator

from eval_envs.episodes import seeded_suite
from eval_envs.pool import LocalPool
from policy_ft.config.measures import EvaluationConfig
from policy_ft.evaluation.rollout import evaluate
from policy_ft.execution.executor import RecedingHorizon
from policy_ft.policy import Policy


def success_in_rollouts(
    policy: Policy, config: EvaluationConfig, accelerator: Accelerator
) -> dict[str, float]:
    """success_rate with the bounds of its 95 % Wilson interval and the number of episodes.

    The seeds are dealt to the ranks in turn; an episode depends on its seed alone, so their number
    does not matter. Where simulators failed, num_lost says of how many episodes; they are no
    successes.

    Raises:
        UserError: on every rank alike, whatever stopped the episodes of any of them.
    """
    seeds = range(config.seed, config.seed + config.episodes)
    with LocalPool(config.num_envs) as pool:
        result = evaluate(
            policy,
            seeded_suite(config.env, config.env_args, seeds),
            pool=pool,
            executor=RecedingHorizon(config.replan_steps),
            num_sampling_steps=policy.config.num_sampling_steps,
            ranks=accelerator,
        )
    rate = result.success
    values = {
        "success_rate": rate.success_rate,
        "low": rate.low,
        "high": rate.high,
        "num_episodes": rate.n,
    }
    return {**values, "num_lost": float(len(result.lost))} if result.lost else values
