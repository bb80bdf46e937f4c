"""Survey: what the first episode of a file shows, so that a layout's patterns become names."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py

from data_tools.errors import UserError, describe, nearest, raise_faults, shown
from data_tools.finding import Finding
from data_tools.formats.layouts.groups import datasets_below, image_keys, numbered
from data_tools.formats.layouts.layout import Layout, Source, Video
from data_tools.formats.layouts.texts import video_file
from data_tools.rules import EMPTY_PLACE, UNREADABLE_CAMERA
from data_tools.storage.frames.images import JPEG_START, PNG_START, UndecodableFrameError
from data_tools.storage.frames.videos import UndecodableVideoError, video_length_and_size
from data_tools.storage.hdf5.frame_encoding import encoding_of, frame_bytes, frame_size
from data_tools.storage.hdf5.links import find, find_dataset, find_group, has_known_type

# A robot of a hundred joints with all its readings has fewer; a damaged header claims any number.
MAX_COLUMNS = 1 << 12
MAX_CHARACTERS = 2000


@dataclass(frozen=True)
class Survey:
    """A layout without patterns, and what else the first episode shows.

    Attributes:
        layout: where things are in this very file.
        state_names: name of each state column.
        state_units: unit of each state column.
        action_names: name of each action column, after the datasets they come from.
        action_units: unit of each action column, as far as its dataset tells.
        camera_sizes: camera name -> (height, width).
        warnings: what looks like a camera and is none.
    """

    layout: Layout
    state_names: tuple[str, ...]
    state_units: tuple[str, ...]
    action_names: tuple[str, ...]
    action_units: tuple[str, ...]
    camera_sizes: dict[str, tuple[int, int]]
    warnings: tuple[Finding, ...]


def survey(group: h5py.Group, path: Path, layout: Layout, number: str = "") -> Survey:
    """What an episode shows of the parts that a layout leaves open.

    A dataset that is missing altogether is left for the walk over all episodes to tell; here it
    only has no columns.

    Args:
        group: the first episode's.
        path: the file.
        layout: with its patterns.
        number: the first episode's, with episodes: numbers.

    Raises:
        UserError: the frames of a camera that the layout names do not decode, or lie elsewhere.
    """
    template, layout = layout, numbered(layout, number) if number else layout
    state = [s for source in layout.state for s in _members(group, layout, source, is_state=True)]
    actions = [s for s in layout.actions for s in _members(group, layout, s, is_state=False)]
    # Where nothing fits, the patterns stay: the walk then says that nothing of this name is there.
    state, actions = state or list(layout.state), actions or list(layout.actions)
    images: dict[str, str | Video] = {}
    sizes: dict[str, tuple[int, int]] = {}
    warnings: list[Finding] = []
    for camera, found, size in _cameras(group, path, layout, warnings):
        images[camera], sizes[camera] = found, size
    changes = {"state": tuple(state), "actions": tuple(actions), "images": images}
    state_paths = [layout.below_observations(source.dataset) for source in state]
    action_paths = [source.dataset for source in actions]
    return Survey(
        layout=template if number else layout.model_copy(update=changes),
        state_names=tuple(_names(group, layout, state, state_paths, number)),
        state_units=tuple(_units(group, layout, state, state_paths)),
        action_names=tuple(_names(group, layout, actions, action_paths, number)),
        action_units=tuple(_units(group, layout, actions, action_paths)),
        camera_sizes=sizes,
        warnings=tuple(warnings),
    )


def later_cameras(found: Survey, last: h5py.Group, path: Path, layout: Layout) -> Iterator[Finding]:
    """A warning for each camera of the last episode that the first, which was surveyed, lacks.

    Args:
        found: the survey of the first episode.
        last: the group of the last episode.
        path: the file.
        layout: the layout with its patterns.
    """
    ignored: list[Finding] = []
    for camera, _, _ in _cameras(last, path, layout, ignored):
        if camera not in found.camera_sizes:
            where = f"{path}:{last.name.strip('/')}/{camera}".replace(":/", ":")
            yield _not_a_camera(where, "frames, but none in the first episode")


def empty_cameras(
    ends: tuple[h5py.Group, h5py.Group], path: Path, layout: Layout, given: Iterable[str], said: str
) -> list[Finding]:
    """A warning for each pattern of cameras that a person gave and that fits nothing.

    Args:
        ends: the groups of the first and the last episode.
        path: the file.
        layout: the layout with its patterns.
        given: the entries of `layout.images` that a person wrote.
        said: where, for messages.

    Raises:
        UserError: no frames are where a person says that a camera's are; every fault is named.
    """
    warnings, faults = [], []
    for name in given:
        place = layout.images[name]
        only = layout.model_copy(update={"images": {name: place}})
        if any(_has_cameras(group, path, only) for group in ends):
            continue
        if isinstance(place, str) and "*" in place:
            warnings.append(EMPTY_PLACE.found(str(path), f"layout.images, {name}: {place}"))
        else:
            faults.append(_camera_fault(ends[0], path, layout, f"{said}.{name}", place))
    raise_faults(faults)
    return warnings


def _has_cameras(group: h5py.Group, path: Path, layout: Layout) -> bool:
    undecodable: list[Finding] = []  # told elsewhere
    return any(_cameras(group, path, layout, undecodable)) or bool(undecodable)


def _camera_fault(
    group: h5py.Group, path: Path, layout: Layout, where: str, place: str | Video
) -> str:
    if isinstance(place, Video):
        found, remedy = f"no file like {place.video!r}", "Copy it there, or correct the path."
        return describe(where, found, f"a video beside {path}", remedy)
    known = [
        name
        for name, dataset in datasets_below(group, is_deep=True)
        if has_known_type(dataset) and encoding_of(dataset) is not None
    ]
    hint = nearest(layout.below_observations(place), known)
    told = shown(known, MAX_CHARACTERS)
    expected = f"a dataset of frames of {path}:{group.name.strip('/')}, one of {told}"
    remedy = f"Correct it, or remove the camera{f'; {hint}' if hint else '.'}"
    return describe(where, f"{place!r}, and no frames there", expected, remedy)


def _members(
    group: h5py.Group, layout: Layout, source: Source, *, is_state: bool
) -> Iterator[Source]:
    """A source itself, or the datasets that its pattern stands for; nothing if it may be absent."""
    key = layout.below_observations(source.dataset) if is_state else source.dataset
    above, _, last = key.rpartition("/")
    if last not in ("*", "**"):
        found = find(group, key, may_leave=layout.allow_external_links)
        is_there = isinstance(found, h5py.Dataset) and is_column_table(found, kinds="fiub")
        if is_there or not source.is_optional:
            yield source
        return
    folder = find_group(group, above, may_leave=layout.allow_external_links)
    if folder is not None:
        for name, dataset in datasets_below(folder, is_deep=last == "**"):
            if has_known_type(dataset) and is_column_table(dataset):
                yield source.model_copy(update={"dataset": f"{above}/{name}"})


def is_column_table(dataset: h5py.Dataset, kinds: str = "fiu") -> bool:
    """Whether a dataset may be columns of numbers with a row a step, and is no list of pictures."""
    is_table = dataset.ndim in (1, 2) and dataset.dtype.kind in kinds
    is_table = is_table and (dataset.ndim == 1 or dataset.shape[1] <= MAX_COLUMNS)
    return is_table and not _holds_encoded_frames(dataset)


def _holds_encoded_frames(dataset: h5py.Dataset) -> bool:
    """Whether the rows are JPEG or PNG files, which a table of bytes looks like."""
    if encoding_of(dataset) != "rows" or len(dataset) == 0:
        return False
    return frame_bytes(dataset, 0).startswith((JPEG_START, PNG_START))


def _width(group: h5py.Group, layout: Layout, source: Source, path: str) -> int:
    dataset = find_dataset(group, path, may_leave=layout.allow_external_links)
    if dataset is None:
        return 0
    return len(source.columns) or (min(dataset.shape[1], MAX_COLUMNS) if dataset.ndim == 2 else 1)


def _names(
    group: h5py.Group, layout: Layout, sources: list[Source], paths: list[str], number: str
) -> Iterator[str]:
    said = [_without_number(path, number) if number else path for path in paths]
    lasts = [path.rpartition("/")[2] for path in said]
    for source, path, whole, last in zip(sources, paths, said, lasts, strict=True):
        stem = last if lasts.count(last) == 1 else "_".join(whole.split("/")[-2:])
        width = _width(group, layout, source, path)
        if len(source.names) == width:
            yield from source.names
        else:
            yield from (stem if width == 1 else f"{stem}_{i}" for i in range(width))


def _without_number(path: str, number: str) -> str:
    """'states' of states_0, 0_states and states/run_0: columns have one name in every episode."""
    lone = re.compile(rf"(?<!\d){number}(?!\d)")
    parts = [part for part in path.split("/") if not lone.search(part)]
    return "/".join(parts) or lone.sub("", path).strip("_-. /")


def _units(
    group: h5py.Group, layout: Layout, sources: list[Source], paths: list[str]
) -> Iterator[str]:
    for source, path in zip(sources, paths, strict=True):
        width = _width(group, layout, source, path)
        if len(source.units) == width:
            yield from source.units
        else:
            yield from (source.units if len(source.units) == 1 else ("unknown",)) * width


def _cameras(
    group: h5py.Group, path: Path, layout: Layout, warnings: list[Finding]
) -> Iterator[tuple[str, str | Video, tuple[int, int]]]:
    """Every camera there is, with its place and size; a warning for frames that are none."""
    for name, place in layout.images.items():
        for camera, key in image_keys(group, layout, name, place):
            try:
                size = _size(group, path, layout, key)
            except (UndecodableFrameError, UndecodableVideoError) as error:
                where = f"{path}:{group.name.strip('/')}/{camera}".replace(":/", ":")
                if name == camera:  # asked for by name, and not just met by a pattern
                    fault = describe(
                        where, str(error), UNREADABLE_CAMERA.threshold, UNREADABLE_CAMERA.remedy
                    )
                    raise UserError(fault) from error
                warnings.append(_not_a_camera(where, str(error)))
                continue
            if size is not None:
                yield camera, key, size


def _size(
    group: h5py.Group, path: Path, layout: Layout, key: str | Video
) -> tuple[int, int] | None:
    """(height, width) of a camera's frames; None when there are none at this place."""
    if isinstance(key, Video):
        file = video_file(key, group, path, may_leave=layout.allow_external_links)
        return None if file is None else video_length_and_size(file)[1]
    place = layout.below_observations(key)
    dataset = find_dataset(group, place, may_leave=layout.allow_external_links)
    encoding = None if dataset is None else encoding_of(dataset)
    if dataset is None or encoding is None:
        return None
    return frame_size(dataset, encoding, layout.raw_sizes)


def _not_a_camera(where: str, error: str) -> Finding:
    return UNREADABLE_CAMERA.found(where, f"{error}, so there is no such camera")
