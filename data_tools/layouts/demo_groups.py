"""Walker of the family `data/demo_N`: robomimic, and everything that grew from it."""

import json
import re
from collections.abc import Mapping
from numbers import Real
from typing import Literal

import h5py
import numpy as np

from data_tools.conventions import CameraSpec, Conventions
from data_tools.errors import describe, nearest
from data_tools.finding import Finding
from data_tools.layouts import native
from data_tools.layouts.layout import EpisodeRecord, FixedText, ImageSource, Layout, Scan

_MISSING_REMEDY = "Correct the layout's key, or record it"


def find_episodes(file: h5py.File, path: str, layout: Layout, conventions: Conventions) -> Scan:
    """Every episode of the file, demo_2 before demo_10, and every fault of its structure.

    Reads headers and attributes only. An episode with a fault is left out of the records; the
    caller must refuse the file when there is any.

    Args:
        file: the open file.
        path: how messages call it.
        layout: where its parts are.
        conventions: what they must look like.
    """
    scan = Scan()
    if layout.root not in file or not isinstance(file[layout.root], h5py.Group):
        found = f"the root names {sorted(file)}"
        scan.faults.append(describe(path, found, f"a group {layout.root!r}", f"{_MISSING_REMEDY}."))
        return scan
    root = file[layout.root]
    names = sorted((name for name in root if isinstance(root[name], h5py.Group)), key=natural_key)
    if not names:
        found = f"no episodes in the group {layout.root!r}"
        scan.faults.append(
            describe(path, found, "groups demo_0, demo_1, ...", "Record at least one episode.")
        )
    for name in names:
        episode = _EpisodeWalk(root[name], f"{path}:{layout.root}/{name}", layout, conventions)
        record = episode.record(path, f"{layout.root}/{name}", root.attrs)
        scan.faults += episode.faults
        if record is not None:
            scan.episodes.append(record)
    scan.warnings += _header_warnings(path, root, names, scan)
    return scan


