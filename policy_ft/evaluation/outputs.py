"""The files of an evaluation: known to be writable before its first rollout, written after it."""

import json
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from policy_ft.errors import describe, raise_faults
from policy_ft.evaluation.report import Video

_ELSEWHERE: Final = "Choose another folder, or ask for permission to write there."


def require_outputs(json_file: Path | None, videos: Path | None) -> None:
    """UserError for outputs that cannot be written or are something else; writes nothing.

    Args:
        json_file: to be made or replaced, in a folder that exists.
        videos: directory, made with its parents if need be.
    """
    faults = list(_json_faults(json_file)) if json_file is not None else []
    raise_faults([*faults, *(_directory_faults(videos) if videos is not None else ())])


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write the content as JSON; the place is one that `require_outputs` accepts."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="ascii")


def write_videos(directory: Path, videos: Sequence[Video]) -> list[Path]:
    """Write each video as success_<i>.mp4 or failure_<i>.mp4; the paths in the order given."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, each in enumerate(videos):
        outcome = "success" if each.is_success else "failure"
        paths.append(directory / f"{outcome}_{index}.mp4")
        paths[-1].write_bytes(each.mp4)
    return paths


def _json_faults(path: Path) -> Iterator[str]:
    folder = path.parent
    if path.suffix != ".json":
        remedy = "Name it .json; nothing else is ever overwritten."
        yield describe("--json", str(path), "a name that ends in .json", remedy)
    if not folder.is_dir():
        remedy = f"Run `mkdir -p {shlex.quote(str(folder))}`."
        yield describe("--json", str(path), "a file in an existing folder", remedy)
    elif path.is_dir():
        yield describe("--json", f"the directory {str(path)!r}", "a file", "Choose another name.")
    elif refusal := _refusal(path if path.exists() else folder):
        yield describe("--json", refusal, "a file that can be written", _ELSEWHERE)


def _directory_faults(path: Path) -> Iterator[str]:
    present = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not present.is_dir():
        found, remedy = f"the file {str(present)!r}", "Choose another name."
        yield describe("--video", found, "a directory", remedy)
    elif refusal := _refusal(present):
        yield describe("--video", refusal, "a directory that can be written to", _ELSEWHERE)


def _refusal(present: Path) -> str:
    """What the system says to writing to a file or into a folder that is there; "" when it may be.

    Permissions alone do not tell: file systems may be read-only, full or not made for files.
    """
    try:
        if present.is_dir():
            tempfile.TemporaryFile(dir=present).close()
        else:
            present.open("ab").close()
    except OSError as error:
        return f"{str(present)!r}, which cannot be written to ({error.strerror})"
    return ""
