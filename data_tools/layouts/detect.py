"""Which layout and conventions a file has, on what evidence; never a guess."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import yaml
from pydantic import Field, ValidationError

from data_tools.conventions import ActionSpec, CameraSpec, Conventions, GripperSpec, StateSpec
from data_tools.errors import UserError, describe, nearest
from data_tools.layouts import native
from data_tools.layouts.layout import Layout
from data_tools.layouts.native import NATIVE_LAYOUT

SIDECAR_SUFFIX = ".conventions.yaml"
FOLDER_SIDECAR = "conventions.yaml"


@dataclass(frozen=True)
class Detected:
    """What a file is: its layout, its conventions as stored, and why we say so."""

    layout: Layout
    conventions: Conventions
    evidence: str


class Sidecar(Conventions):
    """A YAML file beside the data: the conventions its attributes do not tell, and its layout."""

    layout: Layout = Field(
        NATIVE_LAYOUT, description="Where the parts are; absent when they lie as in our own files."
    )


_KNOWN_KEYS = sorted(
    {
        key
        for model in (Sidecar, CameraSpec, StateSpec, ActionSpec, GripperSpec, Layout)
        for key in model.model_fields
    }
)


def detect(file: h5py.File, path: Path) -> Detected:
    """The layout and conventions of an open file.

    A sidecar `<file>.conventions.yaml`, or `conventions.yaml` in the same folder, is believed
    first, because a person wrote it for this data; then the file's own attributes.

    Raises:
        UserError: neither is there, or what is there is not valid; every fault is named.
    """
    sidecar = find_sidecar(path)
    if sidecar is not None:
        return _from_sidecar(sidecar)
    root = file.get(NATIVE_LAYOUT.root)
    if root is not None and native.CONVENTIONS_ATTRIBUTE in root.attrs:
        return _from_attributes(root, path)
    expected = (
        f"the attribute {native.CONVENTIONS_ATTRIBUTE!r} on /{NATIVE_LAYOUT.root}, "
        f"or a file {path.name}{SIDECAR_SUFFIX}"
    )
    remedy = (
        f"Write {path.name}{SIDECAR_SUFFIX} beside it with the keys {list(Sidecar.model_fields)}: "
        "nothing in the numbers says which way is open, up or absolute."
    )
    raise UserError(
        describe(str(path), f"no conventions; the root names are {sorted(file)}", expected, remedy)
    )


def find_sidecar(path: Path) -> Path | None:
    """The YAML file that speaks for this data file, the one named after it before the folder's."""
    for candidate in (path.with_name(path.name + SIDECAR_SUFFIX), path.with_name(FOLDER_SIDECAR)):
        if candidate.is_file():
            return candidate
    return None


def _from_attributes(root: h5py.Group, path: Path) -> Detected:
    version = root.attrs.get(native.SCHEMA_ATTRIBUTE)
    if version != native.SCHEMA_VERSION:
        where = f"{path}, attribute {native.SCHEMA_ATTRIBUTE!r} of /{root.name.strip('/')}"
        remedy = "Read it with the version of this package that wrote it, or upgrade."
        raise UserError(describe(where, str(version), str(native.SCHEMA_VERSION), remedy))
    where = f"{path}, attribute {native.CONVENTIONS_ATTRIBUTE!r} of /{root.name.strip('/')}"
    try:
        conventions = Conventions.model_validate_json(root.attrs[native.CONVENTIONS_ATTRIBUTE])
    except ValidationError as error:
        raise UserError(_validation_faults(where, error)) from error
    _require_known_orientation(where, conventions)
    attributes = f"{native.SCHEMA_ATTRIBUTE} and {native.CONVENTIONS_ATTRIBUTE}"
    evidence = f"{root.name} has the attributes {attributes}"
    return Detected(NATIVE_LAYOUT, conventions, evidence)


def _from_sidecar(path: Path) -> Detected:
    try:
        sidecar = Sidecar.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise UserError(_validation_faults(str(path), error)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        found = f"no readable YAML ({' '.join(str(error).split())})"
        raise UserError(describe(str(path), found, "a mapping", "Mend the file.")) from error
    conventions = Conventions(**{name: getattr(sidecar, name) for name in Conventions.model_fields})
    _require_known_orientation(str(path), conventions)
    unknown = [name for name in sidecar.layout.images if name not in conventions.camera_names]
    if unknown:
        expected = f"only the declared cameras {list(conventions.camera_names)}"
        hint = nearest(unknown[0], conventions.camera_names)
        remedy = f"Declare the camera or correct its name{f'; {hint}' if hint else '.'}"
        raise UserError(
            describe(f"{path}, layout.images", f"the cameras {unknown}", expected, remedy)
        )
    return Detected(sidecar.layout, conventions, f"{path} declares it")


def _require_known_orientation(where: str, conventions: Conventions) -> None:
    faults = [
        describe(
            f"{where}, camera {camera.name!r}",
            "orientation 'unknown'",
            "'upright', 'flipped_vertical' or 'rotated_180'",
            "Look at one frame and declare how it is stored.",
        )
        for camera in conventions.cameras
        if camera.orientation == "unknown"
    ]
    if faults:
        raise UserError(faults)


def _validation_faults(where: str, error: ValidationError) -> list[str]:
    faults = []
    for item in error.errors():
        place = ".".join(str(part) for part in item["loc"])
        hint = (
            nearest(str(item["loc"][-1]), _KNOWN_KEYS) if item["type"] == "extra_forbidden" else ""
        )
        message = item["msg"].removeprefix("Value error, ")
        remedy = f"Correct it; {hint}" if hint else "Correct it."
        faults.append(
            describe(
                f"{where}{f', {place}' if place else ''}", repr(item["input"])[:80], message, remedy
            )
        )
    return faults
