"""Undeclared: what no file of a layout tells and a person must, with the lines to write.

Stated: what a preset says of the numbers of one file, and what it leaves to a person.
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import JsonValue

from data_tools.conventions import Conventions
from data_tools.errors import describe, raise_faults
from data_tools.formats.layouts.preset import (
    ActionTemplate,
    ConventionsTemplate,
    OpenFile,
    Preset,
    presets,
    proof,
)
from data_tools.formats.layouts.sidecar import FOLDER_SIDECAR, SIDECAR_SUFFIX
from data_tools.formats.layouts.survey import Survey

INSTRUCTION = "layout.instruction"
MAX_NAMES: Final = 3
_DIGITS: Final = re.compile(r"\d+")
# close_the_drawer and pick-2-cups, but no 3f9a02 and no 2023-07-07
_WORDS: Final = re.compile(r"[^\W\d_]{2,}(?:[_ -]+[^\W_]+)*")

_CHOICES = {
    INSTRUCTION: "{text: <the task as a sentence>}",
    "control_hz": "<control steps per second>",
    "cameras.*.orientation": "<upright | flipped_vertical | rotated_180>",
    "cameras.*.color_order": "<rgb | bgr>",
    "state.names": "<a list with one a column>",
    "state.units": "<unit, or a list with one a column>",
    "action.names": "<a list with one a column>",
    "action.units": "<unit, or a list with one a column>",
    "action.references": "<delta | absolute | velocity, or a list with one a column>",
    "action.grippers": "[{column: <name>, open_value: <number>, closed_value: <number>}]  # or []",
    "action.rotation": "<axis_angle | euler_xyz | quat_xyzw | quat_wxyz | rot6d_rows | none>",
}


@dataclass(frozen=True)
class Undeclared:
    """A place of the conventions that nothing in the files tells, and why.

    Attributes:
        place: the place, as in 'control_hz', 'action.units' or 'cameras.*.orientation'.
        reason: why it is open.
        usual: what the project's own recorder writes; None where that is not known either.
    """

    place: str
    reason: str
    usual: JsonValue = None


def fault(
    paths: Sequence[Path], layout: str, undeclared: Sequence[Undeclared], num_files: int
) -> str:
    """The sentence that says what to declare, and the YAML to write.

    Args:
        paths: the files that lack the same, at least one.
        layout: their layout.
        undeclared: what they lack.
        num_files: how many files are opened, with those that lack nothing.
    """
    reasons = "; ".join(f"{one.place}: {one.reason}" for one in undeclared)
    usual = any(one.usual is not None for one in undeclared)
    check = " (filled in is what its project records: correct what your recorder writes otherwise)"
    hint, lines = "", {one.place: one for one in undeclared}
    if INSTRUCTION in lines and 1 < len(paths) == num_files:
        place, hint = sentences_of(paths, layout)
        lines[INSTRUCTION] = replace(lines[INSTRUCTION], usual=place)
        if place == {}:
            del lines[INSTRUCTION]
    more = f" and {len(paths) - 1} more files" if len(paths) > 1 else ""
    is_new = not _target(paths, num_files).is_file()
    verb = "Write into" if is_new else "Add, each line in the block of its name, to"
    return describe(
        f"{paths[0]}{more}",
        f"the layout {layout}, and nothing that tells {reasons}",
        "a declaration of each",
        f"{verb} {_sidecar_for(paths, num_files)}{check if usual else ''}"
        f"{hint}:\n{yaml_lines(layout, list(lines.values()), is_named=not is_new)}",
    )


def draft(
    paths: Sequence[Path], layout: str, undeclared: Sequence[Undeclared], num_files: int
) -> str:
    """The YAML of the sidecar that `fault` asks for, with blanks, as it asks."""
    lines, hint = list(undeclared), ""
    if 1 < len(paths) == num_files and any(one.place == INSTRUCTION for one in lines):
        place, hint = sentences_of(paths, layout)
        own = next(one for one in lines if one.place == INSTRUCTION)
        lines[lines.index(own)] = replace(own, usual=place or None)
    comment = f"\n# Sentences:{hint}" if hint else ""
    return f"{yaml_lines(layout, lines, is_draft=True)}{comment}"


def sentences_of(paths: Sequence[Path], layout: str) -> tuple[JsonValue, str]:
    """Where several files without a sentence may have theirs, and what to say of it.

    What tells tasks apart is the files' names, or else their folders': a pattern, or no place ({})
    where these are no words and each needs a sidecar. Where neither does, one sentence is for all
    (None).

    Args:
        paths: the files, at least two.
        layout: their layout.
    """
    stems = [path.stem for path in paths]
    folders = [path.parent.name for path in paths]
    said = f"`layout: {{preset: {layout}, instruction: {{text: <its task>}}}}`"
    if len({_DIGITS.sub("", stem) for stem in stems}) > 1:
        names, own = stems, f"each file its own: {said} in {paths[0].name}{SIDECAR_SUFFIX}"
        end = _shared_end(stems)
        pattern = f"/(?P<value>[^/]+?){re.escape(end)}\\.(?:hdf5|h5)$"
    elif len(set(folders)) > 1:
        names, own = folders, f"each folder its own: {said} in its {FOLDER_SIDECAR}"
        end, pattern = "", "/(?P<value>[^/]+)/[^/]+$"
    else:
        return None, f" (a file of another task has its own {SIDECAR_SUFFIX}, which goes before it)"
    if not all(map(_WORDS.fullmatch, names)):
        return {}, f", and give {own}"
    told = names[0].removesuffix(end).replace("_", " ")
    return {"path_pattern": pattern}, f" (it takes {told!r} from {names[0]}; or give {own})"


def _shared_end(stems: Sequence[str]) -> str:
    """The words that all names end in: '_demo'."""
    ends = zip(*(stem.split("_")[:0:-1] for stem in stems), strict=False)
    shared = [words[0] for words in takewhile(lambda words: len(set(words)) == 1, ends)]
    return "".join(f"_{word}" for word in reversed(shared))


def _sidecar_for(paths: Sequence[Path], num_files: int) -> str:
    if len(paths) == 1:
        return f"{paths[0].name}{SIDECAR_SUFFIX} beside it"
    if len(paths) < num_files:
        names = ", ".join(path.name for path in paths[:MAX_NAMES])
        more = f" and {len(paths) - MAX_NAMES} more" if len(paths) > MAX_NAMES else ""
        return f"FILE{SIDECAR_SUFFIX} beside each of these files ({names}{more})"
    folders = {path.parent for path in paths}
    is_opened = "" if len(folders) == 1 else ", and open that folder"
    return f"{_target(paths, num_files)}, for all {len(paths)} files{is_opened}"


def _target(paths: Sequence[Path], num_files: int) -> Path:
    """The sidecar that `_sidecar_for` names; of several the first file's."""
    if len(paths) < max(num_files, 2):
        return paths[0].with_name(f"{paths[0].name}{SIDECAR_SUFFIX}")
    folders = {path.parent for path in paths}
    above = next(f for f in paths[0].parents if all(f in (p, *p.parents) for p in folders))
    return above / FOLDER_SIDECAR


