"""Declaration: the base of every record that a person or a file may state.

What pydantic found wrong with a value is told here as a sentence of ours with the user's keys.
"""

import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Tag, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from data_tools.errors import describe, nearest, shown

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


KeyPath = tuple[str | int, ...]

_TEXT, _NUMBER, _WHOLE, _LIST, _MAPPING = (
    *("a text", "a number", "a whole number", "a list, e.g. [one, two]"),
    "a mapping, e.g. {{key: value}}",
)
# Every type of error that our fields give; {words} are those of pydantic's context.
_EXPECTED: Final = {
    "string_type": _TEXT,
    "string_unicode": _TEXT,
    "bytes_type": _TEXT,
    "invalid_key": "a key that is a text",
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "int_parsing_size": "a whole number of fewer digits",
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": _LIST,
    "list_type": _LIST,
    "dict_type": _MAPPING,
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "dataclass_type": _MAPPING,
    "unexpected_keyword_argument": "one of the keys it has",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "too_long": "at most {max_length} entries",
    "union_tag_invalid": "{discriminator} to be one of {expected_tags}",
    "union_tag_not_found": "a mapping with the key {discriminator}",
    "none_required": "null",
    "json_invalid": "JSON",
    "invalid-json-value": "what JSON can hold",
    "is_instance_of": "another kind of value",
}

WORD_TAG = "off"
"""The tag of the plain word in a union of a word and a block of settings."""


def refusals(
    details: Iterable[ErrorDetails],
    model: Any,
    place: Callable[[KeyPath], str],
    *,
    inside: KeyPath = (),
    also: Sequence[str] = (),
    remedy: str = "",
) -> list[str]:
    """A sentence for every value that pydantic refused, in the order of its errors.

    Args:
        details: what `ValidationError.errors()` gives.
        model: the class that was being validated; its fields give the nearest legal names.
        place: how messages call a key path, which holds the user's keys only, without the union
            tags that pydantic mixes in.
        inside: the key below which the user wrote what was validated.
        also: keys beside the model's own that the user may write at its top.
        remedy: what to do; empty to say it of each value.
    """
    faults: dict[KeyPath, list[ErrorDetails]] = {}
    for detail in details:
        faults.setdefault(_user_path(detail["loc"], model)[0], []).append(detail)
    return [
        sentence
        for path, alike in faults.items()
        for sentence in _sentences((*inside, *path), place, alike, model, also, remedy)
    ]


def faults_in_file(error: ValidationError, model: Any, path: Path, remedy: str) -> list[str]:
    """A sentence for each fault of a file's content, with the key it is at."""
    return refusals(
        error.errors(include_url=False),
        model,
        lambda keys: f"{path}, {dotted(keys)}" if keys else str(path),
        remedy=remedy,
    )


def dotted(path: KeyPath) -> str:
    """A key path as people write it: 'optimizer.lr'; the empty path is 'top level'."""
    return ".".join(map(str, path)) or "top level"


def user_path(location: KeyPath, model: Any) -> KeyPath:
    """The keys that the user wrote among a pydantic location."""
    return _user_path(location, model)[0]


def _sentences(
    path: KeyPath,
    place: Callable[[KeyPath], str],
    details: Sequence[ErrorDetails],
    model: Any,
    also: Sequence[str],
    remedy: str,
) -> list[str]:
    first, where = details[0], place(path)
    match first["type"]:
        case "extra_forbidden":
            names = [*_field_names(_user_path(first["loc"][:-1], model)[1])]
            names += also if len(first["loc"]) == 1 else ()
            hint = nearest(str(path[-1]), names)
            todo = remedy or _remedy_of_key(str(path[-1]), hint)
            found = f"the unknown key {path[-1]!r}"
            return [describe(where, found, f"one of {names}", todo)]
        case "missing" if isinstance(path[-1], int):
            found, expected = f"a list of {path[-1]} entries", "one more"
            return [describe(place(path[:-1]), found, expected, remedy or "Add it.")]
        case "missing":
            expected = "one, for it has no default"
            return [describe(where, "no value", expected, remedy or f"Add {path[-1]!r}.")]
    field = _field(first["loc"], model)
    todo = remedy or _remedy(path, first["input"], field)
    if first["type"] == "value_error":
        lines = str(first["ctx"]["error"]).split("\n")
        return [_own_sentence(where, path, first["input"], line, todo) for line in lines]
    expected = " or ".join(dict.fromkeys(map(_expected, details)))
    return [describe(where, _in_words(first["input"]), expected, todo)]


