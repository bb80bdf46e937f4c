"""Blanks: what a draft of a sidecar leaves for a person to fill in, in <...>."""

from collections.abc import Iterator
from pathlib import Path

from data_tools.declaration import KeyPath, dotted
from data_tools.errors import describe


def blank_faults(path: Path, value: object, keys: KeyPath = ()) -> Iterator[str]:
    """A fault for each blank that nobody has filled in.

    Args:
        path: the sidecar.
        value: what it holds at these keys.
        keys: the keys.
    """
    if isinstance(value, dict):
        for key, each in value.items():
            yield from blank_faults(path, each, (*keys, key))
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from blank_faults(path, each, (*keys, place))
    elif isinstance(value, str) and value.startswith("<") and value.endswith(">"):
        is_dataset = keys[-1] == "dataset" or isinstance(keys[-1], int)
        remedy = "Take the brackets off it where it belongs there, or delete the line."
        where, found = f"{path}, {dotted(keys)}", f"the blank {value}"
        expected = f"{value[1:-1]} or nothing" if is_dataset else "a value"
        yield describe(where, found, expected, remedy if is_dataset else "Fill it in.")
