"""The main job in one call: demonstrations of a new task, fine-tuning, evaluation, report."""

import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from data_tools.doctor.examination import validate
from data_tools.episode import Dataset
from data_tools.view.tables import print_table
from eval_envs.episodes import seeded_suite
from eval_envs.pool import LocalPool
from policy_ft import assemble
from policy_ft.checkpoints.native import PROVENANCE_FILE, save_policy, weights_hash
from policy_ft.config.config_file import dump_config, load_config
from policy_ft.config.data import CollectConfig
from policy_ft.config.run import RunConfig
from policy_ft.config.starting_policy import NewPolicy
from policy_ft.data import opening
from policy_ft.errors import UserError, describe, raise_faults, read_json
from policy_ft.evaluation.plots import loss_curves, success_bars
from policy_ft.evaluation.report import Report, Table, write_report
from policy_ft.evaluation.results import EvaluationResult, compare_results
from policy_ft.evaluation.rollout import evaluate
from policy_ft.evaluation.tables import HEADER, family_table, success_rows
from policy_ft.evaluation.videos import film
from policy_ft.execution.chunks import recorded_replan_steps
from policy_ft.execution.executor import RecedingHorizon
from policy_ft.execution.threads import rollout_threads
from policy_ft.formats.load import load_policy
from policy_ft.policy import Policy
from policy_ft.training.directory import TrainResult

ASSETS = Path(__file__).parent / "assets"
BASE = ASSETS / "tabletop_base"
CONFIG = ASSETS / "recipes" / "quickstart.yaml"
OLD_TASKS = "reach+push+pick"
COMPARED = ("starting", "fine-tuned")
NUM_ENVS = 10
MARKER = ".policy_ft_quickstart"
"""A file that says a quickstart made the directory, so that the next one may replace its files."""

FIRST_HELD_OUT_SEED = 1_000_000
SEEDS_A_RUN = 1000
"""Run seed s is evaluated on the episodes from 1,000,000 + 1,000 s on."""


@dataclass(frozen=True)
class QuickstartSettings:
    """What one quickstart does.

    Attributes:
        output: directory of everything it makes, new or empty or of an earlier quickstart, whose
            files are replaced.
        start: fine-tune the shipped base policy, or train the same model from random weights.
        seed: decides demonstrations, split, order and noise of training, and the held-out episodes.
        demos: demonstrations to collect.
        steps: train steps, the schedule of the learning rate with them; None takes those of the
            packaged config.
        episodes: held-out episodes of each of the four evaluations.
    """

    output: Path
    start: Literal["base", "random"] = "base"
    seed: int = 0
    demos: int = 25
    steps: int | None = None
    episodes: int = 50


@dataclass(frozen=True)
class Evaluations:
    """The policy before and after fine-tuning, on the new task and on the tasks it knew."""

    base: EvaluationResult
    finetuned: EvaluationResult
    old_tasks_before: EvaluationResult
    old_tasks_after: EvaluationResult


@rollout_threads()
def run_quickstart(settings: QuickstartSettings, console: Console) -> dict[str, Any]:
    """The summary that is also written to `summary.json` in the output directory.

    Writes `demos.hdf5`, `run/` (metrics and training checkpoints), `checkpoint/` (the fine-tuned
    policy), `evaluations.json` (every episode), `summary.json` and `report.html`.

    Args:
        settings: what to do.
        console: where progress is told.

    Raises:
        UserError: settings out of range, an output directory with files that no quickstart made, or
            whatever collecting, checking, training or evaluating refuses.
    """
    start, phases = time.perf_counter(), dict[str, float]()
    config = quickstart_config(settings)
    _claim(settings.output)
    with _timed(phases, "collect"):
        console.rule("1 of 4: demonstrations")
        episodes = _collect_and_check(config, console)
    with _timed(phases, "train"):
        console.rule("2 of 4: fine-tuning")
        before = assemble.build_policy(config, episodes)
        trained = assemble.train(config, episodes=episodes)
        after = _recording_replan_steps(load_policy(trained.last_checkpoint))
        save_policy(after, settings.output / "checkpoint")
    with _timed(phases, "evaluate"):
        console.rule("3 of 4: evaluation")
        evaluations = _evaluate_all(settings, config, before, after, console)
    console.rule("4 of 4: report")
    seconds = _with_total(phases, start)
    provenance = _provenance(settings, config, episodes, before, after, seconds)
    report = build_report(config, evaluations, trained, provenance)
    write_report(report, settings.output / "report.html")
    summary = {
        **{name: each.success.model_dump() for name, each in vars(evaluations).items()},
        "wall_s": _with_total(phases, start),
    }
    episode_records = {name: each.summary() for name, each in vars(evaluations).items()}
    _write_json(settings.output / "evaluations.json", episode_records)
    _write_json(settings.output / "summary.json", summary)
    console.print(report.summary)
    console.print(f"wrote {settings.output}/report.html, summary.json and checkpoint/")
    return summary


