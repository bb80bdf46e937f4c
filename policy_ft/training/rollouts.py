"""Rollouts during training: the number that selects the best checkpoint."""

from accelerate import Accelerator
from accelerate.utils import gather_object

from policy_ft.config.run import EvaluationConfig
from policy_ft.evaluation.rollout import evaluate
from policy_ft.evaluation.statistics import success_rate
from policy_ft.policy import Policy


def success_in_rollouts(
    policy: Policy, config: EvaluationConfig, accelerator: Accelerator
) -> dict[str, float]:
    """success_rate with the bounds of its 95 % Wilson interval and the number of episodes.

    The seeds are dealt to the ranks in turn; an episode depends on its seed alone, so their number
    does not matter.
    """
    seeds = range(config.seed, config.seed + config.episodes)[
        accelerator.process_index :: accelerator.num_processes
    ]
    rate = success_rate(gather_object(_outcomes(policy, config, seeds)))
    return {
        "success_rate": rate.success_rate,
        "low": rate.low,
        "high": rate.high,
        "num_episodes": rate.n,
    }


def _outcomes(policy: Policy, config: EvaluationConfig, seeds: range) -> list[bool]:
    if not seeds:
        return []
    result = evaluate(
        policy,
        config.env,
        config.env_args,
        seeds,
        num_envs=config.num_envs,
        replan_steps=config.replan_steps,
        num_sampling_steps=policy.config.num_sampling_steps,
    )
    return [episode.success for episode in result.episodes]
