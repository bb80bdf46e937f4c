"""episodes.jsonl: one line an episode, on the disk as soon as the episode has ended."""

import errno
import json
import os
from collections.abc import Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import IO, Self

from pydantic import JsonValue, ValidationError

from data_tools.storage.files.disk import try_to_lock
from eval_envs.episodes import EpisodeSpec
from policy_ft.checkpoints.atomic import write_atomically
from policy_ft.errors import UserError, describe, raise_faults, read_json, validation_faults
from policy_ft.evaluation.results import EpisodeRecord

EPISODES_FILE = "episodes.jsonl"
CONDITIONS_FILE = "evaluation.json"
LOCK_FILE = ".lock"


class EpisodeLog:
    """The directory of an evaluation, which may be killed at any moment and goes on from there.

    `evaluation.json` says what is evaluated and how, `episodes.jsonl` what came of every episode.
    While it runs, lines stand in the order in which episodes ended and those of other ranks in
    files of their own, `episodes.rank1.jsonl`; at its end all stand in the suite's order in one. So
    the file of an evaluation that was killed is that of one that was not. A last line that was cut
    short is dropped, and its episode run again, as is one whose line is removed by hand. Times are
    not written: they differ from run to run.

    Args:
        directory: made if need be; of this evaluation or without one.
        conditions: what episodes depend on beside their specs: weights, replan_steps, ...
        rank: of this process among those that share the evaluation; the first one reads, checks and
            joins the files, so `begin` and `end` are its alone.
    """

    def __init__(self, directory: Path, conditions: Mapping[str, JsonValue], rank: int = 0) -> None:
        self.directory, self._conditions, self._rank = directory, dict(conditions), rank
        self._file: FileIO | None = None
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for file in (self._file, self._lock):
            if file is not None:
                file.close()

    def begin(self, suite: Sequence[EpisodeSpec]) -> dict[int, EpisodeRecord]:
        """Place in the suite -> record of each episode that was run before.

        Raises:
            UserError: another evaluation is in the directory or at work there, a line is damaged,
                or nothing can be written there.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = (self.directory / LOCK_FILE).open("a", encoding="ascii")
            try_to_lock(self._lock)
        except BlockingIOError:
            remedy = "Wait for it, stop it, or choose another directory."
            found = "another evaluation at work there"
            raise UserError(describe(str(self.directory), found, "none", remedy)) from None
        except OSError as error:
            remedy = "Choose another directory."
            expected = "a directory to write to"
            raise UserError(
                describe(str(self.directory), f"{error.strerror}", expected, remedy)
            ) from None
        places = {_key(spec): place for place, spec in enumerate(suite)}
        records = {_key(record.spec): record for record in self._read()}
        self._require_same_conditions(is_begun=bool(records))
        self._require_known(records, places)
        self._write(list(records.values()))
        return {places[key]: record for key, record in records.items()}

    def add(self, record: EpisodeRecord) -> None:
        """One more episode; when this returns it is on the disk."""
        name = f"episodes.rank{self._rank}.jsonl" if self._rank else EPISODES_FILE
        line = _line(record).encode()
        try:
            if self._file is None:
                self._file = (self.directory / name).open("ab", buffering=0)
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError as error:
            found, expected = f"{error.strerror}", "a disk that takes another line"
            remedy = "Make room and give the same command again: it goes on from here."
            raise UserError(describe(str(self.directory), found, expected, remedy)) from None

    def end(self, records: Sequence[EpisodeRecord]) -> None:
        """Write all episodes in the suite's order."""
        self._write(records)

    def _require_same_conditions(self, *, is_begun: bool) -> None:
        path = self.directory / CONDITIONS_FILE
        if not is_begun:
            write_atomically(path, json.dumps(self._conditions, indent=2) + "\n")
            return
        found = read_json(path)
        known = found if isinstance(found, dict) else {}
        raise_faults(
            describe(
                f"{path}, {name}",
                repr(known.get(name)),
                f"{self._conditions.get(name)!r}, as is asked for now",
                "Choose another directory, or evaluate as this one was.",
            )
            for name in sorted({*known, *self._conditions})
            if known.get(name) != self._conditions.get(name)
        )

    def _require_known(
        self, records: Mapping[str, EpisodeRecord], places: Mapping[str, int]
    ) -> None:
        foreign = [record.spec for key, record in records.items() if key not in places]
        if foreign:
            first = foreign[0]
            found = f"{len(foreign)} episodes that are not asked for now, the first of seed"
            found = f"{found} {first.seed} in {first.env_id} with {first.env_args}"
            remedy = "Choose another directory, or ask for these episodes, too."
            where = str(self.directory / EPISODES_FILE)
            raise UserError(describe(where, found, "those of this suite", remedy))

    def _parts(self) -> list[Path]:
        """The file of all episodes, if it is there, and those of other ranks."""
        parts = sorted(self.directory.glob("episodes.rank*.jsonl"))
        return [path for path in (self.directory / EPISODES_FILE, *parts) if path.exists()]

    def _read(self) -> list[EpisodeRecord]:
        """Every whole line of every file."""
        records, faults = [], []
        for path in self._parts():
            *lines, _ = path.read_bytes().split(b"\n")
            for number, line in enumerate(lines, start=1):
                try:
                    records.append(EpisodeRecord.model_validate_json(line))
                except ValidationError as error:
                    found = "; ".join(validation_faults(error, EpisodeRecord))
                    remedy = "Remove the line; its episode is then run again."
                    expected = "the record of an episode"
                    faults.append(describe(f"{path}:{number}", found, expected, remedy))
        raise_faults(faults)
        return records

    def _write(self, records: Sequence[EpisodeRecord]) -> None:
        """All episodes in one file, in this order; it is left alone where it is so already."""
        path, text = self.directory / EPISODES_FILE, "".join(map(_line, records))
        if not path.exists() or path.read_bytes() != text.encode():
            write_atomically(path, text)
        for part in self._parts()[1:]:
            part.unlink()


def _line(record: EpisodeRecord) -> str:
    return record.model_dump_json() + "\n"


def _key(spec: EpisodeSpec) -> str:
    return json.dumps(spec.model_dump(mode="json"), sort_keys=True)
