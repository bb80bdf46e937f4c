"""policy-ft eval: a checkpoint in an environment."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
import yaml
from pydantic import JsonValue
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from data_tools.view.tables import print_table
from eval_envs.episodes import EpisodeSpec, seeded_suite
from eval_envs.pool import TIME_LIMIT_S, LocalPool, Pool, ProcessPool
from policy_ft.commands.options import Checkpoint, EmbodimentName, TokenizerPath, require_none
from policy_ft.errors import UserError, describe, raise_faults
from policy_ft.evaluation.episode_log import EpisodeLog
from policy_ft.evaluation.outputs import require_outputs, write_json, write_videos
from policy_ft.evaluation.results import EvaluationResult
from policy_ft.evaluation.rollout import ALONE, Ranks, evaluate
from policy_ft.evaluation.tables import family_table
from policy_ft.evaluation.videos import choose_episodes, film, require_cameras
from policy_ft.execution.chunks import recorded_replan_steps
from policy_ft.execution.executor import RecedingHorizon
from policy_ft.execution.threads import rollout_threads
from policy_ft.formats.load import load_policy
from policy_ft.formats.published import settings_hash
from policy_ft.policy import Policy
from policy_ft.training.launch import start_accelerator

app = typer.Typer()

EnvArgs = Annotated[
    list[str], typer.Option("--env-arg", metavar="KEY=VALUE", help="Setting of the environment.")
]
FirstSeed = Annotated[
    int,
    typer.Option(
        min=0,
        max=2**62,
        help="Of the first episode; the next count up. Keep apart from evaluation.seed.",
    ),
]
Isolate = Annotated[
    bool,
    typer.Option(
        "--isolate",
        help="Every environment in a process of its own: a crash or hang costs one episode.",
    ),
]
EnvPython = Annotated[
    Path | None,
    typer.Option(help="Interpreter of these processes, e.g. of a simulator's own venv."),
]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        min=0.1, help="Seconds for such a process to make, reset or step; else 300, then killed."
    ),
]
ReplanSteps = Annotated[
    int | None,
    typer.Option(min=1, help="Actions executed before looking again; else the checkpoint's."),
]
Output = Annotated[
    Path | None,
    typer.Option(help="Directory for every episode as it ends; a killed evaluation goes on there."),
]


@app.command("eval")
def evaluate_checkpoint(
    checkpoint: Checkpoint,
    env: Annotated[
        str, typer.Option(help="Gymnasium id with its module.")
    ] = "eval_envs:Tabletop-v0",
    task: Annotated[str, typer.Option(help="Short for --env-arg task=...")] = "",
    env_args: EnvArgs = [],  # noqa: B006
    num_episodes: Annotated[int, typer.Option("--num-episodes", "-n", min=1)] = 50,
    seed: FirstSeed = 30_000,
    num_envs: Annotated[int, typer.Option(min=1, help="Environments a call of the policy.")] = 10,
    isolate: Isolate = False,
    env_python: EnvPython = None,
    time_limit: TimeLimit = None,
    replan_steps: ReplanSteps = None,
    embodiment: EmbodimentName = None,
    tokenizer: TokenizerPath = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    output: Output = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write every episode here.")
    ] = None,
    video: Annotated[
        Path | None, typer.Option(help="Film three successes and failures here.")
    ] = None,
) -> None:
    """Run a checkpoint in an environment and report success with its 95 % Wilson interval."""
    require_outputs(json_file, video)
    _require_device(device)
    arguments = _environment_arguments([*([f"task={task}"] if task else []), *env_args])
    suite = seeded_suite(env, arguments, range(seed, seed + num_episodes))
    ranks, device = _launched(device)
    policy = load_policy(checkpoint, device, embodiment=embodiment, tokenizer=tokenizer)
    steps = replan_steps or recorded_replan_steps(policy.provenance)
    with _pool(num_envs, isolate, env_python, time_limit) as pool, rollout_threads():
        if video is not None:
            require_cameras(pool, suite[0])
        result = _evaluate(policy, suite, pool, steps, ranks, output)
        if ranks.process_index > 0:
            return
        films = [] if video is None else film(_with_actions(result, policy, pool), pool)
    print(f"{checkpoint}: " + "\n".join(policy.load_report.lines()))
    print_table(family_table(f"{checkpoint} in {env}", result))
    _write(checkpoint, policy, result, json_file)
    if video is not None:
        for path, filmed in zip(write_videos(video, films), films, strict=True):
            print(f"wrote {path}: {filmed.caption}")
    _require_none_lost(result)


def _launched(device: str) -> tuple[Ranks, str]:
    """This process among those of its launcher, and its own device of this kind."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE, device
    accelerator = start_accelerator()
    own = accelerator.device
    return accelerator, str(own) if own.type == device else device


