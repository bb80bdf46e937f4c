"""Which layout and conventions a file has, on what evidence; never a guess."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
from pydantic import ValidationError

from data_tools.conventions import Conventions
from data_tools.errors import UserError, describe, nearest
from data_tools.finding import Finding
from data_tools.formats.layouts import left_out, native
from data_tools.formats.layouts.groups import end_episodes, first_number, numbered
from data_tools.formats.layouts.layout import Layout
from data_tools.formats.layouts.left_out import Reach, UnusableLayoutError, unread, unrecognized
from data_tools.formats.layouts.native import NATIVE_LAYOUT
from data_tools.formats.layouts.origins import SOURCES, all_of_its_own, origins_of, sources_of
from data_tools.formats.layouts.preset import OpenFile, Preset, nothing_said, presets, proof
from data_tools.formats.layouts.sidecar import (
    SIDECAR_SUFFIX,
    Sidecar,
    conventions_from,
    folder_sidecars_of,
    is_declared,
    is_there,
    is_whole,
    merged,
    read_sidecar,
    read_sidecars,
    require_known_layout,
    sidecar_of,
    validation_faults,
)
from data_tools.formats.layouts.survey import empty_cameras, later_cameras, survey
from data_tools.formats.layouts.texts import attribute, attribute_text, fact, sentence
from data_tools.formats.layouts.undeclared import (
    INSTRUCTION,
    Undeclared,
    is_rate,
    require_known,
    said_of,
    stated,
)
from data_tools.rules import CORRECTED_CONVENTIONS, EMPTY_PLACE, UNKNOWN_LAYOUT


@dataclass(frozen=True)
class Detected:
    """What a file is: its layout, its conventions as stored, and why we say so.

    Attributes:
        layout: where its parts are, without patterns.
        conventions: what its numbers mean, as stored.
        evidence: the sentences that prove it.
        warnings: what a person should look at.
        undeclared: what only a person can tell, and has not; nobody may train on it before.
        given: keys of the layout that a person wrote into a sidecar.
        origins: where each value was found, of `origins_of`.
    """

    layout: Layout
    conventions: Conventions
    evidence: tuple[str, ...]
    warnings: tuple[Finding, ...] = ()
    undeclared: tuple[Undeclared, ...] = ()
    given: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)


def detect(
    file: h5py.File,
    path: Path,
    layout: str = "",
    top: Path | None = None,
    *,
    allow_external_links: bool = False,
) -> Detected:
    """The layout and conventions of an open file.

    A sidecar `<file>.conventions.yaml` is believed first, because a person wrote it for this file;
    where the file's own attributes say otherwise, that is a warning, and what it leaves open they
    say. Then come those attributes alone.
    For files without them `conventions.yaml` of the same folder, and those of the folders above it,
    say what the file's sidecar leaves open, key by key the nearest first. Otherwise the one preset
    whose evidence the file shows says where things are and what they mean, with what the sidecars
    override.

    Args:
        file: the open file.
        path: where it is.
        layout: name of the layout to use whatever the file shows, a preset's or 'native'; '' to
            look.
        top: the folder up to which a folder's sidecar is looked for; the file's own when not given.
        allow_external_links: whether data may lie outside the file and `top`; a sidecar that asks
            for it is refused otherwise.

    Raises:
        UserError: no layout or two fit, a declaration is not valid, or the folder's contradicts the
            file's; every fault is named.
    """
    top = top or path.parent
    own, of_folders = sidecar_of(path), folder_sidecars_of(path, top)
    reach = Reach(path, top, allow_external_links)
    root = native.declared_root(file) if layout in ("", NATIVE_LAYOUT.name) else None
    if root is not None and not is_there(own):
        detected = _from_attributes(root, path, reach.layout(None, NATIVE_LAYOUT))
        if nearest_one := next(filter(is_there, of_folders), None):
            _require_no_contradiction(path, root, detected.conventions, nearest_one)
        return detected
    sidecar = read_sidecars([own] if root is not None else [own, *of_folders])
    name = layout or (sidecar.preset if sidecar else "")
    if sidecar is not None and (name == NATIVE_LAYOUT.name or (root is not None and not name)):
        stored = _stored(root) if root is not None else None
        declared = _declared(sidecar, reach.layout(sidecar, NATIVE_LAYOUT), stored)
        return replace(declared, warnings=_correction(root, stored, declared) if root else ())
    if sidecar is not None and sidecar.layout is not None and not name:
        return _of_own_layout(file, path, sidecar, reach.layout(sidecar, None))
    preset, evidence = _preset_of(file, path, name, sidecar)
    if preset is None:
        if sidecar is None:
            raise UnusableLayoutError(unrecognized(OpenFile(file, path), top))
        return _declared(sidecar, reach.layout(None, NATIVE_LAYOUT))
    if preset.refusal:
        found = f"{preset.title} ({'; '.join(evidence)})"
        remedy, expected = preset.refusal, "episodes with observations"
        raise UnusableLayoutError(left_out.Unusable(path, top, found, expected, remedy, remedy))
    return _from_preset(file, path, preset, evidence, sidecar, reach.layout(sidecar, preset.layout))


def _preset_of(
    file: h5py.File, path: Path, name: str, sidecar: Sidecar | None
) -> tuple[Preset | None, tuple[str, ...]]:
    """The preset that is named or that the file's evidence proves; None for none, or our own."""
    if name:
        require_known_layout("layout", name)
        is_said = sidecar is not None and sidecar.preset == name
        by = sidecar.file_of(("layout", "preset")) if sidecar and is_said else "the caller"
        return presets().get(name), (f"{by} names the layout {name}",)
    shown = _shown_by(OpenFile(file, path))
    left = list(shown)
    if len(left) > 1:
        found = "; and ".join(f"{name}, because it {' and '.join(shown[name])}" for name in left)
        remedy = f"Write layout: {left[0]} (or another) into {path.name}{SIDECAR_SUFFIX}."
        expected, rule = "the marks of one layout", UNKNOWN_LAYOUT.name
        raise UserError(describe(str(path), found, expected, remedy, rule))
    return (presets()[left[0]], shown[left[0]]) if left else (None, ())


