"""Preset: a layout that a project writes, how to recognize it, and what its numbers mean.

One YAML file a layout lies in `presets/`. It is data: a new kind of file needs a new YAML file, and
code only where nobody keeps things in that way yet. A preset states what every file with its marks
bears out, or what marks of one file show; what it leaves open a person is asked for.
"""

import posixpath
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import h5py
import yaml
from pydantic import Field, JsonValue

from data_tools.conventions import ActionReference, CameraSpec, GripperSpec
from data_tools.declaration import Declaration
from data_tools.errors import shown
from data_tools.formats.layouts.layout import Layout
from data_tools.formats.layouts.texts import (
    UnreadableFactError,
    attribute_text,
    parsed_entry,
)
from data_tools.storage.files.paths import natural_key
from data_tools.storage.hdf5.links import find, first_whole, member_names

# A '*' in a path stands for the first member in natural order, or one that has what others have and
# the first lacks: 'data/*/obs' is the observations of the first whole episode.
PATH_HELP = "Path in the file; a part * is the first whole member of its group."


class Exists(Declaration):
    """Something is there."""

    exists: str = Field(description=PATH_HELP)


class Absent(Declaration):
    """Nothing is there."""

    absent: str = Field(description=PATH_HELP)


class Empty(Declaration):
    """Nothing is there, or a group with nothing in it."""

    empty: str = Field(description=PATH_HELP)


class HasAttribute(Declaration):
    """A group has an attribute, perhaps with this value."""

    attribute: str = Field(description="Name of the attribute.")
    of: str = Field("/", description=PATH_HELP)
    key: str = Field("", description="Entry of the JSON that the attribute holds.")
    equals: JsonValue = Field(None, description="Its value; any when absent.")


class LacksAttribute(Declaration):
    """A group does not have an attribute."""

    lacks_attribute: str = Field(description="Name of the attribute.")
    of: str = Field("/", description=PATH_HELP)


class NamesMatch(Declaration):
    """Every member of a group has a name of this form."""

    names: str = Field(description="Regular expression of the whole name.")
    of: str = Field("/", description=PATH_HELP)


class IsArray(Declaration):
    """A dataset has this many dimensions, or this kind of numbers."""

    array: str = Field(description=PATH_HELP)
    ndim: tuple[int, ...] = Field((), description="Numbers of dimensions; any when empty.")
    kinds: tuple[Literal["f", "i", "u", "b", "S", "O"], ...] = Field(
        (), description="Kinds of numpy's dtype; O is of variable length. Any when empty."
    )


Test = Exists | Absent | Empty | HasAttribute | LacksAttribute | NamesMatch | IsArray


class OpenFile:
    """A file whose layout is asked for; remembers what it looked up, for presets ask the same."""

    def __init__(self, file: h5py.File, path: Path) -> None:
        self.file = file
        self.path = path
        self._found: dict[str, h5py.Group | h5py.Dataset | None] = {}
        self._names: dict[str, list[str]] = {}

    def find(self, place: str) -> h5py.Group | h5py.Dataset | None:
        """What is at a path in which a part * stands for the first member of its group."""
        place = posixpath.normpath(posixpath.join("/", place))
        if place == "/":
            return self.file["/"]
        if place not in self._found:
            above, _, name = place.rpartition("/")
            group = self.find(above)
            names = [name] if name != "*" else self.names(above)
            self._found[place] = None
            if isinstance(group, h5py.Group) and names:
                self._found[place] = find(group, first_whole(group, names))
        return self._found[place]

    def names(self, place: str) -> list[str]:
        """Names of the members of a group, demo_2 before demo_10; empty when it is none."""
        if place not in self._names:
            group = self.find(place)
            names = member_names(group) if isinstance(group, h5py.Group) else []
            self._names[place] = sorted(names, key=natural_key)
        return self._names[place]


def proof(test: Test, file: OpenFile) -> str | None:
    """The sentence that a test proves about a file; None when the test fails."""
    match test:
        case Exists(exists=place):
            return f"has {place}" if file.find(place) is not None else None
        case Absent(absent=place):
            return f"has no {place}" if file.find(place) is None else None
        case Empty(empty=place):
            found = file.find(place)
            is_empty = found is None or (isinstance(found, h5py.Group) and not file.names(place))
            return f"has nothing in {place}" if is_empty else None
        case HasAttribute():
            return _attribute_proof(test, file)
        case LacksAttribute(lacks_attribute=name, of=place):
            found = file.find(place)
            is_lacking = found is not None and name not in found.attrs
            return f"{place} has no attribute {name}" if is_lacking else None
        case NamesMatch(names=pattern, of=place):
            names = file.names(place)
            is_match = bool(names) and all(re.fullmatch(pattern, name) for name in names)
            return f"the names in {place} are like {names[0]}" if is_match else None
        case IsArray():
            return _array_proof(test, file)


def is_mark(test: Test) -> bool:
    """Whether a test asks for something that is there, and not for what is absent."""
    return not isinstance(test, Absent | Empty | LacksAttribute)


def claim(test: Test) -> str:
    """What a test asks for, in words, for the sentence that says which one failed."""
    return ", ".join(
        f"{name} {value!r}" for name, value in test.model_dump(exclude_defaults=True).items()
    )


def _attribute_proof(test: HasAttribute, file: OpenFile) -> str | None:
    found = file.find(test.of)
    if found is None or test.attribute not in found.attrs:
        return None
    what = f"{test.of} has the attribute {test.attribute}"
    if test.equals is None and not test.key:
        return what
    try:
        value = parsed_entry(attribute_text(found, test.attribute), test.key)
    except UnreadableFactError:
        return None  # not the JSON this layout writes, so not this layout
    if value is None or test.equals not in (None, value):
        return None
    return f"{what} with {test.key or 'the value'} {shown(value, 40)}"