def quickstart_config(settings: QuickstartSettings) -> RunConfig:
    """The packaged run with this quickstart's paths, seed, demonstrations and steps.

    Raises:
        UserError: a setting that is out of range.
    """
    if settings.episodes < 1:
        remedy = "Give the held-out episodes of an evaluation."
        raise UserError(describe("episodes", repr(settings.episodes), "at least 1", remedy))
    demos = settings.output / "demos.hdf5"
    overrides = [
        f"seed={settings.seed}",
        f"output_dir={json.dumps(str(settings.output / 'run'))}",
        f"policy.path={json.dumps(str(BASE))}",
        f"data.path={json.dumps(str(demos))}",
        f"data.collect.seed={settings.seed}",
        f"data.collect.num_episodes={settings.demos}",
    ]
    if settings.steps is not None:
        overrides += [
            f"training.steps={settings.steps}",
            f"optimizer.decay_steps={settings.steps}",
            f"optimizer.warmup_steps={settings.steps // 20}",
        ]
    config = load_config(CONFIG, overrides)
    if settings.start == "base":
        return config
    base = load_policy(BASE)
    untrained = NewPolicy(
        kind="new",
        model=base.config,
        transforms=base.transforms.config,
        tokenizer=str(BASE / "tokenizer.json"),
    )
    # the lower rates of the packaged groups protect pretrained weights; random ones need the full
    tuning = config.tuning.model_copy(update={"groups": ()})
    return config.model_copy(update={"policy": untrained, "tuning": tuning})


@contextmanager
def _timed(phases: dict[str, float], name: str) -> Iterator[None]:
    """Write the seconds of the block into `phases`."""
    start = time.perf_counter()
    yield
    phases[name] = round(time.perf_counter() - start, 1)


def _with_total(phases: Mapping[str, float], start: float) -> dict[str, float]:
    return {**phases, "total": round(time.perf_counter() - start, 1)}


def _claim(output: Path) -> None:
    """Mark the directory as a quickstart's, and remove what an earlier one made; nothing else."""
    is_ours = (output / MARKER).is_file()
    if output.exists() and not is_ours and not (output.is_dir() and not any(output.iterdir())):
        raise UserError(
            describe(
                f"--output {output}",
                "files that no quickstart made",
                f"a new or empty directory, or one with the file {MARKER}",
                "Choose another --output, or empty this one yourself.",
            )
        )
    output.mkdir(parents=True, exist_ok=True)
    marker = "Made by policy-ft quickstart; the next one with this --output replaces its files.\n"
    (output / MARKER).write_text(marker, encoding="ascii")
    for folder in (output / "run", output / "checkpoint"):
        if folder.exists():
            shutil.rmtree(folder)
    for name in ("demos.hdf5", "evaluations.json", "summary.json", "report.html"):
        (output / name).unlink(missing_ok=True)


def _collect_and_check(config: RunConfig, console: Console) -> Dataset:
    episodes = opening.open_or_collect(config.data)
    findings = validate(episodes)
    for finding in findings:
        console.print(str(finding), markup=False)
    raise_faults(finding.sentence for finding in findings if finding.severity == "error")
    steps = sum(episodes[index].num_steps for index in range(len(episodes)))
    told = f"{len(episodes)} episodes, {steps} steps, {len(findings)} findings"
    console.print(f"{config.data.path[0]}: {told}")
    return episodes


def _evaluate_all(
    settings: QuickstartSettings, config: RunConfig, before: Policy, after: Policy, console: Console
) -> Evaluations:
    first = FIRST_HELD_OUT_SEED + SEEDS_A_RUN * settings.seed
    recipe, seeds = _recipe(config), range(first, first + settings.episodes)
    plan = {
        "base": (before, recipe.task),
        "finetuned": (after, recipe.task),
        "old_tasks_before": (before, OLD_TASKS),
        "old_tasks_after": (after, OLD_TASKS),
    }
    executor, results = RecedingHorizon(recorded_replan_steps(after.provenance)), {}
    for name, (policy, task) in plan.items():
        suite = seeded_suite(recipe.env, {**recipe.env_args, "task": task}, seeds)
        with LocalPool(NUM_ENVS) as pool:
            steps = policy.config.num_sampling_steps
            results[name] = evaluate(
                policy, suite, pool=pool, executor=executor, num_sampling_steps=steps
            )
        print_table(family_table(f"{name.replace('_', ' ')}: {task}", results[name]), console)
    return Evaluations(**results)


