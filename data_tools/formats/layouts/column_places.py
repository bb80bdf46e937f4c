"""Where a layout keeps a column: a row a step, or one number for all steps of an episode."""

import re
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Discriminator, Field, Tag

from data_tools.columns import NAME_PATTERN
from data_tools.declaration import Declaration, Number
from data_tools.formats.layouts.places import InAttribute, InDataset, InJsonFile

EVERY_COLUMN: Final = "*"


class OfEpisodes(Declaration):
    """A number of each episode, written beside the data."""

    episodes: dict[str, Number] = Field(
        description="Name of the episode, as demo_3, to its number. Each episode has one."
    )


_KINDS: Final = {
    "episodes": OfEpisodes,
    "attribute": InAttribute,
    "dataset": InDataset,
    "file": InJsonFile,
}


def _kind(place: object) -> str | None:
    """Which of the places this is; None for none and for two."""
    if isinstance(place, str):
        return "<rows>"
    if isinstance(place, int | float) and not isinstance(place, bool):
        return "<number>"
    given = [
        key
        for key, kind in _KINDS.items()
        if isinstance(place, kind) or (isinstance(place, dict) and key in place)
    ]
    return f"<{given[0]}>" if len(given) == 1 else None


ColumnPlace = Annotated[
    Annotated[str, Tag("<rows>")]
    | Annotated[Number, Tag("<number>")]
    | Annotated[OfEpisodes, Tag("<episodes>")]
    | Annotated[InAttribute, Tag("<attribute>")]
    | Annotated[InDataset, Tag("<dataset>")]
    | Annotated[InJsonFile, Tag("<file>")],
    Discriminator(
        _kind,
        custom_error_type="place",
        custom_error_message="the path of a dataset with a row a step, a number for all steps, or "
        f"a mapping with one of the keys {', '.join(_KINDS)}",
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