def _array_proof(test: IsArray, file: OpenFile) -> str | None:
    found = file.find(test.array)
    if not isinstance(found, h5py.Dataset):
        return None
    if (test.ndim and found.ndim not in test.ndim) or (
        test.kinds and found.dtype.kind not in test.kinds
    ):
        return None
    return f"{test.array} is {found.dtype}{_shape(found.shape)}"


def _shape(shape: Sequence[int] | None) -> str:
    return str(list(shape or ()))


class CameraTemplate(Declaration):
    """What a layout says about cameras whose size the file tells."""

    color_order: Literal["rgb", "bgr", "unknown"] = Field(
        "unknown", description="Order of the channels stored."
    )
    orientation: Literal["upright", "flipped_vertical", "rotated_180", "unknown"] = Field(
        "unknown", description="How the stored image relates to the scene."
    )
    source: str = Field("unknown", description="What makes the pixels.")

    def filled(self, name: str, height: int, width: int) -> dict[str, object]:
        """The declaration of a camera of this size; channels of unknown order stay as they are."""
        said = self.model_dump()
        if self.color_order == "unknown":
            del said["color_order"]
        return CameraSpec(name=name, height=height, width=width, **said).model_dump()


class ActionTemplate(Declaration):
    """What a layout says about actions of a certain width; one value stands for all columns."""

    names: tuple[str, ...] = Field((), description="Names of the columns; any width when empty.")
    units: str | tuple[str, ...] = Field("unknown", description="Units of the columns.")
    references: ActionReference | tuple[ActionReference, ...] = Field(
        "unknown", description="What each column is relative to."
    )
    low: float | tuple[float, ...] = Field(float("-inf"), description="Smallest legal values.")
    high: float | tuple[float, ...] = Field(float("inf"), description="Largest legal values.")
    frame: str = Field("unknown", description="Frame of positions and rotations.")
    rotation: str = Field("unknown", description="Form of the rotation columns.")
    grippers: tuple[GripperSpec, ...] | None = Field(
        None, description="The gripper columns and signs; null where that is open."
    )


class ConventionsTemplate(Declaration):
    """What a layout says about its numbers, with the sizes left to the file."""

    control_hz: float | None = Field(None, description="Control steps per second.")
    camera: CameraTemplate = Field(CameraTemplate(), description="Every camera not named below.")
    cameras: dict[str, CameraTemplate] = Field({}, description="Cameras that differ, by name.")
    state_frame: str = Field("unknown", description="Frame of the state's positions.")
    action: tuple[ActionTemplate, ...] = Field(
        (), description="One for each width that occurs; the one with as many names is taken."
    )

    def with_more(self, more: "ConventionsTemplate") -> "ConventionsTemplate":
        """These, with what others say in addition."""
        said = {name: getattr(more, name) for name in more.model_fields_set}
        if "camera" in said:
            camera = more.camera.model_dump(exclude_unset=True)
            said["camera"] = self.camera.model_copy(update=camera)
        return self.model_copy(update=said)


class Shown(Declaration):
    """What the numbers of a file mean that shows more than the marks of its layout."""

    evidence: tuple[Test, ...] = Field(min_length=1, description="What must hold, all together.")
    conventions: ConventionsTemplate = Field(description="What that tells.")


class Preset(Declaration):
    """A kind of file that a project writes."""

    name: str = Field(description="Name of the layout: what a sidecar's `layout` says.")
    title: str = Field(description="One line for the table of layouts.")
    project: str = Field(description="Where it comes from: repositories or a paper.")
    evidence: tuple[Test, ...] = Field(min_length=1, description="What must hold, all together.")
    special_case_of: tuple[str, ...] = Field(
        (), description="Layouts whose evidence such a file shows, too."
    )
    layout: Layout = Field(Layout(), description="Where the parts are.")
    conventions: ConventionsTemplate = Field(
        ConventionsTemplate(), description="What the numbers mean."
    )
    shown: tuple[Shown, ...] = Field(
        (), description="What only some files of the kind tell, and by which marks of theirs."
    )
    declare: dict[str, str] = Field(
        {},
        description="Why a place of the conventions (control_hz, cameras.*.orientation, ...) is "
        "open. Units, forms of rotations, and names that the layout may have wrong, are asked for "
        "only where they are listed here; anything else wherever it is open.",
    )
    usual: dict[str, JsonValue] = Field(
        {},
        description="What the project's own recorder writes, by place: never assumed, and proposed "
        "to the person who is asked, where the columns are as many.",
    )
    refusal: str = Field(
        "", description="What to do instead, when such a file holds nothing to train on."
    )


def nothing_said(layout: Layout) -> Preset:
    """A layout that a person declares, of whose numbers nothing is known but what they say."""
    reason = "no source in the layout says it"
    return Preset(
        name=layout.name,
        title="declared in a sidecar",
        project="",
        evidence=(Exists(exists="/"),),
        layout=layout,
        declare={"state.units": reason, "action.units": reason},
    )


@cache
def presets() -> dict[str, Preset]:
    """Every layout we know, by name, in the order of their names."""
    folder = files(__package__).joinpath("presets")
    texts = {f.name: f.read_text("utf-8") for f in folder.iterdir() if f.name.endswith(".yaml")}
    loaded = [_preset(name, yaml.safe_load(texts[name])) for name in sorted(texts)]
    return {preset.name: preset for preset in loaded}


def _preset(file_name: str, content: dict[str, Any]) -> Preset:
    """One preset; its layout bears its name."""
    name = file_name.removesuffix(".yaml")
    layout = {**content.get("layout", {}), "name": name}
    return Preset.model_validate({**content, "name": name, "layout": layout})
