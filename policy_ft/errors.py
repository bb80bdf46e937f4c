"""Errors for users: one sentence that says where, what was found, what was expected and what to do.

The vocabulary is data_tools' own, so that every floor raises the same type; what is added here
turns a refusal of pydantic into the same sentence, with the key path, the file and the nearest
legal name.
"""

import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError
from pydantic.fields import FieldInfo

from data_tools.errors import UserError, describe, nearest, raise_faults

__all__ = ["UserError", "describe", "nearest", "raise_faults", "read_json", "validation_faults"]

KeyPath = tuple[str | int, ...]


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


def validation_faults(
    error: ValidationError,
    model: type[BaseModel],
    place: Callable[[KeyPath], str] = lambda path: dotted(path),
) -> list[str]:
    """One sentence for every value that pydantic refused.

    Args:
        error: what pydantic raised.
        model: the class that was being validated; its fields give the nearest legal names.
        place: how messages call a key path, e.g. `lambda path: f"run.yaml, {dotted(path)}"`. The
            path holds the user's keys only, without the union tags that pydantic mixes in.
    """
    faults: dict[KeyPath, list[dict[str, Any]]] = {}
    for detail in error.errors(include_url=False):
        path = _user_path(detail["loc"], model)[0]
        faults.setdefault(path, []).append(
            {
                **detail,
                "model": _user_path(detail["loc"][:-1], model)[1],
                "field": _field(detail["loc"], model),
            }
        )
    return [
        sentence
        for path, details in faults.items()
        for sentence in _sentences(place(path), path, details)
    ]


def dotted(path: KeyPath) -> str:
    """A key path as people write it: 'optimizer.lr'; the empty path is 'top level'."""
    return ".".join(str(part) for part in path) or "top level"


def _sentences(where: str, path: KeyPath, details: list[dict[str, Any]]) -> list[str]:
    first = details[0]
    if first["type"] == "extra_forbidden":
        names = _field_names(first["model"])
        hint = nearest(str(path[-1]), names)
        remedy = f"Rename or remove it; {hint}" if hint else "Rename or remove it."
        return [describe(where, f"the unknown key {path[-1]!r}", f"one of {names}", remedy)]
    if first["type"] == "missing":
        return [describe(where, "no value", "one, for it has no default", f"Add {path[-1]!r}.")]
    if first["type"] == "value_error":
        return [f"{where}: {line}" for line in str(first["ctx"]["error"]).split("\n")]
    expected = " or ".join(dict.fromkeys(_expected(detail) for detail in details))
    remedy = f"Set {dotted(path)} to such a value."
    field = first["field"]
    if first["input"] is None and field is not None and not field.is_required():
        default = f" for its default, {field.default!r}" if isinstance(field.default, str) else ""
        remedy = f"Set {dotted(path)} to such a value, or leave it out{default}."
    return [describe(where, _in_words(first["input"]), expected, remedy)]


def _in_words(value: object) -> str:
    return "null (no value)" if value is None else repr(value)


def _expected(detail: dict[str, Any]) -> str:
    if detail["type"] == "literal_error":
        expected = str(detail["ctx"]["expected"])
        return f"one of {expected}" if "," in expected or " or " in expected else expected
    if detail["type"] in ("tuple_type", "list_type"):
        return "a list, e.g. [one, two]"
    if detail["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return "a mapping of settings"
    if detail["type"] == "union_tag_invalid":
        return f"{detail['ctx']['discriminator']} to be one of {detail['ctx']['expected_tags']}"
    if detail["type"] == "union_tag_not_found":
        return f"a mapping with the key {detail['ctx']['discriminator']}"
    return _without_prefix(str(detail["msg"]))


def _without_prefix(message: str) -> str:
    """Pydantic's 'Input should be greater than 0' as 'a value greater than 0'."""
    text = message.removeprefix("Input should be ")
    return text if text.startswith(("a ", "an ")) else f"a value {text}"


def _field(location: tuple[str | int, ...], model: Any) -> FieldInfo | None:
    """The field of the setting at a pydantic location; None where that is no field."""
    path = _user_path(location, model)[0]
    # tags of unions may stand behind the setting's own key
    end = next(
        end for end in range(len(location) + 1) if _user_path(location[:end], model)[0] == path
    )
    parent = _user_path(location[: end - 1], model)[1] if path else None
    if parent is None or not _field_names(parent):
        return None
    field: FieldInfo | None = parent.model_fields.get(str(path[-1]))
    return field


def _field_names(model: Any) -> list[str]:
    return (
        list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []
    )


def _user_path(location: tuple[str | int, ...], model: Any) -> tuple[KeyPath, Any]:
    """The keys among a pydantic location, and the type at its end (None where unknown)."""
    path: list[str | int] = []
    current = _plain(model)
    for part in location:
        if _is_union(current):
            current = _plain(_union_member(current, part))
            continue
        path.append(part)
        current = _plain(_child(current, part))
    return tuple(path), current


def _child(annotation: Any, part: str | int) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(part))
        return field.annotation if field else None
    arguments = get_args(annotation)
    if get_origin(annotation) is tuple and isinstance(part, int):
        return arguments[0] if len(arguments) == 2 and arguments[1] is Ellipsis else arguments[part]
    return arguments[-1] if arguments else None


def _plain(annotation: Any) -> Any:
    """The annotation without Annotated."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def _union_member(union: Any, label: str | int) -> Any:
    """The member that pydantic labels so: by its Tag, its `kind` or its class name."""
    for member in get_args(union):
        tags = [item.tag for item in getattr(member, "__metadata__", ()) if isinstance(item, Tag)]
        plain = _plain(member)
        kind = plain.model_fields.get("kind") if _field_names(plain) else None
        kinds = get_args(kind.annotation) if kind and get_origin(kind.annotation) is Literal else ()
        if label in (*tags, *kinds, getattr(plain, "__name__", None)):
            return member
    return None
