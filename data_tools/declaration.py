"""Declaration: the base of every record that a person or a file may state."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from data_tools.errors import describe

BOOLEANS = "YAML reads yes, no, on and off as true and false"


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"a number ({BOOLEANS})")
    return value


Number = Annotated[float, BeforeValidator(_no_boolean)]
"""A float that is not made of a boolean, which Python counts with."""


class Declaration(BaseModel):
    """A frozen record that refuses unknown keys; the base of every declaration.

    Infinite numbers survive JSON, as the words "Infinity" and "-Infinity".
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


def faults_in_file(error: ValidationError, path: Path, remedy: str) -> list[str]:
    """A sentence for each fault of a file's content, with the key it is at."""
    return [
        describe(
            f"{path}, {'.'.join(map(str, each['loc']))}",
            repr(each["input"])[:80],
            each["msg"].removeprefix("Value error, "),
            remedy,
        )
        for each in error.errors()
    ]
