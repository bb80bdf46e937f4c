"""meta/info.json of a LeRobot folder: its version, features and where its files lie.

Feature: one column of a LeRobot folder's data, or one camera, as info.json declares it.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StrictInt, ValidationError

from data_tools.conventions import MAX_CONTROL_HZ
from data_tools.declaration import Number, faults_in_file
from data_tools.errors import UserError, describe, raise_faults
from data_tools.rules import UNKNOWN_LAYOUT, UNREADABLE_FILE

CAMERA_DTYPES: Final = ("image", "video")
CHANNELS: Final = ("channel", "channels", "rgb", "c")
MAX_COLUMNS: Final = 100_000
MAX_DEPTH: Final = 8


class Feature(BaseModel):
    """One entry of info.json's features. What cannot be read matters only where it is used."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    dtype: JsonValue = Field(None, description="float32, int64, string, ..., or image or video.")
    shape: JsonValue = Field(None, description="Of one step: a list of sizes.")
    names: JsonValue = Field(None, description="Of columns or axes: lists, mappings or null.")
    info: JsonValue = Field(None, description="How a video is encoded.")
    video_info: JsonValue = Field(None, description="The same, as v2.0 calls it.")

    @property
    def is_camera(self) -> bool:
        """Whether it is made of images."""
        return self.dtype in CAMERA_DTYPES

    @property
    def is_text(self) -> bool:
        """Whether it is made of words."""
        return self.dtype in ("string", "language")

    @property
    def is_depth(self) -> bool:
        """Whether its images are said to be depth maps, however many channels they have."""
        said = [each for each in (self.info, self.video_info) if isinstance(each, dict)]
        keys = ("video.is_depth_map", "is_depth_map")
        return any(each.get(key) is True for each in said for key in keys)

    @property
    def sizes(self) -> tuple[int, ...] | None:
        """The shape of one step; None where it is no list of whole numbers above 0."""
        sizes = self.shape if isinstance(self.shape, list) else None
        if sizes is None or not all(type(size) is int and size > 0 for size in sizes):
            return None
        return tuple(size for size in sizes if isinstance(size, int))

    @property
    def width(self) -> int | None:
        """Number of columns of a vector or a single number; None for anything else."""
        sizes = self.sizes
        if sizes is None or len(sizes) > 1 or self.is_camera or self.is_text:
            return None
        (width,) = sizes or (1,)
        return width if width <= MAX_COLUMNS else None

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Rows and columns of an image with three channels, None for any other shape.

        The names say which axis is which; without them, the axis of size 3 does, if it is one.
        """
        sizes = self.sizes
        if sizes is None or len(sizes) != 3:
            return None
        axes = [name for _, name in _names_in(self.names) or []]
        places = [i for i, name in enumerate(axes) if name in CHANNELS and len(axes) == 3]
        if len(places) != 1:
            places = [axis for axis in (0, 2) if sizes[axis] == 3]
        if len(places) != 1 or sizes[places[0]] != 3 or places[0] == 1:
            return None
        height, width = [size for axis, size in enumerate(sizes) if axis != places[0]]
        return height, width


def column_names(part: str, features: Sequence[Feature]) -> tuple[tuple[str, ...], list[str]]:
    """One name for each column of these vectors together, and what could not be read as names.

    Names may be nested in lists and mappings, as converters write them: `[[...]]`,
    `{"motors": [...]}`, `{"left": [...], "right": [...]}` or `{"x": 0, "y": 1}`. Names that are
    there twice get their group before them where that tells them apart, or else their column's
    number behind them. Columns without names are called `<part>_<number>`; one name for a vector of
    several columns, as openpi's converters write it, is the vector's and names no column.
    """
    names: list[str] = []
    complaints: list[str] = []
    for feature in features:
        width = feature.width or 0
        first = len(names)
        found = _names_in(feature.names)
        if found and len(found) == width:
            names += _told_apart(found)
            continue
        names += [f"{part}_{first + i}" for i in range(width)]
        if found is None or len(found) > 1:
            complaints.append(f"{str(feature.names)[:200]} for {width} columns")
    twice = {name for name, count in Counter(names).items() if count > 1}
    if twice:
        complaints.append(f"{sorted(twice)[:5]} more than once")
        names = [f"{name}_{i}" if name in twice else name for i, name in enumerate(names)]
    return tuple(names), complaints


def _told_apart(found: Sequence[tuple[str, str]]) -> list[str]:
    names = [name for _, name in found]
    if len(set(names)) == len(names):
        return names
    grouped = [f"{group}.{name}" if group else name for group, name in found]
    return grouped if len(set(grouped)) == len(grouped) else names


def _names_in(names: JsonValue) -> list[tuple[str, str]] | None:
    """(group, name) of every name in order; None where something else is among them."""
    found = list(_walk(names, ()))
    readable = [each for each in found if each is not None]
    return readable if len(readable) == len(found) else None


def _walk(names: JsonValue, groups: tuple[str, ...]) -> Iterator[tuple[str, str] | None]:
    """Every name with its group, and None for whatever is no name."""
    if isinstance(names, str) or type(names) is int:
        yield ".".join(filter(None, groups)), str(names)
    elif isinstance(names, list) and len(groups) < MAX_DEPTH:
        for each in names:
            yield from _walk(each, (*groups, ""))
    elif isinstance(names, dict) and len(groups) < MAX_DEPTH:
        yield from _walk_mapping(names, groups)
    elif names is not None:
        yield None


def _walk_mapping(
    names: Mapping[str, JsonValue], groups: tuple[str, ...]
) -> Iterator[tuple[str, str] | None]:
    if names and all(type(place) is int for place in names.values()):
        yield from _walk(_ranked(names), groups)
    elif names and all(key.isdecimal() and isinstance(each, str) for key, each in names.items()):
        yield from _walk(_ranked({str(each): int(key) for key, each in names.items()}), groups)
    else:
        for key, below in names.items():
            yield from _walk(below, (*groups, key))


def _ranked(places: Mapping[str, JsonValue]) -> list[JsonValue]:
    """Names in the order of their columns' numbers; false where these do not count from 0."""
    ranked = sorted((int(str(number)), name) for name, number in places.items())
    is_counted = [number for number, _ in ranked] == list(range(len(ranked)))
    return [name for _, name in ranked] if is_counted else [False]