def yaml_lines(
    layout: str,
    undeclared: Sequence[Undeclared],
    *,
    is_draft: bool = False,
    is_named: bool = False,
) -> str:
    """The YAML that declares these places, with what is usual or <what to fill in>.

    Args:
        layout: its name; of one that a sidecar declares itself only what lacks in that is said.
        undeclared: what is open.
        is_draft: whether the lines become a sidecar as they are: what is usual is then a comment,
            for nobody has looked whether it holds.
        is_named: whether there is a sidecar already, which need not name the layout again.
    """
    texts = {one.place: _drafted(one) if is_draft else _text(one) for one in undeclared}
    texts = {place: texts[place] for place in _CHOICES if place in texts}
    is_known = layout in presets() and not is_named
    lines = [f"layout: {layout}"] if is_known else []
    if INSTRUCTION in texts:
        preset = [f"  preset: {layout}"] if is_known else []
        lines = ["layout:", *preset, f"  instruction: {texts[INSTRUCTION]}"]
    cameras = {place: text for place, text in texts.items() if place.startswith("cameras.")}
    if cameras:
        fields = {place.rpartition(".")[2]: text for place, text in cameras.items()}
        starts = ['  - name: "*"', *(f"    {name}: {text}" for name, text in fields.items())]
        inline = ", ".join(f"{name}: {text}" for name, text in fields.items())
        lines += ["cameras:", *(starts if is_draft else [f'  - {{name: "*", {inline}}}'])]
    for part in ("state", "action"):
        inner = {p: text for p, text in texts.items() if p.startswith(f"{part}.")}
        if inner:
            lines.append(f"{part}:")
            lines += [f"  {place.partition('.')[2]}: {text}" for place, text in inner.items()]
    lines += [f"{place}: {text}" for place, text in texts.items() if "." not in place]
    return "\n".join(lines)


def _drafted(one: Undeclared) -> str:
    """A blank, with what is usual as a comment."""
    blank = _CHOICES[one.place]
    comment = "" if one.usual is None else f"usual: {_text(one)}"
    return f"{blank}{', ' if '  #' in blank else '  # '}{comment}" if comment else blank


def _text(one: Undeclared) -> str:
    if one.usual is None:
        return _CHOICES[one.place]
    dumped = yaml.safe_dump(one.usual, default_flow_style=True, width=math.inf, sort_keys=False)
    return dumped.removesuffix("...\n").strip()


