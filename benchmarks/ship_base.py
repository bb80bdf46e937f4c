"""Measures a pretrained tabletop policy by family and writes it, with its card, for shipping.

Prints one table, writes one JSON file and the checkpoint directory that the package ships.

    policy-ft train configs/pretrain_tabletop.yaml
    python benchmarks/ship_base.py runs/pretrain_tabletop --hardware "2 cores of ..." --minutes 60
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from eval_envs.episodes import seeded_suite
from eval_envs.pool import LocalPool
from policy_ft.checkpoints.native import save_policy, weights_hash
from policy_ft.config.config_file import load_config
from policy_ft.evaluation.results import EvaluationResult
from policy_ft.evaluation.rollout import evaluate
from policy_ft.evaluation.tables import HEADER, success_rows
from policy_ft.execution.executor import RecedingHorizon
from policy_ft.execution.threads import ROLLOUT_THREADS
from policy_ft.formats.load import load_policy
from policy_ft.policy import Policy
from policy_ft.training.directory import CONFIG_FILE

BASE_FAMILIES = ("reach", "push", "pick")
NEW_FAMILIES = ("place", "stack")
FIRST_SEED = 3_000_000

CARD = """# tabletop_base

The small vision-language-action policy that policy_ft ships: {parameters:,} parameters, two 64 x 64
cameras, instruction, four state columns; chunks of {horizon} actions by flow matching. Its
architecture is in model.json, its cameras, units and signs in conventions.json.

It knows three families of tasks in the embedded tabletop (`eval_envs:Tabletop-v0`): reach, push
into the zone, pick up. It was never shown place and stack, new tasks for fine-tuning.

## How it was made

* Command: `policy-ft train configs/pretrain_tabletop.yaml` (run with `{overrides}`), from
  random weights of seed {seed}.
* Data: {episodes} demonstrations of `{task}` by the scripted expert, disturbed with noise
  {noise:g}, collected with seed {data_seed}; recorded by the same command.
* Training: {steps} steps of {batch_size} windows with {draws} noise draws each; the weights are the
  running average (decay {decay}) after the last step.
* Hardware and duration: {hardware}; {minutes:g} minutes including {evaluations}
* Weights: SHA-256 over all tensors {sha256}.

## Success

{num_episodes} episodes a family on seeds from {first_seed} on, which no demonstration used;
{replan_steps} of {horizon} actions executed before predicting again, {sampling_steps} Euler steps.
Command: `python benchmarks/ship_base.py`.

| family | shown in training | success | 95 % Wilson interval | any object |
|---|---|---|---|---|
{rows}

"Any object" counts episodes in which some object met the goal, the commanded one or another.

## Limits

Simulation only, one scene, six colours and three shapes; blocks of one colour never repeat in a
scene. Pixels come from MuJoCo 3.3.0 with its fast software profile: another renderer is another
camera.
"""


def main() -> None:
    """Evaluate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="output directory of the pretraining run")
    parser.add_argument("--hardware", required=True, help="what it was trained on, for the card")
    parser.add_argument("--minutes", type=float, required=True, help="duration, for the card")
    parser.add_argument(
        "--overrides", default="no --set", help="the --set of the run, for the card"
    )
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--output", type=Path, default=Path("policy_ft/assets/tabletop_base"))
    parser.add_argument("--json", type=Path, default=Path("runs/ship_base.json"))
    options = parser.parse_args()
    torch.set_num_threads(ROLLOUT_THREADS)
    config = load_config(options.run / CONFIG_FILE, [])
    last = options.run / "checkpoints" / f"step_{config.training.steps:08d}"
    policy = load_policy(last)
    replan_steps = config.evaluation.replan_steps
    policy = replace(policy, provenance={**policy.provenance, "replan_steps": replan_steps})
    results = {
        family: measure(policy, family, options.episodes, replan_steps)
        for family in (*BASE_FAMILIES, *NEW_FAMILIES)
    }
    table = Table(*HEADER, title=str(last), title_justify="left")
    for row in success_rows(results):
        table.add_row(*row)
    Console().print(table)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    record = {family: result.summary() for family, result in results.items()}
    options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="ascii")
    rows = "\n".join(
        f"| {family} | {'yes' if family in BASE_FAMILIES else 'no'} | {' | '.join(cells)} |"
        for family, _, *cells in success_rows(results)
    )
    collected = config.data.collect
    card = CARD.format(
        parameters=sum(parameter.numel() for parameter in policy.model.parameters()),
        horizon=policy.config.action_horizon,
        seed=config.seed,
        overrides=options.overrides,
        episodes=collected.num_episodes,
        task=collected.task,
        noise=collected.noise,
        data_seed=collected.seed,
        steps=config.training.steps,
        batch_size=config.training.batch_size,
        draws=config.training.noise_draws,
        decay=config.tuning.ema.decay,
        hardware=options.hardware,
        minutes=options.minutes,
        evaluations="recording, validation and rollouts.",
        sha256=weights_hash(policy.model),
        num_episodes=options.episodes,
        first_seed=f"{FIRST_SEED:,}",
        replan_steps=replan_steps,
        sampling_steps=policy.config.num_sampling_steps,
        rows=rows,
    )
    save_policy(policy, options.output, card=card)
    print(f"wrote {options.json} and {options.output}")


def measure(policy: Policy, family: str, episodes: int, replan_steps: int) -> EvaluationResult:
    """The policy on one task family."""
    seeds = range(FIRST_SEED, FIRST_SEED + episodes)
    with LocalPool(20) as pool:
        return evaluate(
            policy,
            seeded_suite("eval_envs:Tabletop-v0", {"task": family}, seeds),
            pool=pool,
            executor=RecedingHorizon(replan_steps),
            num_sampling_steps=policy.config.num_sampling_steps,
        )


if __name__ == "__main__":
    main()
