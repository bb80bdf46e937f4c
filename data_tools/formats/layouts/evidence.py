"""Evidence: facts about an open file that tell one layout from another, each a test of a preset."""

import posixpath
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import h5py
from pydantic import Field, JsonValue

from data_tools.declaration import Declaration
from data_tools.errors import shown
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