def _recipe(config: RunConfig) -> CollectConfig:
    """How the packaged config says demonstrations are made."""
    assert config.data.collect != "off"
    return config.data.collect


def build_report(
    config: RunConfig,
    evaluations: Evaluations,
    trained: TrainResult,
    provenance: dict[str, str],
) -> Report:
    """The page about one quickstart."""
    task = (recipe := _recipe(config)).task
    comparison = compare_results(evaluations.base, evaluations.finetuned)
    rates = {
        f"{task}, before": evaluations.base.success,
        f"{task}, fine-tuned": evaluations.finetuned.success,
        "old tasks, before": evaluations.old_tasks_before.success,
        "old tasks, after": evaluations.old_tasks_after.success,
    }
    filmed = {f"{task}, fine-tuned": evaluations.finetuned, f"{task}, before": evaluations.base}
    with LocalPool() as pool:
        videos = {label: film(result, pool) for label, result in filmed.items()}
    return Report(
        title=f"Fine-tuning on '{task}' with {recipe.num_episodes} demonstrations",
        summary=_headline(task, evaluations),
        rates=rates,
        comparison=comparison,
        compared=COMPARED,
        figures={
            "Success on the new task and on the tasks the policy knew before, with 95 % Wilson "
            "intervals.": success_bars(rates),
            "Loss while fine-tuning; validation on the few held-out demonstrations, with a fixed "
            "grid of noise and flow time and averaged weights. It warns of faults and does not "
            "measure success.": loss_curves(
                trained.metrics, {"train": "training", "validation": "validation"}
            ),
        },
        tables=[Table("Old tasks by family", HEADER, _old_task_rows(evaluations))],
        videos=videos,
        settings=dump_config(config),
        provenance=provenance,
    )


def _headline(task: str, evaluations: Evaluations) -> str:
    before, after = evaluations.base.success, evaluations.finetuned.success
    old_before = evaluations.old_tasks_before.success
    old_after = evaluations.old_tasks_after.success
    return (
        f"Success on '{task}' went from {100 * before.success_rate:.0f} % to "
        f"{100 * after.success_rate:.0f} % on {after.n} held-out episodes; on the tasks the policy "
        f"knew before, from {100 * old_before.success_rate:.0f} % to "
        f"{100 * old_after.success_rate:.0f} %."
    )


def _old_task_rows(evaluations: Evaluations) -> list[tuple[str, ...]]:
    pairs = {"before": evaluations.old_tasks_before, "after": evaluations.old_tasks_after}
    labelled = {
        f"{family}, {when}": result
        for when, evaluation in pairs.items()
        for family, result in evaluation.by_family().items()
    }
    return success_rows(dict(sorted(labelled.items(), key=lambda item: item[0].split(",")[0])))


def _provenance(
    settings: QuickstartSettings,
    config: RunConfig,
    episodes: Dataset,
    before: Policy,
    after: Policy,
    seconds: Mapping[str, float],
) -> dict[str, str]:
    first = FIRST_HELD_OUT_SEED + SEEDS_A_RUN * settings.seed
    packages = ("policy_ft", "torch", "mujoco", "gymnasium", "numpy")
    return {
        "command": f"policy-ft quickstart --from {settings.start} --seed {settings.seed} "
        f"--demos {settings.demos} --episodes {settings.episodes}"
        + (f" --steps {settings.steps}" if settings.steps else ""),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{platform.platform()}, {os.cpu_count()} CPU cores",
        "versions": ", ".join(f"{name} {version(name)}" for name in packages),
        "durations": ", ".join(f"{phase} {each:.0f} s" for phase, each in seconds.items()),
        "demonstrations": f"{len(episodes)} episodes, fingerprint {episodes.fingerprint}",
        "train steps": str(config.training.steps),
        "held-out seeds": f"{first} to {first + settings.episodes - 1}, for every evaluation",
        "replan steps": str(recorded_replan_steps(after.provenance)),
        "weights before": f"sha256 {weights_hash(before.model)}",
        "weights after": f"sha256 {weights_hash(after.model)}",
    }


def _recording_replan_steps(policy: Policy) -> Policy:
    """The policy with the base's replan_steps in its provenance, which a random start lacks."""
    recorded = recorded_replan_steps(read_json(BASE / PROVENANCE_FILE))
    return replace(policy, provenance={**policy.provenance, "replan_steps": recorded})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="ascii")