def _shown_by(look: OpenFile) -> dict[str, tuple[str, ...]]:
    """Name of each layout whose marks the file shows, but for more general ones -> the proofs."""
    proofs = {
        preset.name: tuple(sentence for sentence in sentences if sentence)
        for preset in presets().values()
        if all(sentences := [proof(test, look) for test in preset.evidence])
    }
    beaten = {general for name in proofs for general in presets()[name].special_case_of}
    return {name: proofs[name] for name in proofs if name not in beaten}


def _of_own_layout(file: h5py.File, path: Path, sidecar: Sidecar, layout: Layout) -> Detected:
    """What a sidecar without a preset declares: all of it, or as much as it says and what is there.

    Names, sizes and widths that it leaves out are the file's; what else it leaves out is asked for.
    """
    if not {"episodes", "state", "actions"} <= {*(sidecar.layout or ())}:
        _require_named(sidecar, OpenFile(file, path))
    if is_whole(sidecar.overrides):
        return _declared(sidecar, layout)
    said = (f"{sidecar.name} says where things are",)
    return _from_preset(file, path, nothing_said(layout), said, sidecar, layout)


def _from_preset(
    file: h5py.File,
    path: Path,
    preset: Preset,
    evidence: tuple[str, ...],
    sidecar: Sidecar | None,
    layout: Layout,
) -> Detected:
    first, last = end_episodes(file, path, layout)
    number = first_number(first, path, layout)
    layout, is_silent = _with_sentences(first, path, layout, number)
    found = survey(first, path, layout, number)
    layout = numbered(layout, number) if number else layout
    not_taken = () if number else unread(first, path, layout, found.layout)
    warnings = [*found.warnings, *later_cameras(found, last, path, layout), *not_taken]
    overrides: Mapping[str, Any] = sidecar.overrides if sidecar else {}
    given = tuple(sidecar.layout or ()) if sidecar else ()
    if sidecar and "images" in given:
        said = f"{sidecar.file_of(('layout', 'images'))}, layout.images"
        warnings += empty_cameras((first, last), path, layout, layout.images, said)
    may_leave = layout.allow_external_links
    rate = fact(layout.rate, first, path, may_leave=may_leave) if layout.rate else None
    if layout.rate and "rate" in given and not is_rate(rate):
        value = f"layout.rate {layout.rate.model_dump(exclude_defaults=True)}"
        warnings.append(EMPTY_PLACE.found(str(path), value, threshold="a number of hertz there"))
    facts, shown = said_of(preset, OpenFile(file, path))
    template, left = stated(preset, facts, found, rate)
    if is_silent:
        left.append(Undeclared(INSTRUCTION, "no episode says what its task is"))
    where = sidecar.file_of if sidecar else f"preset {preset.name}"
    conventions = conventions_from(where, merged(template, overrides))
    cameras = list(found.camera_sizes)
    undeclared = tuple(
        one
        for one in left
        if not is_declared(one.place, overrides, cameras)
        and (cameras or not one.place.startswith("cameras"))
        and (
            SOURCES.get(one.place, "").removeprefix("layout.") not in given
            or preset.name not in presets()
        )
    )
    evidence = (*evidence, *shown)
    if sidecar:
        evidence = (*evidence, f"{sidecar.name} declares the rest")
        require_known(sidecar.name, conventions, {one.place for one in undeclared})
    sources = sources_of(preset, facts, template, found.action_names, is_rate(rate))
    origins = origins_of(conventions, sidecar, sources)
    return Detected(
        found.layout, conventions, evidence, tuple(warnings), undeclared, given, origins
    )


