"""The index of a large dataset, kept from one opening to the next in the user's cache directory.

Opening reads the header of every episode, a millisecond each. What was read of a file is used again
as long as the file, its sidecars and this package's code are the same; anything else, a damaged
cache too, is read anew.
"""

import hashlib
import json
import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from data_tools.conventions import Conventions
from data_tools.errors import describe
from data_tools.finding import Finding
from data_tools.formats.layouts.sidecar import folder_sidecars_of, sidecar_of
from data_tools.formats.layouts.undeclared import Undeclared
from data_tools.formats.reading.records import PackedEpisodes, Plan

FORMAT: Final = "policy_ft index 2"
FOLDER: Final = "policy_ft/index"
MIN_EPISODES: Final = 1000
MAX_INDICES: Final = 32
# A file changed again within the clock's step of its file system would keep its time.
SETTLED_NS: Final = 3_000_000_000

_PLAN = TypeAdapter(Plan)
_FINDINGS = TypeAdapter(tuple[Finding, ...])
_UNDECLARED = TypeAdapter(tuple[Undeclared, ...])

Stamp = list[list[str | int] | None]


@dataclass(frozen=True)
class FileScan:
    """What one file was found to hold.

    Attributes:
        layout: name of its layout.
        conventions: what its numbers mean, as stored.
        evidence: the sentences that prove the layout.
        warnings: what a person should look at.
        undeclared: what only a person can tell, and has not.
        rules: what was done to rows, with the number of rows.
        origins: where each value of the conventions was found.
        episodes: its episodes.
    """

    layout: str
    conventions: Conventions
    evidence: tuple[str, ...]
    warnings: tuple[Finding, ...]
    undeclared: tuple[Undeclared, ...]
    rules: Mapping[str, int]
    origins: Mapping[str, str]
    episodes: PackedEpisodes


