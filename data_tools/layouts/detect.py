"""Which layout and conventions a file has, on what evidence; never a guess."""

from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import yaml
from pydantic import Field, ValidationError

from data_tools.conventions import ActionSpec, CameraSpec, Conventions, GripperSpec, StateSpec
from data_tools.errors import UserError, describe, nearest, raise_faults
from data_tools.finding import Finding
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
    warnings: tuple[Finding, ...] = ()


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

    A sidecar `<file>.conventions.yaml` is believed first, because a person wrote it for this file;
    where the file's own attributes say otherwise, that is a warning. Then come those attributes.
    `conventions.yaml` in the same folder speaks for files that have neither.

    Raises:
        UserError: none of them is there, or what is there is not valid, or the folder's declaration
            contradicts the file's; every fault is named.
    """
    sidecar = path.with_name(path.name + SIDECAR_SUFFIX)
    of_folder = path.with_name(FOLDER_SIDECAR)
    root = file.get(NATIVE_LAYOUT.root)
    if root is not None and native.CONVENTIONS_ATTRIBUTE not in root.attrs:
        root = None
    if sidecar.is_file():
        detected = _from_sidecar(sidecar)
        return detected if root is None else replace(detected, warnings=_correction(root, detected))
    if root is not None:
        detected = _from_attributes(root, path)
        if of_folder.is_file():
            _require_no_contradiction(path, detected.conventions, of_folder)
        return detected
    if of_folder.is_file():
        return _from_sidecar(of_folder)
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


def _correction(root: h5py.Group, sidecar: Detected) -> tuple[Finding, ...]:
    """A warning when a file's sidecar says something else than the file's own attributes."""
    try:
        stored = Conventions.model_validate_json(root.attrs[native.CONVENTIONS_ATTRIBUTE])
    except ValidationError:
        stored = None  # what nobody can read is corrected, too
    if stored == sidecar.conventions:
        return ()
    corrected = Finding(
        rule="corrected_conventions",
        severity="warning",
        where=f"{root.file.filename}, attribute {native.CONVENTIONS_ATTRIBUTE!r}",
        value="another declaration than the sidecar's",
        threshold=f"the same; {sidecar.evidence}, and is believed",
        remedy="Delete the sidecar unless it corrects the file on purpose.",
    )
    return (corrected,)


def _require_no_contradiction(path: Path, own: Conventions, folder_sidecar: Path) -> None:
    if own != _from_sidecar(folder_sidecar).conventions:
        raise UserError(
            describe(
                str(path),
                f"conventions of its own that differ from {folder_sidecar}",
                "the same, for a folder's declaration never corrects a file's own",
                f"Move the file to another folder, or write {path.name}{SIDECAR_SUFFIX} "
                "to correct it.",
            )
        )


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
    _require_known(where, conventions)
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
    _require_known(str(path), conventions)
    unknown = [name for name in sidecar.layout.images if name not in conventions.camera_names]
    if unknown:
        expected = f"only the declared cameras {list(conventions.camera_names)}"
        hint = nearest(unknown[0], conventions.camera_names)
        remedy = f"Declare the camera or correct its name{f'; {hint}' if hint else '.'}"
        raise UserError(
            describe(f"{path}, layout.images", f"the cameras {unknown}", expected, remedy)
        )
    return Detected(sidecar.layout, conventions, f"{path} declares it")


def _require_known(where: str, conventions: Conventions) -> None:
    """UserError for what data must declare and a policy need not."""
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
    if conventions.control_hz is None:
        remedy = "Declare at which rate the robot was controlled."
        where, found = f"{where}, control_hz", "unknown (null)"
        faults.append(describe(where, found, "control steps per second", remedy))
    raise_faults(faults)


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
