"""Places: where a layout keeps a sentence, a small fact about an episode, or a column.

An instruction may be an attribute, a field of a JSON text in an attribute, a dataset, a JSON file
beside the data, or a part of the file's name; so may a success flag, a seed or a source
demonstration. A place says where, `data_tools.formats.layouts.texts` reads it. A column is a row a
step, or one number for all steps of an episode.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Discriminator, Field, Tag, field_validator

from data_tools.columns import NAME_PATTERN
from data_tools.declaration import Declaration, Number

KEY_HELP = (
    "Where in the JSON the value is: names and numbers joined by dots; "
    "'episodes[id={number}].seed' takes the entry of a list whose field has that value. "
    "Empty: the whole text."
)


def require_pattern(pattern: str) -> re.Pattern[str]:
    """The regular expression of that text.

    Raises:
        ValueError: it is none.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"a pattern, and this is no regular expression ({error})") from error


def require_relative(pattern: str) -> str:
    """The path, where it starts in the data file's folder and goes up only at its beginning.

    Raises:
        ValueError: it does not.
    """
    below = pattern
    while below.startswith("../"):
        below = below.removeprefix("../")
    if below.startswith("/") or ".." in below.split("/"):
        raise ValueError("a path from the data file's folder, with ../ at its beginning only")
    return pattern


class FixedText(Declaration):
    """The same value for every episode of the file."""

    text: str = Field(description="The task as a sentence.")

    @field_validator("text")
    @classmethod
    def _says_something(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("a sentence, and this one is empty")
        return text


class InAttribute(Declaration):
    """A value in an attribute of the episode's group, or else of the group above or the file."""

    attribute: str = Field(min_length=1, description="Name of the attribute.")
    key: str = Field("", description=KEY_HELP)


class InDataset(Declaration):
    """A value in a dataset: a text, or an array of which the last entry counts, or all of it."""

    dataset: str = Field(min_length=1, description="Path of the dataset from the episode's group.")
    key: str = Field("", description=KEY_HELP)
    is_whole: bool = Field(
        False, description="Whether the different values of an array count, and not the last one."
    )


class InJsonFile(Declaration):
    """A value in a JSON file beside the data."""

    file: str = Field(
        min_length=1,
        description="Path from the data file's folder; may contain * and the words {stem} (the "
        "data file's name without its suffix), {folder}, {folder_above}, {episode} (the episode's "
        "group) and {number} (the last number in the group's or the file's name).",
    )
    key: str = Field("", description=KEY_HELP)

    @field_validator("file")
    @classmethod
    def _leads_nowhere_else(cls, pattern: str) -> str:
        try:
            return require_relative(pattern)
        except ValueError as error:
            keys = "a place in a JSON file has the keys `file` and, for an entry of it, `key`"
            raise ValueError(f"{error}; {keys}") from error


class InPath(Declaration):
    """A part of the data file's absolute path, with underscores turned into spaces."""

    path_pattern: str = Field(
        description="Regular expression searched in the path (with /); its group `value` is taken."
    )

    @field_validator("path_pattern")
    @classmethod
    def _has_a_value(cls, pattern: str) -> str:
        if "value" not in require_pattern(pattern).groupindex:
            raise ValueError(f"found {pattern!r}; expected a group (?P<value>...). Name it.")
        return pattern


_KINDS = {
    "text": FixedText,
    "attribute": InAttribute,
    "dataset": InDataset,
    "file": InJsonFile,
    "path_pattern": InPath,
}


def _kind(place: object) -> str | None:
    """Which of the places this is, by the key that only it has; None for none and for two."""
    return _tag(place, _KINDS)


def _tag(place: object, kinds: Mapping[str, type]) -> str | None:
    given = [
        key
        for key, kind in kinds.items()
        if isinstance(place, kind) or (isinstance(place, dict) and key in place)
    ]
    return f"<{given[0]}>" if len(given) == 1 else None


Place = Annotated[
    Annotated[FixedText, Tag("<text>")]
    | Annotated[InAttribute, Tag("<attribute>")]
    | Annotated[InDataset, Tag("<dataset>")]
    | Annotated[InJsonFile, Tag("<file>")]
    | Annotated[InPath, Tag("<path_pattern>")],
    Discriminator(
        _kind,
        custom_error_type="place",
        custom_error_message=f"a mapping with one of the keys {', '.join(_KINDS)}",
    ),
]


EVERY_COLUMN: Final = "*"


class OfEpisodes(Declaration):
    """A number of each episode, written beside the data."""

    episodes: dict[str, Number] = Field(
        description="Name of the episode, as demo_3, to its number. Each episode has one."
    )


_COLUMN_KINDS: Final = {
    "episodes": OfEpisodes,
    "attribute": InAttribute,
    "dataset": InDataset,
    "file": InJsonFile,
}


def _column_kind(place: object) -> str | None:
    """Which of the places this is; None for none and for two."""
    if isinstance(place, str):
        return "<rows>"
    if isinstance(place, int | float) and not isinstance(place, bool):
        return "<number>"
    return _tag(place, _COLUMN_KINDS)


ColumnPlace = Annotated[
    Annotated[str, Tag("<rows>")]
    | Annotated[Number, Tag("<number>")]
    | Annotated[OfEpisodes, Tag("<episodes>")]
    | Annotated[InAttribute, Tag("<attribute>")]
    | Annotated[InDataset, Tag("<dataset>")]
    | Annotated[InJsonFile, Tag("<file>")],
    Discriminator(
        _column_kind,
        custom_error_type="place",
        custom_error_message="the path of a dataset with a row a step, a number for all steps, or "
        f"a mapping with one of the keys {', '.join(_COLUMN_KINDS)}",
    ),
]
"""A path has a row a step; everything else one number an episode."""


def require_names(columns: Mapping[str, object]) -> None:
    """ValueError for a name that is no word, and for a star without a path that ends in one."""
    for name, place in columns.items():
        is_star = isinstance(place, str) and place.endswith("/*") and place.count("*") == 1
        has_star = isinstance(place, str) and "*" in place
        if name == EVERY_COLUMN and not is_star:
            raise ValueError(
                f"found {place!r} for the name '*'; expected a path that ends in /*. Name a group."
            )
        if name != EVERY_COLUMN and (has_star or not re.fullmatch(NAME_PATTERN, name)):
            raise ValueError(
                f"found {name!r} ({place!r}); expected a name of letters, digits and _, and a path "
                "without a star. Rename it."
            )
