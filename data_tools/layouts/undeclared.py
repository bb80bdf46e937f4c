"""Undeclared: what no file of a layout tells and a person must, with the lines to write."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_tools.errors import describe

INSTRUCTION = "layout.instruction"

_CHOICES = {
    INSTRUCTION: "{text: <the task as a sentence>}",
    "control_hz": "<control steps per second>",
    "cameras.*.orientation": "<upright, flipped_vertical or rotated_180>",
    "cameras.*.color_order": "<rgb or bgr>",
    "state.names": "[<one a column>]",
    "state.units": "[<one a column>]",
    "action.names": "[<one a column>]",
    "action.units": "<unit, or a list>",
    "action.references": "<delta, absolute or velocity, or a list with one a column>",
    "action.grippers": "[{column: <name>, open_value: <number>, closed_value: <number>}]",
    "action.rotation": "<axis_angle, euler_xyz, quat_xyzw, quat_wxyz, rot6d_rows, none>",
}


@dataclass(frozen=True)
class Undeclared:
    """A place of the conventions that structure does not tell, and why."""

    place: str
    reason: str


def fault(path: Path, layout: str, undeclared: Sequence[Undeclared], sidecar: str) -> str:
    """The sentence that says what to declare, and the YAML to write."""
    reasons = "; ".join(f"{one.place}: {one.reason}" for one in undeclared)
    lines = yaml_lines(layout, [one.place for one in undeclared])
    return describe(
        str(path),
        f"the layout {layout}, and nothing that tells {reasons}",
        "a declaration of each",
        f"Write into {sidecar} beside it:\n{lines}",
    )


def yaml_lines(layout: str, places: Sequence[str]) -> str:
    """The YAML that declares these places, with <what to fill in>."""
    lines = [f"layout: {layout}"]
    if INSTRUCTION in places:
        lines = ["layout:", f"  preset: {layout}", f"  instruction: {_CHOICES[INSTRUCTION]}"]
    cameras = [place for place in places if place.startswith("cameras.")]
    if cameras:
        fields = ", ".join(f"{p.rpartition('.')[2]}: {_CHOICES[p]}" for p in cameras)
        lines += ["cameras:", f'  - {{name: "*", {fields}}}']
    for part in ("state", "action"):
        inner = [place for place in places if place.startswith(f"{part}.")]
        if inner:
            lines.append(f"{part}:")
            lines += [f"  {place.partition('.')[2]}: {_CHOICES[place]}" for place in inner]
    lines += [f"{place}: {_CHOICES[place]}" for place in places if "." not in place]
    return "\n".join(lines)
