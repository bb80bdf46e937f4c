"""Rows of figures that are printed and written whatever happens, in the time that was given."""

import json
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

COLUMNS = ("batch", "samples_per_s", "mfu", "peak_gib", "median_ms", "p95_ms", "note")


@dataclass
class Report:
    """What was measured so far, on what, and how much time is left.

    Attributes:
        path: of the JSON file.
        facts: what the figures were measured on.
        deadline: of time.monotonic().
        footer: a line below the table.
        rows: in order.
    """

    path: Path
    facts: dict[str, Any]
    deadline: float
    footer: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def left_s(self) -> float:
        """Seconds until the time is up."""
        return self.deadline - time.monotonic()

    def watch(self) -> None:
        """Ends the process with what there is when the time is up, even inside a compiler."""
        timer = threading.Timer(max(self.left_s, 0.0), self._end)
        timer.daemon = True
        timer.start()

    def add(self, work: str, setting: str, cameras: int, **values: Any) -> None:
        """One row, shown at once."""
        self.rows.append({"work": work, "setting": setting, "cameras": cameras, **values})
        print(f"{self.left_s:.0f} s left: {self.rows[-1]}", flush=True)

    def finish(self) -> None:
        """Prints the table and writes the file; the second call waits for ever."""
        self._lock.acquire()
        table = Table("work", "setting", "cameras", *COLUMNS, title=str(self.facts["device"]))
        for row in self.rows:
            names = ("work", "setting", "cameras", *COLUMNS)
            table.add_row(*(_shown(row.get(name)) for name in names))
        Console(width=150).print(table, self.footer)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        record = {**self.facts, "rows": self.rows}
        self.path.write_text(json.dumps(record, indent=2) + "\n", encoding="ascii")
        print(f"wrote {self.path}", flush=True)

    def _end(self) -> None:
        self.rows.append({"work": "stopped", "note": "the time was up"})
        self.finish()
        os._exit(0)


def _shown(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
