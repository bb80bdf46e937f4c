"""Conventions of a LeRobot folder: what info.json tells, corrected by `conventions.yaml`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import JsonValue, ValidationError

from data_tools.conventions import ActionSpec, CameraSpec, Conventions, StateSpec
from data_tools.declaration import dotted, refusals
from data_tools.errors import UserError, describe, nearest, raise_faults
from data_tools.finding import Finding
from data_tools.formats.layouts.origins import known_places, origins_of
from data_tools.formats.layouts.sidecar import (
    EVERY_CAMERA,
    Sidecar,
    conventions_from,
    merged,
    origins_in,
)
from data_tools.formats.lerobot.info import INFO_FILE, Info, column_names
from data_tools.formats.lerobot.sources import SIDECAR, Sources, filled_in
from data_tools.rules import CAMERA_NOT_READ, NAMES_NOT_READ
from data_tools.storage.files.yaml_text import mapping_in

COLUMN_KEYS: Final = ("names", "units", "references", "low", "high")


@dataclass(frozen=True)
class Declared:
    """What a folder's features mean.

    Attributes:
        sources: with every name filled in.
        conventions: as stored: cameras may still be upside down or BGR if a sidecar says so.
        evidence: why we say so.
        warnings: what a person should look at.
        origins: place of each value of the conventions -> what says it.
    """

    sources: Sources
    conventions: Conventions
    evidence: str
    warnings: tuple[Finding, ...]
    origins: Mapping[str, str]


def declare(folder: Path, info: Info, tolerance_s: float | None = None) -> Declared:
    """What info.json and the folder's `conventions.yaml` declare.

    info.json names columns, sizes and the rate. LeRobot records what a camera delivers to a person:
    its frames are RGB and upright by the format's contract. Units, frames, limits, what an action
    refers to and which way a gripper counts are in no LeRobot file and stay open ('unknown',
    infinite, none) until `conventions.yaml` says them: the keys of `Conventions`, all or some, and
    `layout` with the keys of `Sources`. As beside an HDF5 file, one value stands for all columns, a
    camera is merged into the one of its name, and the name `*` is every camera's.

    Args:
        folder: the dataset's.
        info: its info.json.
        tolerance_s: in place of the sidecar's, where it is given.

    Raises:
        UserError: the state, the action or a camera cannot be told, or the sidecar is not valid or
            contradicts info.json; every fault is named.
    """
    path = folder / SIDECAR
    sidecar = _read_sidecar(path)
    layout = sidecar.pop("layout", {})
    said = _said_sources(path, layout)
    if tolerance_s is not None:
        said = said.model_copy(update={"tolerance_s": tolerance_s})
    sources = filled_in(folder, info, said)
    plain, warnings = _plain_conventions(folder, info, sources, sidecar)
    raise_faults(
        [
            *_strange_cameras(path, sidecar.get("cameras"), plain.camera_names),
            *_other_counts(path, sidecar, plain),
        ]
    )
    conventions = conventions_from(str(path), merged(plain.model_dump(), sidecar))
    raise_faults(_contradictions(path, plain, conventions))
    evidence = f"meta/info.json says codebase_version {info.codebase_version}"
    if path.is_file():
        evidence += f"; {SIDECAR} declares {', '.join(sidecar) or 'its layout'}"
    if said.images is None:  # else they are left out on purpose
        warnings += _unread_cameras(folder, info, sources)
    written = Sidecar(path, sidecar, "", None, origins_in(path, sidecar, None))
    told = dict.fromkeys(known_places(plain), INFO_FILE)
    origins = origins_of(conventions, written, told)
    if isinstance(layout, dict):
        origins |= {f"layout.{key}": str(path) for key in layout}
    return Declared(sources, conventions, evidence, tuple(warnings), origins)


def _read_sidecar(path: Path) -> dict[str, JsonValue]:
    if not path.is_file():
        return {}
    known = [*Conventions.model_fields, "layout"]
    content = mapping_in(str(path), path.read_bytes(), known)
    faults = []
    for key in content:
        if key not in known:
            hint = nearest(str(key), known)
            remedy = f"Correct it{f'; {hint}' if hint else '.'}"
            if key in Sources.model_fields:
                remedy = f"Write it below layout: `layout: {{{key}: ...}}`."
            faults.append(describe(str(path), f"the key {key!r}", f"one of {known}", remedy))
    raise_faults(faults)
    return content


def _said_sources(path: Path, said: JsonValue) -> Sources:
    if not isinstance(said, dict):
        expected = f"a mapping with some of the keys {list(Sources.model_fields)}"
        remedy = "Write these, or leave it out: what a LeRobot folder is its info.json says."
        raise UserError(describe(f"{path}, layout", repr(said)[:80], expected, remedy))
    try:
        return Sources.model_validate(said)
    except ValidationError as error:
        details = error.errors(include_url=False)
        faults = refusals(
            details, Sources, lambda keys: f"{path}, {dotted(keys)}", inside=("layout",)
        )
        raise UserError(faults) from error


def _plain_conventions(
    folder: Path, info: Info, sources: Sources, sidecar: Mapping[str, Any]
) -> tuple[Conventions, list[Finding]]:
    """What info.json alone tells, and names of columns that it lists in vain."""
    cameras = []
    for camera, feature in sources.cameras.items():
        height, width = info.features[feature].image_size or (0, 0)
        cameras.append(CameraSpec(name=camera, height=height, width=width))
    warnings = []
    names = {}
    for part, features in (("state", sources.state), ("action", (sources.action,))):
        names[part], unread = column_names(part, [info.features[name] for name in features])
        said = sidecar.get(part)
        if unread and not (isinstance(said, dict) and "names" in said):
            where = f"{folder}, features of the {part}"
            warnings.append(NAMES_NOT_READ.found(where, "; ".join(unread)))
    count, infinity = len(names["action"]), float("inf")
    conventions = Conventions(
        cameras=tuple(cameras),
        state=StateSpec(names=names["state"], units=("unknown",) * len(names["state"])),
        action=ActionSpec(
            names=names["action"],
            units=("unknown",) * count,
            references=("unknown",) * count,
            low=(-infinity,) * count,
            high=(infinity,) * count,
            rotation="unknown",
        ),
        control_hz=info.fps,
    )
    return conventions, warnings


def _strange_cameras(path: Path, said: object, known: tuple[str, ...]) -> list[str]:
    """Cameras of the sidecar that the folder does not have."""
    faults = []
    for camera in said if isinstance(said, list) else []:
        name = camera.get("name") if isinstance(camera, dict) else camera
        if name not in (*known, EVERY_CAMERA):
            hint = nearest(str(name), known)
            remedy = f"Correct the name{f'; {hint}' if hint else '.'}"
            expected = f"one of the cameras {list(known)}"
            faults.append(describe(f"{path}, cameras", repr(name)[:80], expected, remedy))
    return faults


def _other_counts(path: Path, sidecar: Mapping[str, Any], plain: Conventions) -> Iterator[str]:
    """Lists of the sidecar with more or fewer entries than the folder has columns."""
    for part, columns in (("state", len(plain.state.names)), ("action", len(plain.action.names))):
        said = sidecar.get(part)
        for key, value in said.items() if isinstance(said, dict) else ():
            if key in COLUMN_KEYS and isinstance(value, list) and len(value) != columns:
                found, expected = f"{len(value)} entries", f"{columns}, one a column"
                more = "" if key == "names" else ", or one value without a list for all"
                remedy = f"Write one for each{more}."
                yield describe(f"{path}, {part}.{key}", found, expected, remedy)


def _contradictions(path: Path, plain: Conventions, said: Conventions) -> list[str]:
    """Where the sidecar says what info.json, which the files follow, says otherwise."""
    pairs: list[tuple[str, object, object]] = [("control_hz", said.control_hz, plain.control_hz)]
    for camera in said.cameras:
        other, where = plain.camera(camera.name), f"camera {camera.name!r}"
        size, stored = (camera.height, camera.width), (other.height, other.width)
        pairs.append((f"{where} (height, width)", size, stored))
    faults = [
        describe(f"{path}, {where}", f"{a}", f"{b} as meta/info.json says", "Mend it.")
        for where, a, b in pairs
        if a != b
    ]
    expected = "'upright', 'flipped_vertical' or 'rotated_180'"
    faults += [
        describe(
            f"{path}, camera {camera.name!r}",
            "orientation 'unknown'",
            expected,
            "Look at one frame and declare how it is stored.",
        )
        for camera in said.cameras
        if camera.orientation == "unknown"
    ]
    return faults


def _unread_cameras(folder: Path, info: Info, sources: Sources) -> list[Finding]:
    unread = [
        name
        for name, each in info.features.items()
        if each.is_camera and name not in sources.cameras.values()
    ]
    return [
        CAMERA_NOT_READ.found(
            f"{folder}, feature {name!r}",
            f"shape {str(info.features[name].shape)[:80]}, "
            f"names {str(info.features[name].names)[:80]}",
        )
        for name in unread
    ]