class IndexCache:
    """What is known of the files of one dataset.

    Args:
        key: what the dataset was asked for with: places, mask and layout.
    """

    def __init__(self, key: object) -> None:
        text = json.dumps([os.getcwd(), key])
        self._name = f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
        self._known = self._load()
        self._shared: list[str] = self._known.get("shared", [])
        self._numbers = {text: number for number, text in enumerate(self._shared)}
        self._files: dict[str, Any] = {}
        self._parsed: dict[tuple[str, int], Any] = {}
        self._folder_sidecars: dict[tuple[Path, Path], list[Path]] = {}
        self._is_changed = False

    def stamp(self, path: Path, top: Path) -> Stamp:
        """Name, size and time of a file and its sidecars: what an entry must agree with.

        Args:
            path: the data file.
            top: the folder up to which a folder's sidecar is looked for.
        """
        place = (path.parent, top)
        if place not in self._folder_sidecars:
            self._folder_sidecars[place] = folder_sidecars_of(path, top)
        return [_state(each) for each in (path, sidecar_of(path), *self._folder_sidecars[place])]

    def get(self, path: Path, stamp: Stamp) -> FileScan | None:
        """What is known of a file in this state; None when nothing is."""
        entry = self._known.get("files", {}).get(str(path))
        if entry is None or entry["stamp"] != stamp:
            return None
        self._files[str(path)] = entry
        episodes = PackedEpisodes(
            path=str(path),
            plans=tuple(self._value("plan", n, _PLAN.validate_json) for n in entry["plans"]),
            texts=tuple(self._shared[n] for n in entry["texts"]),
            groups=entry["groups"],
            facts=entry["facts"],
            attributes=entry["attributes"],
            kept={int(place): rows for place, rows in entry["kept"].items()},
            values={int(place): values for place, values in entry["values"].items()},
        )
        return FileScan(
            layout=entry["layout"],
            conventions=self._value(
                "conventions", entry["conventions"], Conventions.model_validate_json
            ),
            evidence=tuple(self._value("evidence", entry["evidence"], json.loads)),
            warnings=self._value("warnings", entry["warnings"], _FINDINGS.validate_json),
            undeclared=self._value("undeclared", entry["undeclared"], _UNDECLARED.validate_json),
            rules=self._value("rules", entry["rules"], json.loads),
            origins=self._value("origins", entry["origins"], json.loads),
            episodes=episodes,
        )

    def put(self, path: Path, stamp: Stamp, scan: FileScan) -> None:
        """Note what a file in this state holds, unless it may still be changing."""
        now = time.time_ns()
        if any(each is not None and now - int(each[2]) < SETTLED_NS for each in stamp):
            return
        try:
            json.dumps(list(scan.episodes.attributes))
        except TypeError:  # a complex number, say: a file may hold what JSON does not
            return
        episodes = scan.episodes
        entry = {
            "stamp": stamp,
            "layout": scan.layout,
            "conventions": self._number(scan.conventions.model_dump_json()),
            "evidence": self._number(json.dumps(scan.evidence)),
            "warnings": self._number(_FINDINGS.dump_json(scan.warnings).decode()),
            "undeclared": self._number(_UNDECLARED.dump_json(scan.undeclared).decode()),
            "rules": self._number(json.dumps(dict(scan.rules))),
            "origins": self._number(json.dumps(dict(scan.origins))),
            "plans": [self._number(_PLAN.dump_json(plan).decode()) for plan in episodes.plans],
            "texts": [self._number(text) for text in episodes.texts],
            "groups": list(episodes.groups),
            "facts": [list(facts) for facts in episodes.facts],
            "attributes": list(episodes.attributes),
            "kept": {str(place): list(rows) for place, rows in episodes.kept.items()},
            "values": {str(place): dict(values) for place, values in episodes.values.items()},
        }
        self._files[str(path)] = entry
        self._is_changed = True

    def save(self) -> None:
        """Keep what is known now, when it is new and large enough to be worth it.

        Warns where neither the user's cache directory nor the one for temporary files can be
        written.
        """
        num_episodes = sum(len(entry["groups"]) for entry in self._files.values())
        if not self._is_changed or num_episodes < MIN_EPISODES:
            return
        document = {"code": _code_digest(), "shared": self._shared, "files": self._files}
        body = json.dumps(document, separators=(",", ":")).encode()
        content = f"{FORMAT} {hashlib.sha256(body).hexdigest()}\n".encode() + body
        faults = []
        for folder in _folders():
            try:
                _write(folder, self._name, content)
                return
            except OSError as error:
                faults.append(f"{folder} ({error.strerror})")
        remedy = "Set XDG_CACHE_HOME to a folder you may write to; until then, opening stays slow."
        found = "no folder that can be written"
        warnings.warn(describe("index cache", found, " or ".join(faults), remedy), stacklevel=3)

    def _load(self) -> dict[str, Any]:
        for folder in _folders():
            try:
                content = (folder / self._name).read_bytes()
            except OSError:
                continue  # not here: the index is read from the data
            header, _, body = content.partition(b"\n")
            if header == f"{FORMAT} {hashlib.sha256(body).hexdigest()}".encode():
                document: dict[str, Any] = json.loads(body)
                if document["code"] == _code_digest():
                    return document
        return {}

    def _number(self, text: str) -> int:
        if text not in self._numbers:
            self._numbers[text] = len(self._shared)
            self._shared.append(text)
        return self._numbers[text]

    def _value(self, kind: str, number: int, parse: Any) -> Any:
        """A shared text parsed, once for all files that say the same."""
        if (kind, number) not in self._parsed:
            self._parsed[kind, number] = parse(self._shared[number])
        return self._parsed[kind, number]


def _state(path: Path) -> list[str | int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return [str(path), found.st_size, found.st_mtime_ns]


def _folders() -> Iterator[Path]:
    """Where indices are kept: the user's cache directory, or else a private temporary one."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    yield Path(home) / FOLDER
    private = Path(tempfile.gettempdir()) / f"policy_ft-{os.getuid()}"
    # What another user put there must not be believed.
    if not private.exists() or private.stat().st_uid == os.getuid():
        yield private / "index"


def _write(folder: Path, name: str, content: bytes) -> None:
    for each in (folder.parent, folder):
        each.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = folder / f"{name}.{os.getpid()}.partial"
    try:
        partial.write_bytes(content)
        partial.replace(folder / name)
    finally:
        partial.unlink(missing_ok=True)
    written = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    for path in written[:-MAX_INDICES]:
        path.unlink(missing_ok=True)


@cache
def _code_digest() -> str:
    """SHA-256 in hex over this package's code and presets, for other code may read otherwise."""
    digest = hashlib.sha256()
    here = Path(__file__).parents[2]
    files: Sequence[Path] = sorted([*here.rglob("*.py"), *here.rglob("*.yaml")])
    for path in files:
        digest.update(f"{path.relative_to(here)}\0".encode() + path.read_bytes())
    return digest.hexdigest()
