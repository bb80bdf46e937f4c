"""Sidecars: YAML beside the data that declares, or overrides, what the numbers mean."""

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from data_tools.conventions import Conventions
from data_tools.declaration import KeyPath, dotted, refusals, user_path
from data_tools.errors import UserError, describe, nearest, raise_faults, shown
from data_tools.formats.layouts.blanks import blank_faults
from data_tools.formats.layouts.layout import Layout
from data_tools.formats.layouts.native import NATIVE_LAYOUT
from data_tools.formats.layouts.preset import presets
from data_tools.storage.files.yaml_text import mapping_in

SIDECAR_SUFFIX = ".conventions.yaml"
FOLDER_SIDECAR = "conventions.yaml"
EVERY_CAMERA = "*"

# How messages call a declaration: by one name, or by the file that certain keys are in.
Where = str | Callable[[KeyPath], str]


@dataclass(frozen=True)
class Sidecar:
    """What a person wrote about the data, in one file or in several that are merged.

    Attributes:
        path: the YAML file, of several the nearest.
        overrides: keys of the conventions, as far as they are given.
        preset: the layout that is named; '' when none is.
        layout: a whole layout, or changes of the preset's; None when neither is given.
        origins: place of each value, as in 'control_hz', 'cameras.*.source' or 'layout.state', to
            the file that says it.
    """

    path: Path
    overrides: Mapping[str, Any]
    preset: str
    layout: Mapping[str, Any] | None
    origins: Mapping[str, Path]

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that says something of it, the nearest first."""
        return tuple(dict.fromkeys((self.path, *self.origins.values())))

    @property
    def name(self) -> str:
        """How messages call it."""
        return " with ".join(map(str, self.files))

    def file_of(self, keys: KeyPath) -> str:
        """The file that says what is at these keys, or at keys beside them."""
        place, part = dotted(keys[:2]), f"{keys[0]}." if keys else ""
        near = (path for at, path in self.origins.items() if part and f"{at}.".startswith(part))
        return str(self.origins.get(place) or next(near, self.path))


def sidecar_of(path: Path) -> Path:
    """The sidecar of one file."""
    return path.with_name(path.name + SIDECAR_SUFFIX)


def folder_sidecars_of(path: Path, top: Path) -> list[Path]:
    """Where sidecars of the folders may be that a file is in, up to `top`, the nearest first."""
    folders = [folder for folder in path.parents if folder == top or top in folder.parents]
    return [folder / FOLDER_SIDECAR for folder in folders] or [path.with_name(FOLDER_SIDECAR)]


def is_there(sidecar: Path) -> bool:
    """Whether there is a sidecar; none has a name that is too long for the file system."""
    try:
        return sidecar.is_file()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def read_sidecar(path: Path) -> Sidecar:
    """A sidecar as written, its keys not yet checked.

    Raises:
        UserError: it is no YAML or no mapping, has blanks of a draft left, or names a layout that
            we do not know.
    """
    content = dict(_content(path, path.read_bytes()))
    raise_faults(blank_faults(path, content))
    layout = content.pop("layout", None)
    if isinstance(layout, dict):
        changes = {key: value for key, value in layout.items() if key != "preset"}
        name = layout.get("preset", "")
    elif layout is None or isinstance(layout, str):
        name, changes = layout or "", None
    else:
        expected = f"one of {layout_names()}, or a mapping"
        raise UserError(describe(f"{path}, layout", shown(layout), expected, "Correct it."))
    if name != "":
        require_known_layout(f"{path}, layout", name)
    return Sidecar(path, content, name, changes, origins_in(path, content, layout))


def origins_in(path: Path, content: Mapping[str, Any], layout: object) -> dict[str, Path]:
    """Place of each value in a sidecar -> the sidecar.

    Args:
        path: the sidecar.
        content: what it holds beside its layout.
        layout: what it says of that; None when nothing.
    """
    return dict.fromkeys(_places(content, layout), path)


def read_sidecars(paths: Iterable[Path]) -> Sidecar | None:
    """What sidecars say together, key by key what the nearest says; None when there is none.

    One that declares everything, or names another layout than those farther away, takes nothing
    from them.

    Args:
        paths: the files, the nearest first; what is not there is left out.

    Raises:
        UserError: one is no YAML or no mapping, or names a layout that we do not know.
    """
    together: Sidecar | None = None
    for path in filter(is_there, paths):
        if together is not None and is_whole(together.overrides):
            break  # what is farther away may be no YAML at all
        far = read_sidecar(path)
        joined = far if together is None else with_farther(together, far)
        if joined is together:
            break
        together = joined
    return together


def with_farther(near: Sidecar, far: Sidecar) -> Sidecar:
    """What two sidecars say together, key by key what the nearer says.

    That is the nearer one itself where it declares everything or names another layout.
    """
    # A layout without a name is one of its own only where all is declared with it.
    is_named = far.preset or (far.layout and is_whole(far.overrides))
    if is_whole(near.overrides) or (near.preset and is_named and near.preset != far.preset):
        return near
    overrides = {**far.overrides, **near.overrides}
    origins = {**far.origins, **near.origins}
    for part in ("state", "action"):
        ours, theirs = near.overrides.get(part), far.overrides.get(part)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            overrides[part] = {**theirs, **ours}
    ours, theirs = (_by_name(each.overrides.get("cameras")) for each in (near, far))
    if ours and theirs:
        overrides["cameras"] = _cameras_together(ours, theirs)
        for name, key in product(theirs, ours.get(EVERY_CAMERA, {})):
            if key not in ours.get(name, {}) and key != "name":
                origins[f"cameras.{name}.{key}"] = near.origins[f"cameras.{EVERY_CAMERA}.{key}"]
    is_open = near.layout is None and far.layout is None
    layout = None if is_open else {**(far.layout or {}), **(near.layout or {})}
    return Sidecar(near.path, overrides, near.preset or far.preset, layout, origins)


def layout_names() -> list[str]:
    """The layouts that a person may name."""
    return sorted([*presets(), NATIVE_LAYOUT.name])


def require_known_layout(where: str, name: object) -> None:
    """UserError for a name that is no layout's."""
    if name not in layout_names():
        hint = nearest(str(name), layout_names())
        remedy = f"Correct the name{f'; {hint}' if hint else '.'}"
        raise UserError(describe(where, shown(name), f"one of {layout_names()}", remedy))