class _EpisodeWalk:
    """Collects the facts and the faults of one episode's group."""

    def __init__(
        self, group: h5py.Group, where: str, layout: Layout, conventions: Conventions
    ) -> None:
        self.group = group
        self.where = where
        self.layout = layout
        self.conventions = conventions
        self.faults: list[str] = []

    def record(
        self, path: str, group: str, file_attributes: Mapping[str, object]
    ) -> EpisodeRecord | None:
        """The record of the episode, None when anything is wrong with it."""
        layout = self.layout
        num_steps = self._low_dim(layout.actions, (layout.actions,), self.conventions.action.names)
        state_steps = self._low_dim("the state", layout.state_paths, self.conventions.state.names)
        images = {
            camera.name: self._image_source(camera, layout.image_path(camera.name), num_steps)
            for camera in self.conventions.cameras
        }
        instruction = self._instruction(file_attributes)
        attributes = self._extra_attributes()
        self._check_counts(num_steps, state_steps)
        if self.faults:
            return None
        return EpisodeRecord(
            path=path,
            group=group,
            num_steps=num_steps,
            instruction=instruction,
            is_success=self._success(),
            attributes=attributes,
            actions=f"{group}/{layout.actions}",
            state=tuple(f"{group}/{key}" for key in layout.state_paths),
            images={name: source for name, source in images.items() if source is not None},
        )

    def _dataset(self, key: str) -> h5py.Dataset | None:
        found = self.group.get(key)
        if isinstance(found, h5py.Dataset):
            return found
        known = _dataset_names(self.group)
        hint = nearest(key, known)
        remedy = f"{_MISSING_REMEDY}{f'; {hint}' if hint else '.'}"
        self._fault(self.where, f"the datasets {known}", f"a dataset {key!r}", remedy)
        return None

    def _low_dim(self, what: str, keys: tuple[str, ...], columns: tuple[str, ...]) -> int:
        """Number of rows of these datasets joined, -1 when they are unusable (a fault says so)."""
        found = [dataset for key in keys if (dataset := self._dataset(key)) is not None]
        usable = [dataset for dataset in found if self._is_numeric(dataset)]
        lengths = {dataset.name: len(dataset) for dataset in usable}
        if len(set(lengths.values())) > 1:
            remedy = "Record it again or trim it."
            self._fault(self.where, f"lengths {lengths}", "one length", remedy)
            return -1
        if len(usable) < len(keys):
            return -1
        width = sum(dataset.shape[1] if dataset.ndim == 2 else 1 for dataset in usable)
        if width != len(columns):
            expected = f"the {len(columns)} columns {list(columns)} of the conventions"
            remedy = "Correct the names in the conventions or the layout's keys."
            self._fault(f"{self.where}, {what}", f"{width} columns", expected, remedy)
        return len(usable[0])

    def _is_numeric(self, dataset: h5py.Dataset) -> bool:
        is_numeric = dataset.dtype.kind in "fiu" and dataset.ndim in (1, 2)
        if not is_numeric:
            found = f"{dataset.dtype}{list(dataset.shape)}"
            where = f"{self.where}, {dataset.name}"
            self._fault(where, found, "numbers, one row a step", "Convert the dataset.")
        return is_numeric

    def _fault(self, where: str, found: str, expected: str, remedy: str) -> None:
        self.faults.append(describe(where, found, expected, remedy))

    def _image_source(self, camera: CameraSpec, key: str, num_steps: int) -> ImageSource | None:
        dataset = self._dataset(key)
        if dataset is None:
            return None
        where = f"{self.where}, {key}"
        encoding = _encoding(dataset, camera)
        if encoding is None:
            attribute = dataset.attrs.get(native.ENCODING_ATTRIBUTE, "absent")
            found = (
                f"{dataset.dtype}{list(dataset.shape)} with the attribute encoding {attribute!r}"
            )
            expected = f"raw uint8[t, {camera.height}, {camera.width}, 3] or JPEG rows uint8[t, n]"
            remedy = "Correct the camera's size in the conventions, or convert the frames."
            self._fault(where, found, expected, remedy)
            return None
        if num_steps not in (-1, len(dataset)):
            found = f"{len(dataset)} frames for {num_steps} actions"
            self._fault(where, found, "one frame an action", "Record it again or trim it.")
        for name in (native.COLOR_ORDER_ATTRIBUTE, native.ORIENTATION_ATTRIBUTE):
            declared, stored = getattr(camera, name), _text(dataset.attrs, name)
            if stored and stored != declared:
                found = f"{name} {stored!r}, and {declared!r} in the conventions"
                self._fault(where, found, "the same in both", "Correct the one that is wrong.")
        return ImageSource(
            dataset=dataset.name.lstrip("/"),
            encoding=encoding,
            is_chunk_per_frame=_is_chunk_per_frame(dataset),
            camera=camera,
        )

    def _instruction(self, file_attributes: Mapping[str, object]) -> str:
        place = self.layout.instruction
        if isinstance(place, FixedText):
            return place.text
        text = _text(self.group.attrs, place.attribute) or _text(file_attributes, place.attribute)
        if not text.strip():
            found = f"no instruction; the attributes are {sorted(self.group.attrs)}"
            expected = f"the task's sentence in the attribute {place.attribute!r}"
            remedy = "Name the right attribute, or one text for the file, in layout.instruction."
            self._fault(self.where, found, expected, remedy)
        return text

    def _extra_attributes(self) -> dict[str, object]:
        extra: dict[str, object] = {}
        if native.SOURCE_ATTRIBUTE in self.group.attrs:
            extra[native.SOURCE_ATTRIBUTE] = _text(self.group.attrs, native.SOURCE_ATTRIBUTE)
        stored = _text(self.group.attrs, native.EXTRA_ATTRIBUTE) or "{}"
        try:
            extra.update(json.loads(stored))
        except ValueError as error:
            where = f"{self.where}, attribute {native.EXTRA_ATTRIBUTE!r}"
            self._fault(where, f"{stored[:40]!r} ({error})", "a JSON object", "Mend or delete it.")
        return extra

    def _check_counts(self, num_steps: int, state_steps: int) -> None:
        if num_steps == 0:
            self._fault(self.where, "0 actions", "at least one", "Delete this episode.")
        if -1 not in (num_steps, state_steps) and num_steps != state_steps:
            found = f"{num_steps} actions and {state_steps} states"
            self._fault(self.where, found, "as many of each", "Record it again or trim it.")
        declared = self.group.attrs.get(native.NUM_SAMPLES_ATTRIBUTE)
        if num_steps != -1 and declared is not None and declared != num_steps:
            found = f"num_samples {declared} and {num_steps} actions"
            remedy = "Correct the attribute or record it again."
            self._fault(self.where, found, "the same number", remedy)
        fps = self.group.attrs.get(native.FPS_ATTRIBUTE)
        control_hz = self.conventions.known_control_hz("read demonstrations")
        if fps is not None and not (isinstance(fps, Real) and np.isclose(float(fps), control_hz)):
            found = f"fps {fps}, and control_hz {control_hz} in the conventions"
            self._fault(self.where, found, "the same rate", "Correct the one that is wrong.")

    def _success(self) -> bool | None:
        value = self.group.attrs.get(self.layout.success_attribute)
        return None if value is None else bool(value)


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sorting key that puts demo_2 before demo_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _encoding(dataset: h5py.Dataset, camera: CameraSpec) -> Literal["raw", "jpeg"] | None:
    """How the frames are stored, None when the attribute, the type and the shape do not fit."""
    attribute = _text(dataset.attrs, native.ENCODING_ATTRIBUTE)
    if dataset.dtype != np.uint8:
        return None
    if dataset.shape[1:] == (camera.height, camera.width, 3) and attribute in ("", "raw"):
        return "raw"
    if dataset.ndim == 2 and attribute in ("", "jpeg"):
        return "jpeg"
    return None