def _with_sentences(
    first: h5py.Group, path: Path, layout: Layout, number: str
) -> tuple[Layout, bool]:
    """The layout without places for instructions, and True, when the first episode has none."""
    may_leave = layout.allow_external_links
    places = (numbered(layout, number) if number else layout).instruction
    if any(sentence(each, first, path, may_leave=may_leave) for each in places):
        return layout, False
    return layout.model_copy(update={"instruction": ()}), True


def _declared(sidecar: Sidecar, layout: Layout, stored: Conventions | None = None) -> Detected:
    """What a sidecar declares without a preset: completely, or over what the file itself stores."""
    content = sidecar.overrides
    if stored is not None and not is_whole(content):
        content = merged(stored.model_dump(mode="json"), content)
    conventions = conventions_from(sidecar.file_of, content)
    require_known(sidecar.name, conventions)
    unknown = [name for name in layout.images if name not in conventions.camera_names]
    if unknown:
        expected = f"only the declared cameras {list(conventions.camera_names)}"
        hint = nearest(unknown[0], conventions.camera_names)
        remedy = f"Declare the camera or correct its name{f'; {hint}' if hint else '.'}"
        where = f"{sidecar.file_of(('layout', 'images'))}, layout.images"
        raise UserError(describe(where, f"the cameras {unknown}", expected, remedy))
    evidence, given = (f"{sidecar.name} declares it",), tuple(sidecar.layout or ())
    origins = origins_of(conventions, sidecar, all_of_its_own(stored))
    return Detected(layout, conventions, evidence, given=given, origins=origins)


def _from_attributes(root: h5py.Group, path: Path, layout: Layout) -> Detected:
    where = f"{path}, attribute {{!r}} of /{root.name.strip('/')}"
    version = attribute(root, native.SCHEMA_ATTRIBUTE)
    if isinstance(version, list) or version != native.SCHEMA_VERSION:
        remedy = "Read it with the version of this package that wrote it, or upgrade."
        of = where.format(native.SCHEMA_ATTRIBUTE)
        raise UserError(describe(of, str(version), str(native.SCHEMA_VERSION), remedy))
    of = where.format(native.CONVENTIONS_ATTRIBUTE)
    try:
        conventions = Conventions.model_validate_json(
            attribute_text(root, native.CONVENTIONS_ATTRIBUTE)
        )
    except ValidationError as error:
        raise UserError(validation_faults(of, error, Conventions)) from error
    require_known(of, conventions)
    attributes = f"{native.SCHEMA_ATTRIBUTE} and {native.CONVENTIONS_ATTRIBUTE}"
    evidence = (f"{root.name} has the attributes {attributes}",)
    origins = all_of_its_own(conventions)
    return Detected(layout, conventions, evidence, origins=origins)


def _stored(root: h5py.Group) -> Conventions | None:
    """What the file's own attributes declare; None where nobody can read it."""
    try:
        return Conventions.model_validate_json(attribute_text(root, native.CONVENTIONS_ATTRIBUTE))
    except ValidationError:
        return None


def _correction(
    root: h5py.Group, stored: Conventions | None, declared: Detected
) -> tuple[Finding, ...]:
    """A warning when a file's sidecar says something else than the file's own attributes."""
    if stored == declared.conventions:
        return ()
    corrected = CORRECTED_CONVENTIONS.found(
        f"{root.file.filename}, attribute {native.CONVENTIONS_ATTRIBUTE!r}",
        "another declaration than the sidecar's",
        threshold=f"the same; {declared.evidence[0]}, and is believed",
    )
    return (corrected,)


def _require_no_contradiction(
    path: Path, root: h5py.Group, own: Conventions, folder_sidecar: Path
) -> None:
    sidecar = read_sidecar(folder_sidecar)
    stored = own.model_dump(mode="json")
    if conventions_from(str(folder_sidecar), merged(stored, sidecar.overrides)) != own:
        raise UserError(
            describe(
                str(path),
                f"conventions of its own that differ from {folder_sidecar}",
                "the same, for a folder's declaration never corrects a file's own",
                f"Move the file to another folder, or write {path.name}{SIDECAR_SUFFIX} "
                "to correct it.",
            )
        )


def _require_named(sidecar: Sidecar, look: OpenFile) -> None:
    """UserError for parts of a layout that is known and not named, where not all is declared."""
    lacking = [key for key in Conventions.model_fields if key not in sidecar.overrides]
    shown = _shown_by(look) if lacking else {}
    if shown:
        name = next(iter(shown))
        raise UserError(
            describe(
                f"{sidecar.file_of(('layout',))}, layout",
                f"no preset, and in {sidecar.name} no {', '.join(lacking)}",
                f"a layout whose parts {list(sidecar.layout or ())} these are, or everything",
                f"Write layout: {{preset: {name}, ...}}: {look.path} shows its marks.",
            )
        )
