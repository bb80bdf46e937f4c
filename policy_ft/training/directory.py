"""The checkpoints of a run on the disk: which there are, where to go on, and which stay."""

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from policy_ft.checkpoints.atomic import UNFINISHED_SUFFIX
from policy_ft.errors import UserError, describe
from policy_ft.training.metrics import Record

CONFIG_FILE, CHECKPOINTS = "config.yaml", "checkpoints"
STATE_DIRECTORY, STATE_FILE = "training_state", "state.json"
DELETED = ".deleted"
STEP_NAME = re.compile(r"step_\d{8}")


@dataclass(frozen=True)
class TrainResult:
    """What a run left on disk.

    Attributes:
        directory: the run's output directory.
        last_checkpoint: the policy after the last step.
        best_checkpoint: the best policy: by rollouts where the run had them, else by validation
            loss.
        metrics: every record of metrics.jsonl, in order.
    """

    directory: Path
    last_checkpoint: Path
    best_checkpoint: Path
    metrics: list[Record]


def starting_point(checkpoints: Path, *, resume: bool) -> Path | None:
    """The newest complete checkpoint when a run is resumed, None for a fresh start.

    Raises:
        UserError: there are checkpoints, and the run was not asked to resume; or the newest cannot
            be gone on from.
    """
    steps = _steps(checkpoints)
    if not steps:
        return None
    if not resume:
        raise UserError(
            describe(
                str(checkpoints),
                f"{steps[-1].name} of an earlier run",
                "an output directory without checkpoints",
                "Add --resume to go on with that run, or choose another output_dir.",
            )
        )
    if not (steps[-1] / STATE_DIRECTORY / STATE_FILE).is_file():
        raise UserError(
            describe(
                str(steps[-1]),
                f"no {STATE_DIRECTORY}/{STATE_FILE}",
                "the state of the training that made this policy",
                "Move this directory elsewhere to go on from the one before it.",
            )
        )
    return steps[-1]


def step_directory(checkpoints: Path, train_step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return checkpoints / f"step_{train_step:08d}"


def remove_temporaries(checkpoints: Path) -> None:
    """Deletes what a kill left half-written or half-deleted."""
    for path in checkpoints.glob(".*"):
        if path.suffix not in (UNFINISHED_SUFFIX, DELETED):
            continue
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path)


def tidy(checkpoints: Path, keep: int, best_steps: Sequence[int]) -> None:
    """Points `last` and `best` at their steps; deletes all but the newest `keep` and the best ones.

    Args:
        checkpoints: of the run.
        keep: how many of the newest stay, at least 1.
        best_steps: all that stay; `best` points at the last of those that are there.
    """
    steps = _steps(checkpoints)
    named = [step_directory(checkpoints, each) for each in best_steps]
    best = [path for path in named if path in steps]
    _link(checkpoints / "last", steps[-1])
    if best:
        _link(checkpoints / "best", best[-1])
    else:
        (checkpoints / "best").unlink(missing_ok=True)
    for path in steps:
        if path not in (*steps[-keep:], *best):
            # renamed first, so that a kill leaves no half of a checkpoint under its name
            doomed = path.with_name(f".{path.name}{DELETED}")
            os.replace(path, doomed)
            shutil.rmtree(doomed)


def _steps(checkpoints: Path) -> list[Path]:
    return sorted(path for path in checkpoints.glob("step_*") if STEP_NAME.fullmatch(path.name))


def _link(link: Path, target: Path) -> None:
    temporary = link.with_name(f".{link.name}{UNFINISHED_SUFFIX}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target.name)
    os.replace(temporary, link)
