"""Stated: what a preset says of the numbers of one file, and what it leaves to a person."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import JsonValue

from data_tools.formats.layouts.evidence import OpenFile, proof
from data_tools.formats.layouts.preset import ActionTemplate, ConventionsTemplate, Preset
from data_tools.formats.layouts.survey import Survey
from data_tools.formats.layouts.undeclared import Undeclared

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