def _pool(
    num_envs: int, isolate: bool, env_python: Path | None, time_limit: float | None
) -> LocalPool | ProcessPool:
    if not isolate and env_python is None:
        options = {"--time-limit": time_limit}
        require_none(options, "environments in this process", "--isolate or --env-python with it")
        return LocalPool(num_envs)
    limit = TIME_LIMIT_S if time_limit is None else time_limit
    return ProcessPool(num_envs, python=env_python, time_limit_s=limit)


def _evaluate(
    policy: Policy,
    suite: Sequence[EpisodeSpec],
    pool: Pool,
    replan_steps: int,
    ranks: Ranks,
    output: Path | None,
) -> EvaluationResult:
    """The result, with a progress bar, and every episode in the output directory as it ends."""
    num_sampling_steps = policy.config.num_sampling_steps
    with ExitStack() as stack:
        log = None
        if output is not None:
            conditions: dict[str, JsonValue] = {
                **_identity(policy),
                "replan_steps": replan_steps,
                "num_sampling_steps": num_sampling_steps,
            }
            log = stack.enter_context(EpisodeLog(output, conditions, ranks.process_index))
        progress = stack.enter_context(_progress(is_shown=ranks.process_index == 0))
        bar = progress.add_task("episodes", total=len(suite))
        return evaluate(
            policy,
            suite,
            pool=pool,
            executor=RecedingHorizon(replan_steps),
            num_sampling_steps=num_sampling_steps,
            log=log,
            ranks=ranks,
            on_episode=lambda _: progress.advance(bar, ranks.num_processes),
        )


def _identity(policy: Policy) -> dict[str, str]:
    """What of a policy decides its actions: equal iff weights, settings and precision are."""
    transforms = policy.transforms
    return {
        "weights_sha256": policy.load_report.weights_sha256,
        "settings_sha256": settings_hash(
            policy.config, transforms.config, transforms.conventions, transforms.statistics
        ),
        "precision": policy.precision,
    }


def _with_actions(result: EvaluationResult, policy: Policy, pool: Pool) -> EvaluationResult:
    """The result with the actions of every episode to film; those run before are run again."""
    actions = list(result.actions)
    places = [place for place in choose_episodes(result) if actions[place] is None]
    if places:
        again = evaluate(
            policy,
            [result.episodes[place].spec for place in places],
            pool=pool,
            executor=RecedingHorizon(result.replan_steps),
            num_sampling_steps=result.num_sampling_steps,
        )
        for place, executed in zip(places, again.actions, strict=True):
            actions[place] = executed
    return result.model_copy(update={"actions": tuple(actions)})


def _require_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        found = f"{device!r} ({str(error).splitlines()[0]})"
        expected = "a device that torch can use here"
        raise UserError(describe("--device", found, expected, "Use --device cpu.")) from None


def _environment_arguments(pairs: Sequence[str]) -> dict[str, Any]:
    arguments, faults = {}, []
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name.isidentifier() and equals):
            remedy = "Write e.g. --env-arg image_size=64."
            faults.append(describe(f"--env-arg {pair}", repr(pair), "name=value", remedy))
            continue
        if name in arguments:
            faults.append(describe(f"--env-arg {pair}", f"{name} again", "each once", "Drop one."))
        try:
            arguments[name] = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError):
            remedy = "Put quotes around the value."
            faults.append(describe(f"--env-arg {name}", repr(text), "a YAML value", remedy))
    raise_faults(faults)
    return arguments


def _progress(*, is_shown: bool) -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    is_off = not (is_shown and console.is_terminal)
    return Progress(*columns, TimeElapsedColumn(), console=console, transient=True, disable=is_off)


def _write(
    checkpoint: str, policy: Policy, result: EvaluationResult, json_file: Path | None
) -> None:
    if json_file is not None:
        about = {"checkpoint": checkpoint, "weights_sha256": policy.load_report.weights_sha256}
        write_json(json_file, {**about, **result.summary()})
        print(f"wrote {json_file}")


def _require_none_lost(result: EvaluationResult) -> None:
    """Tells of every episode that its simulator lost, and exits with 1 if there is one."""
    for episode in result.lost:
        assert episode.lost is not None
        print(f"lost: seed {episode.seed} of {episode.env_id}, {episode.lost.error}")
    if result.lost:
        told = f"{len(result.lost)} of {len(result.episodes)} episodes"
        print(f"{told} were lost and count as no successes")
        raise typer.Exit(1)
