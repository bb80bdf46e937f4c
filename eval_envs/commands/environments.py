"""eval-envs list, check, collect, play and expert."""

from pathlib import Path
from typing import Annotated, Any

import gymnasium
import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.progress import Progress

import eval_envs
from data_tools.conventions import Conventions
from data_tools.errors import UserError, describe
from data_tools.storage.frames.videos import encode_mp4
from eval_envs.collect import HasExpert, collect, demonstrate
from eval_envs.contract import check_env
from eval_envs.intervals import wilson_interval
from eval_envs.making import make_env

app = typer.Typer()
_console = Console()

EnvId = Annotated[
    str, typer.Option("--env", help="Gymnasium id, with its module: 'module:Name-v0'.")
]
Task = Annotated[str, typer.Option(help="Task family, or several joined by '+'.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.", min=0)]
Noise = Annotated[float, typer.Option(help="Mistakes to recover from: 0 none, 1 the usual amount.")]
DEFAULT_ENV = "eval_envs:Tabletop-v0"


@app.command("list")
def list_environments() -> None:
    """The environments of this package, their tasks and what they declare."""
    for env_id in eval_envs.ENVIRONMENTS:
        env = gymnasium.make(f"eval_envs:{env_id}")
        declared = env.unwrapped.conventions  # type: ignore[attr-defined]
        has_expert = "yes" if isinstance(env.unwrapped, HasExpert) else "no"
        env.close()
        rate = declared.known_control_hz("list the environment")
        _console.print(f"[bold]eval_envs:{env_id}[/bold] at {rate:g} Hz, expert: {has_expert}")
        for name, part in (("state", declared.state), ("action", declared.action)):
            columns = ", ".join(
                f"{column} ({unit})" for column, unit in zip(part.names, part.units, strict=True)
            )
            _console.print(f"  {name}: {columns}")
        for camera in declared.cameras:
            _console.print(
                f"  camera: {camera.name}, {camera.height} x {camera.width}, {camera.source}"
            )


@app.command("check")
def check(
    env_id: Annotated[str, typer.Argument(help="Gymnasium id, with its module.")] = DEFAULT_ENV,
    task: Annotated[
        str, typer.Option(help="Given to environments that take one, as ours do.")
    ] = "",
) -> None:
    """Whether an environment keeps the contract, all faults at once."""
    arguments = {"task": task} if task else {}
    check_env(make_env(env_id, {**arguments, "render_mode": "rgb_array"}))
    _console.print(f"{env_id}: keeps the contract and Gymnasium's")


@app.command("collect")
def collect_demonstrations(
    path: Annotated[Path, typer.Argument(help="HDF5 file to make.")],
    task: Task = "pick",
    num_episodes: Annotated[
        int, typer.Option("--num-episodes", "-n", help="Episodes in the file.", min=1)
    ] = 25,
    seed: Seed = 0,
    noise: Noise = 0.0,
    env_id: EnvId = DEFAULT_ENV,
    image_size: Annotated[int, typer.Option(help="Pixels a side.")] = 64,
    workers: Annotated[int, typer.Option(help="Processes.", min=1)] = 1,
    keep_failures: Annotated[bool, typer.Option(help="Keep attempts that miss the goal.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
) -> None:
    """Write demonstrations of the scripted expert."""
    with Progress(console=_console) as progress:
        bar = progress.add_task(f"{task}", total=num_episodes)
        collect(
            path,
            task=task,
            num_episodes=num_episodes,
            seed=seed,
            noise=noise,
            env_id=env_id,
            env_args={"image_size": image_size},
            workers=workers,
            keep_failures=keep_failures,
            overwrite=overwrite,
            progress=lambda done: progress.update(bar, completed=done),
        )
    _console.print(f"{path}: {num_episodes} episodes, {path.stat().st_size / 1e6:.1f} MB")


@app.command("play")
def play(
    out: Annotated[Path, typer.Option("--out", "-o", help="MP4 file to make.")] = Path("play.mp4"),
    task: Task = "pick",
    num_episodes: Annotated[int, typer.Option("--num-episodes", "-n", help="Episodes.", min=1)] = 4,
    seed: Seed = 0,
    noise: Noise = 0.0,
    env_id: EnvId = DEFAULT_ENV,
) -> None:
    """Film the scripted expert: both cameras as a policy sees them, episode after episode."""
    if out.suffix != ".mp4" or not out.parent.is_dir():
        remedy = "Name it .mp4, in a folder that exists; nothing else is ever overwritten."
        raise UserError(describe("--out", str(out), "a name that ends in .mp4", remedy))
    env = _make_with_expert(env_id, task)
    frames: list[npt.NDArray[np.uint8]] = []
    for index in range(num_episodes):
        demonstration = demonstrate(env, seed, index, noise)
        _console.print(
            f"{demonstration.instruction}: {'success' if demonstration.is_success else 'failure'}"
        )
        side_by_side = np.concatenate(list(demonstration.images.values()), axis=2)
        frames += list(side_by_side.repeat(4, axis=1).repeat(4, axis=2))
    declared: Conventions = env.unwrapped.conventions  # type: ignore[attr-defined]
    rate = declared.known_control_hz("film it")
    env.close()
    out.write_bytes(encode_mp4(frames, rate))
    _console.print(f"{out}: {len(frames)} frames")


@app.command("expert")
def measure_expert(
    task: Task = "pick",
    num_episodes: Annotated[
        int, typer.Option("--num-episodes", "-n", help="Episodes.", min=1)
    ] = 200,
    seed: Seed = 0,
    noise: Noise = 0.0,
    env_id: EnvId = DEFAULT_ENV,
) -> None:
    """Success rate of the scripted expert with its 95 % Wilson interval, and the steps it takes."""
    env = _make_with_expert(env_id, task, cameras=("front",), image_size=8)
    attempts = [demonstrate(env, seed, index, noise) for index in range(num_episodes)]
    env.close()
    for family in dict.fromkeys(attempt.attributes.get("family", task) for attempt in attempts):
        chosen = [
            attempt for attempt in attempts if attempt.attributes.get("family", task) == family
        ]
        steps = [len(attempt.actions) for attempt in chosen if attempt.is_success]
        low, high = wilson_interval(len(steps), len(chosen))
        took = f"steps {np.mean(steps):.1f} (longest {max(steps)})" if steps else ""
        _console.print(
            f"{family}: success {100 * len(steps) / len(chosen):.1f} % "
            f"\\[{100 * low:.1f}, {100 * high:.1f}], n = {len(chosen)}; {took}",
            highlight=False,
        )


def _make_with_expert(env_id: str, task: str, **settings: Any) -> gymnasium.Env[Any, Any]:
    env = make_env(env_id, {"task": task, **settings})
    if not isinstance(env.unwrapped, HasExpert):
        env.close()
        raise UserError(
            describe(env_id, "no expert_action", "a scripted expert", "Choose another environment.")
        )
    return env
