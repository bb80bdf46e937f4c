"""Reading the places of small facts: attributes, JSON, datasets, files beside the data, paths."""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from data_tools.errors import UserError, describe, shown
from data_tools.formats.layouts.layout import Video
from data_tools.formats.layouts.places import (
    FixedText,
    InAttribute,
    InDataset,
    InJsonFile,
    InPath,
    Place,
)
from data_tools.storage.hdf5.header_attributes import plain_attribute, require_sound_texts
from data_tools.storage.hdf5.links import PERMISSION, find_dataset
from data_tools.storage.hdf5.soundness import (
    MAX_TEXT_BYTES,
    UnsoundStorageError,
    require_sound_heap,
    storage_fault,
)

MAX_JSON_FILE_BYTES = 256 << 20
_TRUE = {"true", "success", "successful", "1", "yes"}
_FALSE = {"false", "failure", "fail", "failed", "0", "no"}


class UnreadableFactError(ValueError):
    """A place holds something that cannot be understood; the message says what."""


def fact(place: Place, group: h5py.Group, path: Path, *, may_leave: bool = False) -> object:
    """What is at a place: text, number, bool or parsed JSON; None when nothing is there.

    Args:
        place: where to look.
        group: the episode's group.
        path: the data file.
        may_leave: whether a link may lead out of the file, or out of its folder.

    Raises:
        UnreadableFactError: what is there is no JSON although a key of it was asked for.
        UserError: a dataset lies in another file, or a file beside the data in another folder.
    """
    match place:
        case FixedText(text=text):
            return text
        case InAttribute(attribute=name, key=key):
            value = _attribute(group, name)
            return _entry(value, key, words_of(group, path)) if key else value
        case InDataset(dataset=name, key=key, is_whole=is_whole):
            dataset = find_dataset(group, name, may_leave=may_leave)
            read = _different_values if is_whole else _last_value
            value = None if dataset is None else read(dataset)
            return _entry(value, key, words_of(group, path)) if key else value
        case InJsonFile(file=pattern, key=key):
            words = words_of(group, path)
            file = beside(path, pattern, words, may_leave=may_leave)
            return None if file is None else _entry_of(_parsed(file, _stamp(file)), key, words)
        case InPath(path_pattern=pattern):
            found = re.search(pattern, path.resolve().as_posix())
            return found["value"].replace("_", " ").strip() if found else None


def sentence(place: Place, group: h5py.Group, path: Path, *, may_leave: bool = False) -> str:
    """The sentence at a place, the first one when it holds several; '' when there is none."""
    value = fact(place, group, path, may_leave=may_leave)
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        value = parsed_entry(value, "")
    while isinstance(value, list | dict) and value:
        value = value[0] if isinstance(value, list) else next(iter(value.values()))
    if isinstance(value, str):
        # LIBERO keeps its sentences in quotation marks.
        return value.strip().strip('"').strip()
    return ""


def truth(value: object) -> bool | None:
    """What a success flag says; None when it says nothing that we understand."""
    if isinstance(value, bool | int | float | np.generic) and np.ndim(value) == 0:
        return bool(value)
    if isinstance(value, str):
        word = value.strip().lower().split(" ")[0]
        return True if word in _TRUE else False if word in _FALSE else None
    return None


def words_of(group: h5py.Group, path: Path) -> dict[str, str]:
    """The words a place may use in braces, of this episode."""
    episode = group.name.rpartition("/")[2]
    numbers = re.findall(r"\d+", episode or path.stem)
    folder = path.resolve().parent
    return {
        "stem": path.stem,
        "folder": folder.name,
        "folder_above": folder.parent.name,
        "episode": episode or path.stem,
        "number": str(int(numbers[-1])) if numbers else "",
    }


def video_file(
    video: Video, group: h5py.Group, path: Path, *, may_leave: bool = False
) -> Path | None:
    """The video beside the data that a layout names for an episode; None when it is not there."""
    value = fact(video.value, group, path, may_leave=may_leave) if video.value else ""
    words = {**words_of(group, path), "value": str(value)}
    return beside(path, video.video, words, may_leave=may_leave)


def beside(
    path: Path, pattern: str, words: Mapping[str, str], *, may_leave: bool = False
) -> Path | None:
    """The file that a pattern with words in braces names from the data file's folder, if any.

    Raises:
        UserError: it is a link that leads out of the folder the pattern starts in.
    """
    for word, value in words.items():
        if f"{{{word}}}" in pattern and ("/" in value or "\\" in value or value in (".", "..")):
            return None  # what a file says must not lead out of the folder
        pattern = pattern.replace(f"{{{word}}}", value)
    *ups, name = re.split(r"((?:\.\./)*)", pattern, maxsplit=1)[1:]
    folder = path.resolve().parent
    for _ in range("".join(ups).count("../")):
        folder = folder.parent
    matches = sorted(folder.glob(name)) if "*" in name else [folder / name]
    is_hidden = name.rpartition("/")[2].startswith(".")
    found = next((f for f in matches if f.is_file() and f.name.startswith(".") == is_hidden), None)
    if found is not None and not may_leave and folder not in found.resolve().parents:
        told, expected = f"a link to {found.resolve()}", f"a file in {folder}"
        raise UserError(describe(str(found), told, expected, f"Copy it there, or, {PERMISSION}"))
    return found


