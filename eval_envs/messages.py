"""What an evaluation and the process of an environment say to one another, and how it is written.

A message is a frame on a stream: the length of a JSON header (4 bytes, little-endian), the header,
and the bytes of the arrays that the header lists, one after the other. Nothing that is received is
run as code. Every message is one of the types below; a `Begin` is answered by `Made` and then, like
an `Execute`, by one `Look`; or by `Lost` or `Refused`.
"""

import json
import math
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data_tools.conventions import Conventions
from data_tools.episode import Observation
from eval_envs.episodes import EpisodeSpec
from eval_envs.playing import Look, Lost

Array = npt.NDArray[Any]

_LENGTH = struct.Struct("<I")
_LONGEST_HEADER = 1 << 24
_LARGEST_ARRAY = 1 << 30
_NUMBERS = "biuf"
"""Kinds of numpy's types that hold numbers, and no Python objects."""


@dataclass(frozen=True)
class Begin:
    """Begin this episode; the one that runs is given up."""

    spec: EpisodeSpec
    look_at_end: bool = False


@dataclass(frozen=True)
class Execute:
    """Execute these actions, float32[n, a], in order."""

    actions: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Made:
    """The environment of the episode stands; it is being reset."""


@dataclass(frozen=True)
class Refused:
    """What a person has to mend before any episode can be played."""

    faults: tuple[str, ...]


Message = Begin | Execute | Made | Look | Lost | Refused


class BrokenStreamError(ConnectionError):
    """The stream ended, or what came on it is no message."""


def send(connection: socket.socket, message: Message) -> None:
    """Write one message, arrays in the types that they have; OSError when nobody reads it."""
    values, arrays = _taken_apart(message)
    listed = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
    kind = type(message).__name__
    header = json.dumps({"kind": kind, "values": values, "arrays": listed}).encode()
    body = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values())
    connection.sendall(_LENGTH.pack(len(header)) + header + body)


def receive(connection: socket.socket) -> Message | None:
    """The next message; None when the other side has closed the stream between two messages.

    Raises:
        BrokenStreamError: the stream ends within a message, or holds something else.
        OSError: the stream is broken, or nothing came within its time limit.
    """
    start = connection.recv(1)
    if not start:
        return None
    (length,) = _LENGTH.unpack(start + _exactly(connection, _LENGTH.size - 1))
    if length > _LONGEST_HEADER:
        raise BrokenStreamError(f"found a header of {length} bytes; expected a message")
    try:
        header = json.loads(_exactly(connection, length))
        arrays = {
            name: _array(connection, dtype, tuple(shape)) for name, dtype, shape in header["arrays"]
        }
        return _PUT_TOGETHER[header["kind"]](header["values"], arrays)
    except (ValueError, KeyError, TypeError) as error:
        raise BrokenStreamError(f"found {error!r} in a message; expected one of ours") from error


def _array(connection: socket.socket, name: str, shape: tuple[int, ...]) -> Array:
    dtype = np.dtype(name)
    if dtype.kind not in _NUMBERS:
        raise BrokenStreamError(f"found an array of {name!r}; expected numbers")
    size = math.prod(shape) * dtype.itemsize
    if not 0 <= size <= _LARGEST_ARRAY:
        raise BrokenStreamError(f"found an array of shape {shape}; expected at most 1 GiB")
    return np.frombuffer(_exactly(connection, size), dtype).reshape(shape)


def _exactly(connection: socket.socket, size: int) -> bytearray:
    received = bytearray(size)
    view = memoryview(received)
    while view:
        count = connection.recv_into(view)
        if not count:
            raise BrokenStreamError(f"found the end {len(view)} bytes early; expected a message")
        view = view[count:]
    return received


def _taken_apart(message: Message) -> tuple[dict[str, Any], dict[str, Array]]:
    match message:
        case Begin(spec, look_at_end):
            return {"spec": spec.model_dump(mode="json"), "look_at_end": look_at_end}, {}
        case Execute(actions):
            return {}, {"actions": np.asarray(actions, np.float32)}
        case Look():
            return _look_apart(message)
        case Made() | Lost() | Refused():
            return dict(vars(message)), {}


def _look_apart(look: Look) -> tuple[dict[str, Any], dict[str, Array]]:
    seen, declared = look.observation, look.conventions
    values = {
        **{name: value for name, value in vars(look).items() if name != "observation"},
        "instruction": seen.instruction,
        "conventions": None if declared is None else declared.model_dump(mode="json"),
    }
    images = {f"image {name}": image for name, image in seen.images.items()}
    return values, {"state": seen.state, **images}


def _look_together(values: dict[str, Any], arrays: Mapping[str, Array]) -> Look:
    declared = values.pop("conventions")
    images = {
        name.removeprefix("image "): array for name, array in arrays.items() if name != "state"
    }
    return Look(
        observation=Observation(images, arrays["state"], values.pop("instruction")),
        conventions=None if declared is None else Conventions.model_validate(declared),
        **{**values, "rewards": tuple(values["rewards"])},
    )


_PUT_TOGETHER: Mapping[str, Callable[[dict[str, Any], Mapping[str, Array]], Message]] = {
    "Begin": lambda values, arrays: Begin(
        EpisodeSpec.model_validate(values["spec"]), bool(values["look_at_end"])
    ),
    "Execute": lambda values, arrays: Execute(arrays["actions"]),
    "Made": lambda values, arrays: Made(),
    "Look": _look_together,
    "Lost": lambda values, arrays: Lost(**values),
    "Refused": lambda values, arrays: Refused(tuple(values["faults"])),
}