def _is_chunk_per_frame(dataset: h5py.Dataset) -> bool:
    has_filters = dataset.id.get_create_plist().get_nfilters() > 0
    return not has_filters and dataset.chunks == (1, *dataset.shape[1:])


def _text(attributes: Mapping[str, object], name: str) -> str:
    value = attributes.get(name, "")
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def _dataset_names(group: h5py.Group) -> list[str]:
    names: list[str] = []
    group.visititems(
        lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
    )
    return sorted(names)


def _header_warnings(path: str, root: h5py.Group, names: list[str], scan: Scan) -> list[Finding]:
    warnings = []
    total = root.attrs.get(native.TOTAL_ATTRIBUTE)
    counted = sum(episode.num_steps for episode in scan.episodes)
    if total is not None and not scan.faults and total != counted:
        value = f"total {total} and {counted} actions"
        remedy = "The file was edited or merged; check that nothing is missing."
        warnings.append(_warning("stale_total", path, value, "the same number", remedy))
    numbers = [int(digits[-1]) for name in names if (digits := re.findall(r"\d+", name))]
    if numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        value, remedy = f"the episodes {names}"[:80], "Check that no episode was lost."
        warnings.append(_warning("number_gap", path, value, "numbers without gaps", remedy))
    for source in scan.episodes[0].images.values() if scan.episodes else ():
        chunks = root.file[source.dataset].chunks
        if chunks is not None and chunks[0] > 1:
            where, value = f"{path}:{source.dataset}", f"chunks of {chunks[0]} frames"
            remedy = "Random frames are read up to 100 times slower; rewrite the frames as JPEG."
            warnings.append(_warning("slow_chunks", where, value, "one frame a chunk", remedy))
    return warnings


def _warning(rule: str, where: str, value: str, threshold: str, remedy: str) -> Finding:
    return Finding(
        rule=rule,
        severity="warning",
        where=where,
        value=value,
        threshold=threshold,
        remedy=remedy,
    )
