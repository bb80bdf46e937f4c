"""Errors for users: one sentence that says where, what was found, what was expected and what to do.

The vocabulary is data_tools' own, so that every floor raises the same type.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from data_tools.declaration import KeyPath, dotted, refusals
from data_tools.errors import Faults, UserError, describe, nearest, raise_faults

__all__ = [
    "Faults",
    "KeyPath",
    "UserError",
    "describe",
    "dotted",
    "nearest",
    "raise_faults",
    "read_json",
    "read_lines",
    "validation_faults",
]


def read_json(path: Path) -> Any:
    """The content of a JSON file; UserError naming the file when it is missing or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            describe(
                str(path),
                "no such file",
                "a JSON file",
                "Copy the whole directory again; a file is missing.",
            )
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            describe(
                str(path),
                f"text that is not JSON ({error})",
                "JSON",
                "Copy the file again; it is damaged.",
            )
        ) from None


def read_lines(path: Path, where: str) -> tuple[str, ...]:
    """The lines of a text file that are not blank; UserError naming the setting `where`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        expected, remedy = "a text file, one entry a line", "Correct the path."
        raise UserError(describe(where, f"{path} ({error})", expected, remedy)) from None
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def size_setting(name: str) -> str:
    """How messages call the setting of a model's size, which each kind of policy has elsewhere."""
    return f"policy.model.{name} (kind new) or policy.resize.{name} (kind pretrained)"


def validation_faults(
    error: ValidationError,
    model: type[BaseModel],
    place: Callable[[KeyPath], str] = dotted,
) -> list[str]:
    """One sentence for every value that pydantic refused, as `data_tools.declaration` says it."""
    return refusals(error.errors(include_url=False), model, place)
