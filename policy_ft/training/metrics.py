"""The record of a run: one JSON object a line, always, and TensorBoard events by option."""

import json
import math
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from policy_ft.checkpoints.atomic import write_atomically
from policy_ft.errors import UserError, describe

Record = dict[str, Any]

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

METRICS_FILE = "metrics.jsonl"


class MetricsLog:
    """Appends to `metrics.jsonl`, after removing what the lost part of a resumed run wrote."""

    def __init__(
        self, directory: Path, first_step: int, *, tensorboard: bool, is_assessed: bool = True
    ) -> None:
        self._path = directory / METRICS_FILE
        truncate(self._path, first_step, is_assessed=is_assessed)
        self._file = self._path.open("a", encoding="ascii")
        self._events = _event_writer(directory / "tensorboard", first_step) if tensorboard else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()

    def write(self, train_step: int, kind: str, values: Mapping[str, float]) -> None:
        """Adds the line {"train_step": ..., "kind": ..., name: value, ...}, visible at once."""
        for name, value in values.items():
            if not math.isfinite(value):
                raise ValueError(
                    f"metric {name!r} of step {train_step}: found {value}; expected a finite number"
                )
        rounded = {name: float(f"{value:.9g}") for name, value in values.items()}
        self._file.write(json.dumps({"train_step": train_step, "kind": kind, **rounded}) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(f"{kind}/{name}", value, train_step)

    def sync(self) -> None:
        """Makes what was written survive a power cut."""
        os.fsync(self._file.fileno())


def read_metrics(directory: Path) -> list[Record]:
    """Every record of a run, in order; a last line that a kill cut short is left out."""
    path = directory / METRICS_FILE
    if not path.exists():
        return []
    lines = path.read_text(encoding="ascii").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def truncate(path: Path, last_step: int, *, is_assessed: bool = True) -> None:
    """Leaves the whole lines up to `last_step`; replaces the file atomically.

    Of the last step only the "train" line stays when it has yet to be assessed.
    """
    rows = [
        row
        for row in read_metrics(path.parent)
        if row["train_step"] < last_step
        or (row["train_step"] == last_step and (is_assessed or row["kind"] == "train"))
    ]
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))


def require_tensorboard() -> None:
    """UserError when TensorBoard is asked for and not installed."""
    if find_spec("tensorboard") is None:
        raise UserError(
            describe(
                "training.tensorboard",
                "true, without the package tensorboard",
                "an installed tensorboard",
                "Run `pip install 'policy_ft[track]'`, or set training.tensorboard to false.",
            )
        )


def _event_writer(directory: Path, first_step: int) -> "SummaryWriter":
    require_tensorboard()
    from torch.utils.tensorboard import SummaryWriter  # optional: the extra 'track'

    return SummaryWriter(str(directory), purge_step=first_step + 1)
