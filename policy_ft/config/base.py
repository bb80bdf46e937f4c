"""What every settings block shares: frozen, unknown keys refused, strict integers, the word off."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, StrictInt, Tag

from data_tools.declaration import WORD_TAG


class Settings(BaseModel):
    """Frozen settings that refuse unknown keys; the base of every settings block."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=()
    )

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some values changed, validated like any other.

        Pydantic's own takes unknown names and wrong types.

        Args:
            update: field name -> new value.
            deep: accepted for pydantic's signature; settings are immutable, so a shallow copy is as
                good.

        Raises:
            pydantic.ValidationError: an unknown name or a value the field refuses.
        """
        return type(self).model_validate({**dict(self), **(update or {})})


def _refuse_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(
            f"found {value!r}; expected a number. Write the number; true and false are not numbers "
            "here."
        )
    return value


Real = Annotated[float, BeforeValidator(_refuse_bool)]
"""A finite number. The text '1e-4', a string in YAML 1.1, is taken as one; `true` is not."""


def _one_or_more(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_one_or_more)]
"""One text or a list of them."""

PositiveInt = Annotated[StrictInt, Field(gt=0)]
NonNegativeInt = Annotated[StrictInt, Field(ge=0)]
Seed = Annotated[StrictInt, Field(ge=0, lt=2**63)]
"""Leaves room to count up within the 64 bits of a generator's key."""


def _on_or_off(value: object) -> str:
    """Null is none of the two, and is answered with the word."""
    return WORD_TAG if value is None or isinstance(value, str) else "on"


_Block = TypeVar("_Block")
_Word = TypeVar("_Word")

OrWord = Annotated[
    Annotated[_Block, Tag("on")] | Annotated[_Word, Tag(WORD_TAG)], Discriminator(_on_or_off)
]
"""A block of settings, or a plain word in its place."""

OrOff = OrWord[_Block, Literal["off"]]
"""A block of settings, or the word off."""