def layout_of(sidecar: Sidecar, base: Layout | None) -> Layout:
    """The layout a sidecar declares: a known one with its changes, or a whole one.

    Columns are added to those that the known one has; everything else takes its place.

    Raises:
        UserError: a key or a value is wrong; every fault is named.
    """
    known, said = base.model_dump() if base else {}, sidecar.layout or {}
    if base is not None and isinstance(said.get("columns"), dict):
        said = {**said, "columns": {**base.columns, **said["columns"]}}
    try:
        return Layout.model_validate({**known, **said})
    except ValidationError as error:
        raise UserError(validation_faults(sidecar.file_of, error, Layout)) from error


def conventions_from(where: Where, content: Mapping[str, Any]) -> Conventions:
    """Conventions of a mapping in which one value may stand for all columns.

    Args:
        where: how messages call the mapping, or the one of several in which certain keys are.
        content: the mapping.

    Raises:
        UserError: a key or a value is wrong; every fault is named.
    """
    try:
        return Conventions.model_validate(_spread(content))
    except ValidationError as error:
        raise UserError(validation_faults(where, error, Conventions)) from error


def is_whole(content: Mapping[str, Any]) -> bool:
    """Whether a mapping has every key that conventions must have, whatever their values."""
    try:
        Conventions.model_validate(_spread(content))
    except ValidationError as error:
        return all(item["type"] != "missing" for item in error.errors())
    return True


