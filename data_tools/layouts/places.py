"""Places: where a layout keeps a sentence or a small fact about an episode.

An instruction may be an attribute, a field of a JSON text in an attribute, a dataset, a JSON file
beside the data, or a part of the file's name; so may a success flag, a seed or a source
demonstration. A place says where, `data_tools.layouts.texts` reads it.
"""

import re

from pydantic import Field, field_validator

from data_tools.conventions import Declaration

KEY_HELP = (
    "Where in the JSON the value is: names and numbers joined by dots; "
    "'episodes[id={number}].seed' takes the entry of a list whose field has that value. "
    "Empty: the whole text."
)


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

    text: str = Field(min_length=1, description="The task as a sentence.")


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

    _leads_nowhere_else = field_validator("file")(require_relative)


class InPath(Declaration):
    """A part of the data file's absolute path, with underscores turned into spaces."""

    path_pattern: str = Field(
        description="Regular expression searched in the path (with /); its group `value` is taken."
    )

    @field_validator("path_pattern")
    @classmethod
    def _has_a_value(cls, pattern: str) -> str:
        try:
            names = re.compile(pattern).groupindex
        except re.error as error:
            raise ValueError(f"no regular expression ({error}). Correct it.") from error
        if "value" not in names:
            raise ValueError(f"found {pattern!r}; expected a group (?P<value>...). Name it.")
        return pattern


Place = FixedText | InAttribute | InDataset | InJsonFile | InPath
