"""What a person sees while a run goes on, and where its time went."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from data_tools.view.tables import print_table
from policy_ft.tuning.groups import GroupRow

Part = Literal["data", "encode", "step"]
PARTS: tuple[Part, ...] = ("data", "encode", "step")


class Stopwatch:
    """Where the seconds went: waiting for data, encoding, and the optimizer step itself.

    Times are wall clock. On an accelerator, work that is still queued counts for the part that
    waits for it: the step, which ends with reading whether its values are finite.
    """

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._num_steps = 0

    @contextmanager
    def measure(self, part: Part) -> Iterator[None]:
        """Adds the duration of the block to `part`."""
        start = time.perf_counter()
        yield
        self._seconds[part] += time.perf_counter() - start
        self._num_steps += part == "step"

    def lap(self, batch_size: int) -> dict[str, float]:
        """Since the last lap: samples_per_s, and of one step data_s, encode_s, step_s."""
        total, num_steps = sum(self._seconds.values()), max(self._num_steps, 1)
        values = {f"{part}_s": seconds / num_steps for part, seconds in self._seconds.items()}
        self._seconds, self._num_steps = dict.fromkeys(PARTS, 0.0), 0
        return {"samples_per_s": batch_size * num_steps / max(total, 1e-9), **values}


class ProgressDisplay:
    """A live bar on a terminal, a line for each record elsewhere; silent on ranks but the first."""

    def __init__(self, *, num_steps: int, is_main: bool) -> None:
        self.console = Console(quiet=not is_main)
        self._num_steps = num_steps
        self._steps_here, self._start = 0, time.perf_counter()
        self._bar = Progress(
            TextColumn("train"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._task = self._bar.add_task("train", total=num_steps)
        self._status = ""
        self._has_bar = is_main and self.console.is_terminal
        self._live = Live(
            console=self.console, get_renderable=lambda: Group(self._bar, self._status)
        )

    def __enter__(self) -> Self:
        self._start = time.perf_counter()
        if self._has_bar:
            self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._live.stop()

    def advance(self, train_step: int) -> None:
        """Moves the bar to a finished step."""
        self._steps_here += 1
        self._bar.update(self._task, completed=train_step)

    def show(self, train_step: int, kind: str, values: Mapping[str, float]) -> None:
        """Shows one record: the training's own below the bar, others above; or a line."""
        status = status_line(values)
        if kind == "train" and self._has_bar:
            self._status = status
            return
        step_s = (time.perf_counter() - self._start) / max(self._steps_here, 1)
        eta = f", {step_s * (self._num_steps - train_step):.0f} s left" if kind == "train" else ""
        self.say(f"step {train_step}/{self._num_steps} {kind}: {status}{eta}")

    def tell(self, table: Table) -> None:
        """Prints a table, whole."""
        print_table(table, self.console)

    def say(self, text: str) -> None:
        """Prints one line for people."""
        self.console.print(text, highlight=False, soft_wrap=True)


def status_line(values: Mapping[str, float]) -> str:
    """The record in a few words: 'loss 0.412, 310 samples/s (data 2 %, encode 11 %, step 87 %)'."""
    seconds = {part: values[f"{part}_s"] for part in PARTS if f"{part}_s" in values}
    own = [
        name for name in values if name not in {"samples_per_s", *(f"{part}_s" for part in PARTS)}
    ]
    text = ", ".join(f"{name} {values[name]:.4g}" for name in own)
    if not seconds:
        return text
    total = max(sum(seconds.values()), 1e-9)
    split = ", ".join(f"{part} {100 * spent / total:.0f} %" for part, spent in seconds.items())
    return f"{text}, {values['samples_per_s']:.0f} samples/s ({split})"


def groups_table(rows: Sequence[GroupRow], start: int = 0) -> Table:
    """The table printed before a phase: every parameter of the model in exactly one row.

    Args:
        rows: of the phase's plan.
        start: its first step.
    """
    table = Table(title=f"parameter groups from step {start} on" if start else "parameter groups")
    for column in (
        "group",
        "rule",
        "tensors",
        "parameters",
        "lr",
        "decay",
        "state",
    ):
        table.add_column(
            column, justify="left" if column in {"group", "rule", "state"} else "right"
        )
    for row in rows:
        is_trained = row.state == "trained"
        decay = f"{row.weight_decay:g}" if row.decayed_tensors else "none"
        table.add_row(
            row.group,
            row.pattern,
            f"{row.tensors:,}",
            f"{row.parameters:,}",
            _range(row.lr) if is_trained else "-",
            f"{decay} ({row.decayed_tensors}/{row.tensors})" if is_trained else "-",
            row.state,
        )
    return table


def _range(rates: tuple[float, float]) -> str:
    low, high = (f"{rate:.3g}" for rate in rates)
    return low if low == high else f"{low} to {high}"
