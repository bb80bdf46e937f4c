"""Damage to attributes: texts that are none, numbers that are none, JSON that means harm."""

import json
import pickle
from collections.abc import Callable
from contextlib import suppress

import h5py
import numpy as np

from tests.data_tools.fuzz.byte_damage import Rng

Edit = Callable[[h5py.File, Rng], list[str]]

DEEP = "[" * 100_000
HUGE = 5_000_000


def _with_attributes(file: h5py.File) -> list[tuple[str, str]]:
    found = [("/", name) for name in file.attrs]

    def visit(place: str, item: h5py.Group | h5py.Dataset) -> None:
        found.extend((place, name) for name in item.attrs)

    file.visititems(visit)
    return found


def _values(rng: Rng) -> list[object]:
    return [
        np.void(pickle.dumps({"a": 1})),
        pickle.dumps([1, 2]).hex(),
        np.bytes_(b"\xff\xfe\xfa not utf-8"),
        b"\xc3\x28",
        np.array([b"\xff\xff", b"ab"]),
        float("nan"),
        np.array([np.nan, 1.0]),
        float("inf"),
        -1,
        2**62,
        1e308,
        True,
        np.array([], "f4"),
        h5py.Empty("S1"),
        h5py.Empty("f8"),
        json.dumps({"env_kwargs": [1], "lang": {"a": None}}),
        json.dumps([None, {"instruction": 5}]),
        json.dumps({"cameras": 5, "state": [], "action": "x", "control_hz": "fast"}),
        '{"a": NaN, "control_freq": Infinity}',
        "{" * 5000,
        "",
        "\x00",
        "null",
        "1" * 5000,
        np.arange(4000.0),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.array(["x" * 10, "y"], dtype=h5py.string_dtype()),
        np.complex128(1j),
        np.bool_(False),
    ]


def other_value(file: h5py.File, rng: Rng) -> list[str]:
    """An attribute that there is, with a value nobody expects."""
    listed = _with_attributes(file)
    if not listed:
        return new_attribute(file, rng)
    place, name = listed[int(rng.integers(len(listed)))]
    values = _values(rng)
    _set(file[place], name, values[int(rng.integers(len(values)))])
    return []


def removed(file: h5py.File, rng: Rng) -> list[str]:
    listed = _with_attributes(file)
    if listed:
        place, name = listed[int(rng.integers(len(listed)))]
        del file[place].attrs[name]
    return []


def new_attribute(file: h5py.File, rng: Rng) -> list[str]:
    """A name that our readers look for, with a strange value."""
    names = ["num_samples", "fps", "success", "attributes", "source", "total", "schema_version"]
    names += ["conventions", "env_args", "encoding", "color_order", "sim", "problem_info"]
    places: list[str] = ["/"]
    file.visit(places.append)
    values = _values(rng)
    place, name = str(rng.choice(places)), str(rng.choice(names))
    _set(file[place], name, values[int(rng.integers(len(values)))])
    return []


def huge_text(file: h5py.File, rng: Rng) -> list[str]:
    """Millions of characters, or JSON that nests without end."""
    listed = _with_attributes(file) or [("/", "env_args")]
    place, name = listed[int(rng.integers(len(listed)))]
    kind = int(rng.integers(3))
    text = ["x" * HUGE, DEEP, json.dumps({"a": "b" * HUGE})][kind]
    made = np.array(text, dtype=h5py.string_dtype())
    if name in file[place].attrs:
        del file[place].attrs[name]
    file[place].attrs.create(name, made, dtype=h5py.string_dtype())
    return []


def reference(file: h5py.File, rng: Rng) -> list[str]:
    listed = _with_attributes(file) or [("/", "env_args")]
    place, name = listed[int(rng.integers(len(listed)))]
    file[place].attrs[name] = file.ref
    return []


def huge_declared_text(file: h5py.File, rng: Rng) -> list[str]:
    """An attribute with as many values as an object header can hold."""
    listed = _with_attributes(file) or [("/", "env_args")]
    place, name = listed[int(rng.integers(len(listed)))]
    _set(file[place], name, np.zeros(8000, "f8"))
    return []


def _set(item: h5py.Group | h5py.Dataset, name: str, value: object) -> None:
    if name in item.attrs:
        del item.attrs[name]
    with suppress(OSError, RuntimeError, TypeError, ValueError):  # more than a header can hold
        item.attrs[name] = value


ATTRIBUTE_EDITS: dict[str, Edit] = {
    edit.__name__: edit
    for edit in (other_value, removed, new_attribute, huge_text, reference, huge_declared_text)
}