def _own_sentence(where: str, path: KeyPath, value: object, line: str, remedy: str) -> str:
    """What one of our own checks says: a whole sentence, with or without its place, or a part."""
    if "found " not in line:
        return describe(where, _in_words(value), line, remedy)
    if path and line.startswith(str(path[-1])):  # it begins with the key that the place ends with
        return where.removesuffix(str(path[-1])) + line
    return f"{where}: {line}"


def _remedy_of_key(key: str, hint: str) -> str:
    name, colon, value = key.partition(":")
    if colon and value:  # YAML takes {a:1} as a key
        return f"Put a space behind the colon: {name}: {value}."
    return f"Rename or remove it; {hint}" if hint else "Rename or remove it."


def _remedy(path: KeyPath, value: object, field: FieldInfo | None) -> str:
    if value is None and field is not None and not field.is_required():
        default = f" for its default, {field.default!r}" if isinstance(field.default, str) else ""
        return f"Set {dotted(path)} to such a value, or leave it out{default}."
    return f"Set {dotted(path)} to such a value."


def _in_words(value: object) -> str:
    return "null (no value)" if value is None else shown(value)


def _expected(detail: ErrorDetails) -> str:
    context: Mapping[str, Any] = detail.get("ctx", {})
    match detail["type"]:
        case "literal_error" if detail["loc"][-1] == WORD_TAG:
            return f"{context['expected']} or a block of settings"
        case "literal_error":
            choices = str(context["expected"])
            return f"one of {choices}" if "," in choices or " or " in choices else choices
        case "tuple_type" if isinstance(detail["input"], bool):
            return f"another value, or a list ({BOOLEANS})"
        case "string_too_short" if context["min_length"] == 1:
            return "a text that is not empty"
        case "string_too_short":
            return f"a text of at least {context['min_length']} characters"
        case "too_short":
            count = context["min_length"]
            return f"at least {count} {'entry' if count == 1 else 'entries'}"
    if detail["type"] in _EXPECTED:
        return _EXPECTED[detail["type"]].format(**context)
    return str(detail["msg"])  # of an error type of our own


def _field(location: KeyPath, model: Any) -> FieldInfo | None:
    """The field of the setting at a pydantic location; None where that is no field."""
    path = user_path(location, model)
    # tags of unions may stand behind the setting's own key
    end = next(n for n in range(len(location) + 1) if user_path(location[:n], model) == path)
    parent = _user_path(location[: end - 1], model)[1] if path else None
    if parent is None or not _field_names(parent):
        return None
    field: FieldInfo | None = parent.model_fields.get(str(path[-1]))
    return field


def _field_names(model: Any) -> list[str]:
    return (
        list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []
    )


def _user_path(location: KeyPath, model: Any) -> tuple[KeyPath, Any]:
    """The keys among a pydantic location, and the type at its end (None where unknown)."""
    path: list[str | int] = []
    current = _plain(model)
    for part in location:
        if _is_union(current):
            current = _plain(_union_member(current, part))
            continue
        if part != "[key]":  # behind a key that was refused itself
            path.append(part)
        current = _plain(_child(current, part))
    return tuple(path), current


def _child(annotation: Any, part: str | int) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(part))
        return field.annotation if field else None
    arguments = get_args(annotation)
    if get_origin(annotation) is tuple and isinstance(part, int):
        is_open = len(arguments) == 2 and arguments[1] is Ellipsis
        return arguments[0 if is_open else min(part, len(arguments) - 1)]
    return arguments[-1] if arguments else None


def _plain(annotation: Any) -> Any:
    """The annotation without Annotated, and without None beside one other type."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if _is_union(annotation):
        members = [each for each in get_args(annotation) if each is not types.NoneType]
        if len(members) == 1:  # of which pydantic's locations say nothing
            return _plain(members[0])
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
