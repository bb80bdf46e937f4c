"""Draft: the sidecar of a file, with blanks for what only a person can tell."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from data_tools.errors import Fault, Faults, UserError, describe, raise_faults, shown
from data_tools.formats.drafts.arrangement import Arrangement, arranged
from data_tools.formats.drafts.candidates import Candidate, Candidates, candidates, scalar
from data_tools.formats.layouts.layout import NUMBER_WORD
from data_tools.formats.layouts.preset import presets
from data_tools.formats.layouts.sidecar import (
    FOLDER_SIDECAR,
    folder_sidecars_of,
    is_there,
    sidecar_of,
)
from data_tools.formats.reader import open_dataset
from data_tools.rules import MISSING_PART, NO_STEPS, UNKNOWN_LAYOUT, WRONG_FORM
from data_tools.storage.files.disk import existing_faults
from data_tools.storage.files.paths import expand, first_refused
from data_tools.storage.files.remote import RemotePath, path_of
from data_tools.storage.hdf5.opening import open_hdf5

_HEAD_OF_KNOWN: Final = """\
# A draft by `robot-data inspect --draft`: what these files do not tell. Fill in each blank <...>;
# what is usual in files of their kind is a hint. Then: robot-data inspect {place}
"""
_HEAD: Final = """\
# A draft by `robot-data inspect --draft`, from the structure of {file}.
# Fill in each blank <...>: nothing in the file says it. Of datasets in <...> take the brackets off
# those that belong there and delete the lines of the others. Then: robot-data inspect {place}
"""
# What people call the pictures in a camera's group, and the groups of all cameras.
_NO_NAME: Final = {
    *("rgb", "color", "colors", "image", "images", "frames", "data", "raw", "camera", "cameras"),
    *("obs", "observation", "observations", "vision"),
}
_OF_PLACES: Final = (UNKNOWN_LAYOUT, MISSING_PART, WRONG_FORM, NO_STEPS)
_BLANK_TEXT: Final = "<the task as a sentence>"


@dataclass(frozen=True)
class Draft:
    """A sidecar with blanks.

    Attributes:
        text: YAML; '' where nothing is to be declared.
        target: where it belongs; None for data behind a URL.
        note: which of the files it does not fit; '' where it fits all.
    """

    text: str
    target: Path | None
    note: str = ""

    @property
    def blanks(self) -> list[str]:
        """What stands in <...> and has to be filled in or deleted."""
        lines = [re.sub(r"(^| )# .*", "", line) for line in self.text.splitlines()]
        return [blank for line in lines for blank in re.findall(r"<[^<>]+>", line)]


def draft_for(
    places: Sequence[str], layout: str | None = None, *, allow_external_links: bool = False
) -> Draft:
    """The sidecar of these files: what their layout leaves open, or all of an unknown layout.

    Args:
        places: files, a folder or a glob of them.
        layout: name of the layout, where it is to be taken for another than it looks.
        allow_external_links: as of `open_dataset`.

    Raises:
        UserError: there is a sidecar already, the files lack different things, or hold nothing that
            could be declared.
    """
    target = _target(places)
    try:
        dataset = open_dataset(
            places,
            layout=layout,
            allow_undeclared=True,
            allow_external_links=allow_external_links,
        )
    except UserError as error:
        path = first_refused(places, error)
        if path is None or layout is not None or _is_of_other_making(path, places, error):
            raise
        note = _misfits(path, expand(places).read)
        return Draft(structural_draft(path, " ".join(places)), target, note)
    drafts = dataset.inspected.drafts
    if len(drafts) > 1:
        found, expected = f"{len(drafts)} kinds of files", "files that lack the same"
        remedy = "Draft one of them, or a folder of one kind, at a time."
        raise UserError(describe(" ".join(places), found, expected, remedy))
    head = _HEAD_OF_KNOWN.format(place=" ".join(places))
    return Draft("".join(f"{head}{lines}\n" for lines in drafts), target)


def _target(places: Sequence[str]) -> Path | None:
    """Where the sidecar belongs; an empty file there, as `> FILE` of a shell makes, is removed."""
    if any(isinstance(path_of(place), RemotePath) for place in places):
        return None
    if len(places) == 1 and Path(places[0]).is_file():
        target = sidecar_of(Path(places[0]))
    elif len(places) == 1 and Path(places[0]).is_dir():
        target = Path(places[0]) / FOLDER_SIDECAR
    else:
        folders = {file.parent for file in expand(places).read}
        if len(folders) > 1:
            found, remedy = f"files in {len(folders)} folders", "Give the folder that holds them."
            raise UserError(describe(" ".join(places), found, "one folder", remedy))
        target = folders.pop() / FOLDER_SIDECAR
    if target.is_file() and target.stat().st_size == 0:
        target.unlink()
    raise_faults(existing_faults(target, "no sidecar yet, for a draft writes over nothing"))
    return target


def _is_of_other_making(path: Path, places: Sequence[str], error: UserError) -> bool:
    """Whether a draft would not help.

    What is wrong is no matter of where things lie, a sidecar has the fault, or the file has no
    observations.
    """
    rules = {fault.rule if isinstance(fault, Fault) else "" for fault in error.faults}
    if not rules <= {rule.name for rule in _OF_PLACES}:
        return True
    top = Path(places[0]) if Path(places[0]) in path.parents else path.parent
    has_sidecar = any(map(is_there, [sidecar_of(path), *folder_sidecars_of(path, top)]))
    refusals = [preset.refusal for preset in presets().values() if preset.refusal]
    return has_sidecar or any(refusal in str(error) for refusal in refusals)


def _misfits(path: Path, files: Sequence[Path]) -> str:
    """Which of the files are arranged otherwise than the one of the draft, in words."""
    own = _parts(path)
    others = {file: parts for file in files if (parts := _parts(file)) != own}
    if not others:
        return ""
    first, parts = next(iter(others.items()))
    has, lacks = (shown(sorted(a - b)) for a, b in ((parts, own), (own, parts)))
    told = f"{len(others)} of {len(files)} files are not like {path.name}"
    return f"{told}, the first {first}: it has {has} and lacks {lacks}"


def _parts(path: Path) -> set[str]:
    """How the episodes of a file lie, and the datasets of one; empty where no draft can be made."""
    arrangement = Faults().of(lambda: _arranged(path))
    if arrangement is None:
        return set()
    return {f"episodes: {arrangement.episodes} in {arrangement.root!r}", *arrangement.datasets}


def _arranged(path: Path) -> Arrangement:
    with open_hdf5(path) as file:
        return arranged(file)


def structural_draft(path: Path, place: str) -> str:
    """The YAML of a sidecar that declares a file of no known layout, with blanks.

    Args:
        path: the file.
        place: what was asked about, for the command to give next.

    Raises:
        UserError: the file does not open, or has nothing with a row a step.
    """
    with open_hdf5(path) as file:
        arrangement = arranged(file)
        found = candidates(arrangement)
        lines = [*_meaning(found), *_layout(arrangement, found), *_rest(found)]
    return _HEAD.format(file=path.name, place=place) + "\n".join(lines) + "\n"


def _meaning(found: Candidates) -> Iterator[str]:
    yield "control_hz: <control steps a second>"
    if found.frames:
        yield "cameras:  # one line a camera, by name, where they differ"
        fields = "color_order: <rgb | bgr>, orientation: <upright | flipped_vertical | rotated_180>"
        yield f'  - {{name: "*", {fields}}}'
    yield "action:"
    yield "  references: <delta | absolute | velocity, or a list with one a column>"
    yield "  # columns are named <dataset>_0, <dataset>_1, ..., or as `names` of a source says"
    yield "  grippers: [{column: <name>, open_value: <number>, closed_value: <number>}]  # or []"


def _layout(arrangement: Arrangement, found: Candidates) -> Iterator[str]:
    yield "layout:"
    yield f"  episodes: {arrangement.episodes}  # {arrangement.count} in this file"
    yield f"  root: {scalar(arrangement.root)}"
    if arrangement.episode_names:
        yield f"  episode_names: {scalar(arrangement.episode_names)}"
    if arrangement.ends:
        yield "  ends:"
        yield from (f"    - {_blank(name, len(arrangement.ends))}" for name in arrangement.ends)
    yield '  observations: ""'
    commands = [one for one in found.columns if one.is_command]
    others = [one for one in found.columns if not one.is_command]
    yield "  actions:"
    yield from _sources(
        commands or others, is_certain=any("action" in one.path for one in commands)
    )
    yield "  state:"
    yield from _sources(others or commands, is_certain=bool(others and commands))
    if found.frames:
        yield "  images:"
        for name, one in zip(_camera_names(found.frames), found.frames, strict=True):
            yield f"    {scalar(name)}: {scalar(one.path)}  # {one.words}"
    if _is_uneven(arrangement, found):
        yield "  observation_rows: either  # some have a row more than others"
    yield f"  instruction: {{text: {_BLANK_TEXT}}}"
    yield from (f"  # or {place}  # there: {value}" for place, value in found.texts)
    yield from (
        f"  # rate: {place}  # there: {value}; if that is the rate in hertz, delete control_hz"
        for place, value in found.rates
    )
    for one in found.clocks:
        seconds = "unit_s: <seconds in one unit>"
        yield f"  # times: {{dataset: {scalar(one.path)}, {seconds}}}  # {one.words}"


def _sources(of: Sequence[Candidate], *, is_certain: bool) -> Iterator[str]:
    """A line each; in brackets unless there is one only, and it is what its name says."""
    for one in of:
        dataset = _blank(one.path, 1 if is_certain and len(of) == 1 else 2)
        yield f"    - {{dataset: {dataset}, units: <unit>}}  # {one.words}"


def _rest(found: Candidates) -> Iterator[str]:
    if found.rest:
        yield "# not offered, for it is no list of numbers or pictures with a row a step:"
        yield from (f"#   {one.path}  {one.words}" for one in found.rest)


def _is_uneven(arrangement: Arrangement, found: Candidates) -> bool:
    used = [*found.columns, *found.frames]
    lengths = {len(arrangement.datasets[one.path]) for one in used}
    return arrangement.episodes != "rows" and len(lengths) > 1


def _camera_names(frames: Iterable[Candidate]) -> list[str]:
    """The last part of each path that names a camera, with more of it where that is no name yet."""
    names: list[str] = []
    for one in frames:
        words = [word for word in one.path.split("/") if NUMBER_WORD not in word]
        words = words or [one.path.replace(NUMBER_WORD, "")]
        parts = [part for word in words if (part := word.strip("_-."))]
        telling = [part for part in parts[-2:] if part.lower() not in _NO_NAME] or parts
        name = telling[-1]
        names.append(name if name not in names else "_".join(parts))
    return names


def _blank(text: str, count: int) -> str:
    """A path as YAML writes it; in brackets where there are several to choose from."""
    return scalar(f"<{text}>" if count > 1 else text)