def merged(template: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The template with the overrides put over it; cameras are matched by name.

    The camera name '*' speaks for every camera of the template, before those that are named.
    """
    result = {**template, **overrides}
    for part in ("state", "action"):
        ours, theirs = template.get(part), overrides.get(part)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            result[part] = {**ours, **theirs}
    if isinstance(overrides.get("cameras"), list):
        result["cameras"] = _merged_cameras(template.get("cameras", []), overrides["cameras"])
    return result


def is_declared(place: str, overrides: Mapping[str, Any], cameras: list[str]) -> bool:
    """Whether a sidecar says what belongs at a place: 'control_hz', 'cameras.*.orientation'."""
    part, _, rest = place.partition(".")
    if part != "cameras":
        value = overrides.get(part)
        return (isinstance(value, dict) and rest in value) if rest else value is not None
    field = rest.rpartition(".")[2]
    given = overrides.get("cameras")
    entries = [c for c in given if isinstance(c, dict)] if isinstance(given, list) else []
    named = {entry.get("name") for entry in entries if field in entry}
    return EVERY_CAMERA in named or set(cameras) <= named


def validation_faults(
    where: Where, error: ValidationError, model: type[Layout | Conventions]
) -> list[str]:
    """A sentence for each thing pydantic found wrong, with the nearest key for an unknown one.

    What is not there at all is told in one.
    """
    file_of: Callable[[KeyPath], str] = (lambda _: where) if isinstance(where, str) else where
    inside = ("layout",) if model is Layout else ()
    also = ("layout",) if model is Conventions else ()

    def place(path: KeyPath) -> str:
        return f"{file_of(path)}, {dotted(path)}" if path else file_of(path)

    details = error.errors(include_url=False)
    lacking = [
        item for item in details if item["type"] == "missing" and isinstance(item["loc"][-1], str)
    ]
    rest = [item for item in details if item not in lacking]
    keys = [dotted((*inside, *user_path(item["loc"], model))) for item in lacking]
    faults = [_lacking_fault(file_of(()), keys)] if lacking else []
    return faults + refusals(rest, model, place, inside=inside, also=also)


def _lacking_fault(where: str, places: Iterable[str]) -> str:
    found = f"no {', '.join(places)}"
    return describe(where, found, "each of them", "Write them: nothing else says what they are.")


@lru_cache(maxsize=64)
def _content(path: Path, text: bytes) -> Mapping[str, Any]:
    """The mapping in a file, parsed once: one speaks for a folder of thousands."""
    return mapping_in(str(path), text, sorted(Conventions.model_fields))


def _merged_cameras(template: list[Any], overrides: list[Any]) -> list[Any]:
    given = {c.get("name"): c for c in overrides if isinstance(c, dict)}
    if len(given) < len(overrides):
        return overrides  # not even cameras, or one twice: the checks of Conventions say so
    every = {k: v for k, v in given.pop(EVERY_CAMERA, {}).items() if k != "name"}
    ours = [{**camera, **every, **given.pop(camera["name"], {})} for camera in template]
    return ours + [{**every, **camera} for camera in given.values()]


def _cameras_together(near: Mapping[str, Any], far: Mapping[str, Any]) -> list[Any]:
    """Cameras of two sidecars; what the nearer says of every camera goes before the other's."""
    every = {key: value for key, value in near.get(EVERY_CAMERA, {}).items() if key != "name"}
    cameras = {name: {**said, **every} for name, said in far.items()}
    return list(
        {**cameras, **{n: {**cameras.get(n, {}), **said} for n, said in near.items()}}.values()
    )


def _by_name(cameras: object) -> dict[str, Any]:
    """Cameras of a sidecar by name; none where they are no list of different ones."""
    entries = [c for c in cameras if isinstance(c, dict)] if isinstance(cameras, list) else []
    named = {str(entry.get("name")): entry for entry in entries}
    return named if isinstance(cameras, list) and len(named) == len(cameras) else {}


def _places(content: Mapping[str, Any], layout: object) -> Iterator[str]:
    """The place of each value in a sidecar."""
    named = {"layout": {"preset": layout} if isinstance(layout, str) else layout}
    for key, value in ({**content, **named} if layout is not None else content).items():
        cameras = _by_name(value) if key == "cameras" else {}
        for name, said in cameras.items():
            yield from (f"{key}.{name}.{inner}" for inner in said if inner != "name")
        if isinstance(value, dict):
            yield from (f"{key}.{inner}" for inner in value)
        elif not cameras:
            yield key


def _spread(content: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping with single values of columns repeated for each column."""
    result = dict(content)
    for part in ("state", "action"):
        columns = result.get(part)
        names = columns.get("names") if isinstance(columns, dict) else None
        if isinstance(columns, dict) and isinstance(names, list | tuple):
            spread = ("units", "references", "low", "high")
            result[part] = {
                key: [value] * len(names)
                if key in spread
                and isinstance(value, str | int | float)
                and not isinstance(value, bool)
                else value
                for key, value in columns.items()
            }
    return result
