"""Origins: which file, or what else, says each value of the conventions."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from data_tools.conventions import Conventions
from data_tools.formats.layouts.preset import ConventionsTemplate, Preset
from data_tools.formats.layouts.sidecar import EVERY_CAMERA, Sidecar

OF_ITS_OWN: Final = "the file's own declaration"
OF_THE_FILE: Final = "what the file shows"
# Who names the datasets of a part says names and units with them.
SOURCES: Final = {
    "state.names": "layout.state",
    "state.units": "layout.state",
    "action.names": "layout.actions",
    "action.units": "layout.actions",
}
_OPEN: Final = ("unknown", None, (), float("-inf"), float("inf"))


def origins_of(
    conventions: Conventions, sidecar: Sidecar | None, otherwise: Mapping[str, str]
) -> dict[str, str]:
    """Where each value was found: the path of a sidecar, or what else says it.

    Values that nobody says are left out.

    Args:
        conventions: the declaration in force.
        sidecar: what sidecars say, if there are any.
        otherwise: place -> what says it where no sidecar does.
    """
    origins: dict[str, str] = {}
    for place in places_of(conventions):
        said = _said(sidecar, place)
        if said or place in otherwise:
            origins[place] = said or otherwise[place]
    layout = {} if sidecar is None else sidecar.origins
    return origins | {at: str(path) for at, path in layout.items() if at.startswith("layout")}


def places_of(conventions: Conventions | None) -> list[str]:
    """The place of each value: 'cameras.front.source', 'action.units', 'control_hz'."""
    return [] if conventions is None else [place for place, _ in _values(conventions)]


def all_of_its_own(conventions: Conventions | None) -> dict[str, str]:
    """Every value's place, with the file itself as the origin."""
    return dict.fromkeys(places_of(conventions), OF_ITS_OWN)


def known_places(conventions: Conventions) -> list[str]:
    """The places of the values that are not left open."""
    return [place for place, value in _values(conventions) if _known(value) not in _OPEN]


def sources_of(
    preset: Preset,
    said: ConventionsTemplate,
    template: Mapping[str, Any],
    action_names: Sequence[str],
    is_rate_held: bool,
) -> dict[str, str]:
    """What says each value that comes from a preset: its layout, or more that the file shows.

    Args:
        preset: the layout.
        said: what it says of this file.
        template: the conventions that makes of it.
        action_names: names of the action columns after their datasets.
        is_rate_held: whether the file holds its control rate.
    """
    layout, base = f"layout {preset.name}", preset.conventions
    given: dict[str, tuple[object, bool]] = {
        "state.names": (template["state"]["names"], any(s.names for s in preset.layout.state)),
        "state.units": (_known(template["state"]["units"]), True),
        "state.frame": (said.state_frame, base.state_frame == said.state_frame),
        "control_hz": (template["control_hz"], not is_rate_held),
    }
    is_general = base.action == said.action
    for key, value in template["action"].items():
        is_named = key != "names" or tuple(value) != tuple(action_names)
        given[f"action.{key}"] = (_known(value), is_general and is_named)
    for camera in template["cameras"]:
        for key, value in camera.items():
            stated = getattr(said.camera, key, value)
            is_stated = stated == getattr(base.camera, key, None)
            given[f"cameras.{camera['name']}.{key}"] = (stated, is_stated)
    return {
        place: layout if is_stated else OF_THE_FILE
        for place, (value, is_stated) in given.items()
        if value not in _OPEN
    }


def _values(conventions: Conventions) -> Iterator[tuple[str, object]]:
    for camera in conventions.cameras:
        of = f"cameras.{camera.name}"
        yield from ((f"{of}.{key}", value) for key, value in camera if key != "name")
    for part in ("state", "action"):
        yield from ((f"{part}.{key}", value) for key, value in getattr(conventions, part))
    yield "control_hz", conventions.control_hz


def _known(values: object) -> object:
    """What is said of columns; the one value where it is the same of every one of them."""
    if isinstance(values, list | tuple) and len(set(map(str, values))) == 1:
        return values[0]
    return values


def _said(sidecar: Sidecar | None, place: str) -> str:
    """The sidecar that says a value, '' where none does."""
    if sidecar is None:
        return ""
    also = SOURCES.get(place, "")
    if place.startswith("cameras."):
        also = f"cameras.{EVERY_CAMERA}.{place.rpartition('.')[2]}"
    path = sidecar.origins.get(place) or sidecar.origins.get(also)
    return "" if path is None else str(path)