# What must be known before numbers and frames mean anything, and why a file may lack it. Anything
# else is asked for where the preset has a reason.
_REASONS: Final = {
    "cameras.*.orientation": "the file does not tell which way up its frames are",
    "cameras.*.color_order": "the file does not tell whether red or blue comes first",
    "action.references": "the file does not tell what the actions are relative to",
    "action.grippers": "the file does not tell which columns drive grippers, and which way",
    "control_hz": "the file does not hold it",
}


def said_of(preset: Preset, look: OpenFile) -> tuple[ConventionsTemplate, tuple[str, ...]]:
    """What a preset says of a file, and the sentences that prove what only some of its kind show.

    Args:
        preset: the layout.
        look: the file.
    """
    said, evidence = preset.conventions, dict[str, None]()
    for shown in preset.shown:
        proofs = [proof(test, look) for test in shown.evidence]
        if all(proofs):
            said = said.with_more(shown.conventions)
            evidence |= dict.fromkeys(filter(None, proofs))
    return said, tuple(evidence)


def stated(
    preset: Preset, said: ConventionsTemplate, found: Survey, rate: object
) -> tuple[dict[str, Any], list[Undeclared]]:
    """The conventions with the file's sizes, and what they leave open.

    Args:
        preset: the layout.
        said: what it says of this file.
        found: what the first episode shows.
        rate: what the file says of its control rate, if anything.
    """
    width = len(found.action_names)
    named = [a for a in said.action if len(a.names) == width]
    action = next((a for a in (*named, *said.action) if len(a.names) in (0, width)), None)
    reasons = {place: preset.declare.get(place, why) for place, why in _REASONS.items()}
    reasons |= preset.declare
    if said.action and action is None:
        widths = sorted({len(a.names) for a in said.action})
        why = f"the file has {width} action columns; {preset.name} is known with {widths}"
        reasons |= {"action.names": why, "action.references": why}
    action = action or ActionTemplate()
    control_hz = rate if is_rate(rate) else said.control_hz
    template = {
        "cameras": [
            said.cameras.get(name, said.camera).filled(name, height, width)
            for name, (height, width) in found.camera_sizes.items()
        ],
        "state": {
            "names": found.state_names,
            "units": found.state_units,
            "frame": said.state_frame,
        },
        "action": action.model_dump()
        | {
            "names": action.names or found.action_names,
            "units": found.action_units if action.units == "unknown" else action.units,
            "grippers": action.grippers or (),
        },
        "control_hz": control_hz,
    }
    of_file = said.model_copy(update={"action": (action,), "control_hz": control_hz})
    return template, list(_asked(preset, reasons, of_file, template))


def left_open(preset: Preset, said: ConventionsTemplate) -> tuple[str, ...]:
    """The places that are open where a file has no more than this, and that are asked for."""
    action = said.action[0] if said.action else ActionTemplate()
    given = {
        "cameras.*.orientation": said.camera.orientation != "unknown",
        "cameras.*.color_order": said.camera.color_order != "unknown",
        "action.references": action.references != "unknown",
        "action.rotation": action.rotation != "unknown",
        "action.grippers": action.grippers is not None,
        "control_hz": said.control_hz is not None,
    }
    return tuple(place for place in {**_REASONS, **preset.declare} if not given.get(place, False))


def is_rate(rate: object) -> bool:
    """Whether a fact is a number of hertz."""
    return isinstance(rate, int | float) and not isinstance(rate, bool) and rate > 0


def _asked(
    preset: Preset,
    reasons: Mapping[str, str],
    said: ConventionsTemplate,
    template: Mapping[str, Any],
) -> Iterator[Undeclared]:
    """What is open, with what is usual where the file has as many columns as that names."""
    needed = left_open(preset, said)
    for place, reason in reasons.items():
        part, _, field = place.partition(".")
        usual: JsonValue = preset.usual.get(place)
        names = preset.usual.get(f"{part}.names")
        if isinstance(names, list) and len(names) != len(template[part]["names"]):
            usual = None
        if field == "units":
            is_open = "unknown" in template[part]["units"]
        elif field == "names":
            is_open = usual is not None or place not in preset.usual
        else:
            is_open = place in needed
        if is_open:
            yield Undeclared(place, reason, usual)


def require_known(where: str, conventions: Conventions, told: Collection[str] = ()) -> None:
    """UserError for what data must declare and a policy need not, but for places told of."""
    faults = [
        describe(
            f"{where}, camera {camera.name!r}",
            "orientation 'unknown'",
            "'upright', 'flipped_vertical' or 'rotated_180'",
            "Look at one frame and declare how it is stored.",
        )
        for camera in conventions.cameras
        if camera.orientation == "unknown" and "cameras.*.orientation" not in told
    ]
    if conventions.control_hz is None and "control_hz" not in told:
        remedy = "Declare at which rate the robot was controlled."
        where, found = f"{where}, control_hz", "unknown (null)"
        faults.append(describe(where, found, "control steps per second", remedy))
    raise_faults(faults)
