"""Feature: one column of a LeRobot folder's data, or one camera, as info.json declares it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, JsonValue

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