Version = Literal["v2.0", "v2.1", "v3.0"]
VERSIONS: Final[tuple[Version, ...]] = get_args(Version)
INFO_FILE: Final = "meta/info.json"
INDEX_FEATURES: Final = ("timestamp", "frame_index", "episode_index", "index", "task_index")

_V2_DATA: Final = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
_V2_VIDEO: Final = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
DATA_PATH: Final[dict[Version, str]] = {
    "v2.0": _V2_DATA,
    "v2.1": _V2_DATA,
    "v3.0": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
}
VIDEO_PATH: Final[dict[Version, str]] = {
    "v2.0": _V2_VIDEO,
    "v2.1": _V2_VIDEO,
    "v3.0": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}
_V2_PLACES: Final = {"episode_chunk", "episode_index"}
_V3_PLACES: Final = {"chunk_index", "file_index"}
_NUMBER_FORMAT: Final = re.compile(r"(0?\d{1,2}d?)?")


class Info(BaseModel):
    """What info.json says about the dataset as a whole; what it leaves out is as LeRobot has it."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    codebase_version: Version
    fps: Number = Field(gt=0, le=MAX_CONTROL_HZ, description="Steps per second.")
    features: dict[str, Feature]
    total_episodes: StrictInt | None = Field(None, ge=0)
    total_frames: StrictInt | None = Field(None, ge=0)
    chunks_size: StrictInt = Field(1000, gt=0, description="Most files of one folder.")
    data_path: str = Field("", description="Template of the Parquet files' paths.")
    video_path: str | None = Field(None, description="Template of the videos' paths.")
    robot_type: str | None = Field(None, description="Name of the robot.")

    @property
    def is_v3(self) -> bool:
        """Whether a file holds many episodes."""
        return self.codebase_version == "v3.0"

    @property
    def data_template(self) -> str:
        """Where the Parquet files lie."""
        return self.data_path or DATA_PATH[self.codebase_version]

    @property
    def video_template(self) -> str:
        """Where the videos lie."""
        return self.video_path or VIDEO_PATH[self.codebase_version]


def is_lerobot(folder: Path) -> bool:
    """Whether a folder's meta/info.json is of LeRobot's kind; one that is no JSON may be."""
    path = folder / INFO_FILE
    if not os.path.isfile(path):  # no error for a name too long
        return False
    try:
        content = read_json(path)
    except UserError:
        return True  # which read_info tells
    return isinstance(content, dict) and (
        "codebase_version" in content or {"features", "fps"} <= content.keys()
    )


def read_info(folder: Path) -> Info:
    """info.json of the folder.

    Raises:
        UserError: it is missing or not valid, or of a version that is not read; all faults at once.
    """
    path = folder / INFO_FILE
    content = read_json(path)
    if not isinstance(content, dict):
        remedy = "Mend info.json, or download it again."
        raise UserError(describe(str(path), repr(content)[:80], "a mapping", remedy))
    faults = _version_faults(path, content)
    if faults:  # the other faults are told in spite of it
        content = content | {"codebase_version": "v2.1"}
    try:
        info = Info.model_validate(content)
    except ValidationError as error:
        remedy = "Mend info.json, or download it again."
        raise UserError([*faults, *faults_in_file(error, Info, path, remedy)]) from error
    raise_faults(faults or _unsafe(path, info))
    return info


def file_path(folder: Path, template: str, **places: int | str) -> Path:
    """The file that a template of info.json names for these places, below the folder."""
    return folder / template.format(**places)


def read_json(path: Path) -> JsonValue:
    """What a JSON file holds; UserError when it is missing or no JSON."""
    try:
        content: JsonValue = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        remedy = "Give the folder that holds `meta`, or download the dataset again."
        expected, rule = "a LeRobot dataset folder", UNREADABLE_FILE.name
        raise UserError(describe(str(path), "no such file", expected, remedy, rule)) from error
    except (OSError, ValueError, RecursionError) as error:
        found = f"no readable JSON ({type(error).__name__}: {error})"
        rule = UNREADABLE_FILE.name
        raise UserError(describe(str(path), found, "a mapping", "Copy it again.", rule)) from error
    return content


def _version_faults(path: Path, content: dict[str, JsonValue]) -> list[str]:
    version = content.get("codebase_version")
    if version in VERSIONS:
        return []
    found = repr(version)[:80] if "codebase_version" in content else "no version"
    remedy = (
        "Take the dataset in one of these versions; where only the number is wrong, write the right"
        " one: 'v3.0' has meta/episodes/chunk-000/file-000.parquet, 'v2.0' and 'v2.1' have "
        "meta/episodes.jsonl."
    )
    expected = f"one of {list(VERSIONS)}"
    where, rule = f"{path}, codebase_version", UNKNOWN_LAYOUT.name
    return [describe(where, found, expected, remedy, rule)]


def _unsafe(path: Path, info: Info) -> list[str]:
    """Templates and feature names that lead out of the folder or format objects."""
    faults = []
    for name, feature in info.features.items():
        if feature.dtype == "video" and ("/" in name or name.startswith(".")):
            expected = "a name without '/' that does not start with '.'"
            faults.append(describe(f"{path}, features", repr(name)[:80], expected, "Rename it."))
    places = _V3_PLACES if info.is_v3 else _V2_PLACES
    for field, template, known in (
        ("data_path", info.data_template, places),
        ("video_path", info.video_template, places | {"video_key"}),
    ):
        if not _is_safe(template, known):
            expected = f"a path below the folder, made of the places {sorted(known)}"
            found = repr(template)[:200]
            faults.append(describe(f"{path}, {field}", found, expected, "Mend info.json."))
    return faults


def _is_safe(template: str, places: set[str]) -> bool:
    try:
        parts = list(Formatter().parse(template))
    except ValueError:
        return False
    if any(
        name is not None
        and (
            name not in places
            or conversion
            or not _NUMBER_FORMAT.fullmatch(spec or "")
            or (name == "video_key" and spec)
        )
        for _, name, spec, conversion in parts
    ):
        return False
    plain = PurePosixPath("".join(text for text, *_ in parts))
    return not plain.is_absolute() and ".." not in plain.parts