def parsed_entry(text: str, key: str) -> object:
    """The entry of a JSON text that a key leads to; without a key, the text read as JSON or as is.

    Raises:
        UnreadableFactError: a key is given and the text is no JSON.
    """
    if key:
        return _entry(text, key, {})
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def attribute(holder: h5py.Group | h5py.Dataset, name: str) -> object:
    """An attribute as plain Python, bytes as text; None when it is absent.

    Raises:
        UnsoundStorageError: its type is damaged.
    """
    if not h5py.h5a.exists(holder.id, name.encode()):
        return None
    plain = plain_attribute(holder, name)
    if plain is not None:
        return _plain(plain)
    stored = h5py.h5a.open(holder.id, name.encode())
    try:
        dtype = stored.dtype if stored.shape == () else np.dtype(object)
    except TypeError as error:
        raise UnsoundStorageError(f"attribute {name!r}: {error}") from error
    if dtype.kind == "O":
        require_sound_texts(holder)
    if dtype.kind not in "biufS" and h5py.check_string_dtype(dtype) is None:
        return _plain(holder.attrs[name])
    value = np.zeros((), dtype=dtype)
    stored.read(value)
    return _plain(value[()])


def attribute_text(holder: h5py.Group | h5py.Dataset, name: str) -> str:
    """An attribute as text, '' when it is absent."""
    value = attribute(holder, name)
    return "" if value is None else str(value)


def _attribute(group: h5py.Group, name: str) -> object:
    """An attribute of the group, or else of the group above or the file."""
    value = attribute(group, name)
    if value is None:
        value = attribute(group.parent, name)
    return attribute(group.file["/"], name) if value is None else value


def _last_value(dataset: h5py.Dataset) -> object:
    """The value of a scalar dataset, or the last of an array; None when it is empty or huge."""
    if dataset.shape is None or 0 in dataset.shape or dataset.dtype.itemsize > MAX_TEXT_BYTES:
        return None
    _require_stored(dataset, range(dataset.size - 1, dataset.size))
    return _plain(dataset[()] if dataset.shape == () else dataset[(-1,) * dataset.ndim])


def _require_stored(dataset: h5py.Dataset, rows: range) -> None:
    """UnreadableFactError for numbers never written; UnsoundStorageError for texts in no heap."""
    if dataset.dtype.kind in "fiu":
        lacking = storage_fault(dataset)
        if lacking:
            raise UnreadableFactError(f"{dataset.name} of which {lacking}")
    elif dataset.dtype.kind == "O" and dataset.ndim < 2:
        for row in rows:
            require_sound_heap(dataset, row)


def _different_values(dataset: h5py.Dataset) -> object:
    """The different values of an array in rising order; the value itself when there is one."""
    if dataset.shape is None or dataset.size > MAX_TEXT_BYTES:
        return None
    _require_stored(dataset, range(dataset.size))
    found = {_plain(value) for value in np.ravel(dataset[()]).tolist()}
    values = sorted(found, key=lambda value: (str(type(value)), value))
    return values[0] if len(values) == 1 else values


def _plain(value: Any) -> object:
    """A value of h5py as plain Python, bytes as text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.ravel()[:1024].tolist()] if value.size else None
    if isinstance(value, h5py.Empty):
        return None
    return value.item() if isinstance(value, np.generic) else value


def _entry(value: object, key: str, words: Mapping[str, str]) -> object:
    if not key or value is None:
        return value
    if not isinstance(value, str):
        raise UnreadableFactError(f"{shown(value, 40)} where a JSON text is expected")
    try:
        return _entry_of(json.loads(value), key, words)
    except (ValueError, RecursionError) as error:
        raise UnreadableFactError(f"{shown(value, 40)}, which is no JSON ({error})") from error


def _entry_of(value: Any, key: str, words: Mapping[str, str]) -> object:
    """The entry of parsed JSON that the key leads to, None when there is none."""
    for word, replacement in words.items():
        key = key.replace(f"{{{word}}}", replacement)
    for part in key.split(".") if key else ():
        name, _, choice = part.partition("[")
        if name:
            value = _child(value, name)
        if choice:
            field, _, wanted = choice.rstrip("]").partition("=")
            entries = value if isinstance(value, list) else []
            value = next((item for item in entries if str(_child(item, field)) == wanted), None)
    return value


def _child(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return value.get(name)
    if isinstance(value, list) and name.isdigit() and int(name) < len(value):
        return value[int(name)]
    return None


def _stamp(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=8)
def _parsed(file: Path, stamp: tuple[int, int]) -> Any:
    """The JSON in a file, kept by its time and size: one file often speaks for many episodes."""
    if stamp[1] > MAX_JSON_FILE_BYTES:
        raise UnreadableFactError(f"{file} of {stamp[1]} bytes")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UnreadableFactError(f"{file}, which is no JSON ({error})") from error
