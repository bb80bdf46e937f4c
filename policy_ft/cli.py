"""The command line: it parses, calls and prints; everything else is elsewhere."""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from typer.core import TyperGroup

from policy_ft import assemble, cli_checkpoints
from policy_ft.checkpoints.load import load_policy
from policy_ft.config.loader import (
    load_config,
    read_config,
    resolved_with_origin,
    validate_config,
)
from policy_ft.errors import UserError, describe, raise_faults
from policy_ft.evaluation.report import Video
from policy_ft.evaluation.results import EvaluationResult
from policy_ft.evaluation.rollout import evaluate
from policy_ft.evaluation.tables import family_table
from policy_ft.evaluation.videos import film
from policy_ft.execution.chunks import recorded_replan_steps
from policy_ft.execution.threads import rollout_threads
from policy_ft.policy import Policy
from policy_ft.quickstart import QuickstartSettings, run_quickstart

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


class Commands(TyperGroup):
    """Prints a user's mistake as sentences and exits with 2; --traceback raises it instead."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            if ctx.params["traceback"]:
                raise
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(EXIT_USER_ERROR) from None
        except KeyboardInterrupt:
            print("stopped; a training run goes on with `train ... --resume`", file=sys.stderr)
            raise typer.Exit(EXIT_INTERRUPTED) from None


app = typer.Typer(
    cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of the run.")]
Overrides = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a setting, e.g. --set optimizer.lr=1e-4."
    ),
]


@app.callback()
def common(
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where in the code a mistake was noticed.")
    ] = False,
) -> None:
    """Fine-tune a vision-language-action policy and measure whether it got better."""


@app.command()
def quickstart(
    output: Annotated[Path, typer.Option(help="Directory of everything it makes.")] = Path(
        "runs/quickstart"
    ),
    start: Annotated[
        Literal["base", "random"],
        typer.Option("--from", help="The shipped base policy, or the same model untrained."),
    ] = "base",
    seed: Annotated[
        int, typer.Option(min=0, max=2**48, help="Decides demonstrations, order and noise.")
    ] = 0,
    demos: Annotated[int, typer.Option(min=2, help="Demonstrations to collect.")] = 25,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Train steps, if not those of the packaged config.")
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Held-out episodes an evaluation.")] = 50,
) -> None:
    """Collect demonstrations of a new task, fine-tune the shipped policy, evaluate, report."""
    run_quickstart(
        QuickstartSettings(
            output=output, start=start, seed=seed, demos=demos, steps=steps, episodes=episodes
        ),
        Console(),
    )


@app.command()
def train(
    config: ConfigFile,
    overrides: Overrides = [],  # noqa: B006 - typer reads the default and never changes it
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint in output_dir.")
    ] = False,
) -> None:
    """Train as a config says."""
    words = ["policy-ft", "train", str(config)]
    words += [word for override in overrides for word in ("--set", override)]
    command = shlex.join([*words, "--resume"] if resume else words)
    result = assemble.train(load_config(config, overrides), resume=resume, command=command)
    print(f"last checkpoint: {result.last_checkpoint}\nbest checkpoint: {result.best_checkpoint}")


@app.command()
def check(
    config: ConfigFile,
    overrides: Overrides = [],  # noqa: B006
    resume: Annotated[
        bool, typer.Option("--resume", help="Check that the run in output_dir can go on.")
    ] = False,
) -> None:
    """Refuse what can be refused before training, all faults at once."""
    raise_faults(assemble.check(load_config(config, overrides), resume=resume))
    print(f"{config}: ready to train")


@app.command()
def show(
    path: Annotated[Path, typer.Argument(metavar="CONFIG|CHECKPOINT", help="What to show.")],
    overrides: Overrides = [],  # noqa: B006
    only_hash: Annotated[
        bool, typer.Option("--hash", help="Print only the SHA-256 over all weights in name order.")
    ] = False,
) -> None:
    """Show a config with the origin of every value, or what is inside a checkpoint."""
    if not path.is_dir():
        _require_no("--hash", only_hash, path, "a checkpoint directory")
        _show_config(path, overrides)
        return
    _require_no("--set", overrides, path, "a config file")
    policy = load_policy(path)
    if only_hash:
        print(policy.load_report.weights_sha256)
    else:
        _show_checkpoint(path, policy)


@app.command("eval")
def evaluate_checkpoint(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Its directory.")],
    env: Annotated[
        str, typer.Option(help="Gymnasium id with its module.")
    ] = "eval_envs:Tabletop-v0",
    task: Annotated[str, typer.Option(help="Short for --env-arg task=...")] = "",
    env_args: Annotated[
        list[str],
        typer.Option("--env-arg", metavar="KEY=VALUE", help="Setting of the environment."),
    ] = [],  # noqa: B006
    num_episodes: Annotated[int, typer.Option("--num-episodes", "-n", min=1)] = 50,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            max=2**62,
            help="Of the first episode; the next count up. Keep apart from evaluation.seed.",
        ),
    ] = 30_000,
    num_envs: Annotated[int, typer.Option(min=1, help="Environments a call of the policy.")] = 10,
    replan_steps: Annotated[
        int | None,
        typer.Option(min=1, help="Actions executed before looking again; else the checkpoint's."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write every episode here.")
    ] = None,
    video: Annotated[
        Path | None, typer.Option(help="Film three successes and failures here.")
    ] = None,
) -> None:
    """Run a checkpoint in an environment and report success with its 95 % Wilson interval."""
    _require_outputs(json_file, video)
    _require_device(device)
    policy = load_policy(checkpoint, device=device)
    arguments = _environment_arguments([*([f"task={task}"] if task else []), *env_args])
    with _progress() as progress, rollout_threads():
        bar = progress.add_task("episodes", total=num_episodes)
        result = evaluate(
            policy,
            env,
            arguments,
            range(seed, seed + num_episodes),
            num_envs=num_envs,
            replan_steps=replan_steps or recorded_replan_steps(policy.provenance),
            num_sampling_steps=policy.config.num_sampling_steps,
            on_episode=lambda _: progress.advance(bar),
        )
    print(f"{checkpoint}: " + "\n".join(policy.load_report.lines()))
    Console().print(family_table(f"{checkpoint} in {env}", result))
    if json_file is not None:
        _write_json(json_file, checkpoint, policy, result)
    if video is not None:
        _write_videos(video, film(result))


for command in (cli_checkpoints.convert, cli_checkpoints.push, cli_checkpoints.pull):
    app.command()(command)


def main() -> None:
    """Run the command line."""
    app()


def _show_config(path: Path, overrides: Sequence[str]) -> None:
    source = read_config(path, overrides)
    table = Table("setting", "value", "origin", title=str(path), title_justify="left")
    for key, value, origin in resolved_with_origin(validate_config(source), source):
        table.add_row(key, json.dumps(value), origin)
    Console().print(table)


def _show_checkpoint(path: Path, policy: Policy) -> None:
    console = Console()
    groups = Table("group", "tensors", "parameters", title=str(path), title_justify="left")
    tensors = dict(policy.model.named_parameters())
    for group, names in policy.groups().items():
        sizes = [tensors[name].numel() for name in names]
        groups.add_row(group, str(len(sizes)), f"{sum(sizes):,}")
    groups.add_row("all", str(len(tensors)), f"{sum(each.numel() for each in tensors.values()):,}")
    console.print(groups)
    print("\n".join(policy.load_report.lines()))
    parts = {
        "model": policy.config.model_dump(mode="json"),
        "conventions": policy.conventions.model_dump(mode="json"),
        "provenance": policy.provenance,
        "unused_tensors": sorted(policy.unused),
        "weights_sha256": policy.load_report.weights_sha256,
    }
    print(yaml.safe_dump(parts, sort_keys=False, width=100))


def _require_no(option: str, given: object, path: Path, needed: str) -> None:
    if given:
        raise UserError(describe(option, str(path), needed, f"Leave {option} out."))


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
        except yaml.YAMLError:
            remedy = "Put quotes around the value."
            faults.append(describe(f"--env-arg {name}", repr(text), "a YAML value", remedy))
    raise_faults(faults)
    return arguments


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    is_off = not console.is_terminal
    return Progress(*columns, TimeElapsedColumn(), console=console, transient=True, disable=is_off)


def _require_outputs(json_file: Path | None, video: Path | None) -> None:
    """UserError, before any rollout, for outputs that cannot be written or are something else."""
    faults = []
    if json_file is not None and json_file.suffix != ".json":
        remedy = "Name it .json; nothing else is ever overwritten."
        faults.append(describe("--json", str(json_file), "a name that ends in .json", remedy))
    if json_file is not None and not json_file.parent.is_dir():
        remedy = f"Run `mkdir -p {shlex.quote(str(json_file.parent))}`."
        faults.append(describe("--json", str(json_file), "a file in an existing folder", remedy))
    if video is not None and video.exists() and not video.is_dir():
        remedy = "Choose another name."
        faults.append(describe("--video", f"the file {str(video)!r}", "a directory", remedy))
    raise_faults(faults)


def _write_json(path: Path, checkpoint: Path, policy: Policy, result: EvaluationResult) -> None:
    about = {"checkpoint": str(checkpoint), "weights_sha256": policy.load_report.weights_sha256}
    path.write_text(json.dumps({**about, **result.summary()}, indent=2) + "\n", encoding="ascii")
    print(f"wrote {path}")


def _write_videos(directory: Path, videos: Sequence[Video]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for index, each in enumerate(videos):
        outcome = "success" if each.is_success else "failure"
        path = directory / f"{outcome}_{index}.mp4"
        path.write_bytes(each.mp4)
        print(f"wrote {path}: {each.caption}")
