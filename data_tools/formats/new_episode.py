"""NewEpisode: the arrays of an episode about to be written, and every fault in them."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from data_tools.columns import NAME_PATTERN, value_faults
from data_tools.conventions import CameraSpec, Conventions
from data_tools.errors import describe, nearest
from data_tools.finite import nonfinite_faults
from data_tools.storage.frames.images import UndecodableFrameError, jpeg_size

CameraFrames = npt.NDArray[np.uint8] | Sequence[bytes]


@dataclass(frozen=True)
class NewEpisode:
    """What a caller hands to a writer, not yet trusted; shapes as in `EpisodeWriter.add`."""

    images: Mapping[str, CameraFrames]
    state: npt.NDArray[np.floating]
    actions: npt.NDArray[np.floating]
    instruction: str
    success: bool | None
    attributes: Mapping[str, object]
    times: npt.NDArray[np.floating] | None
    columns: Mapping[str, npt.NDArray[np.floating]]

    @classmethod
    def of(
        cls,
        images: Mapping[str, CameraFrames],
        state: npt.ArrayLike,
        actions: npt.ArrayLike,
        instruction: str,
        success: bool | None,
        attributes: Mapping[str, object] | None,
        times: npt.ArrayLike | None = None,
        columns: Mapping[str, npt.ArrayLike] | None = None,
    ) -> Self:
        """The episode of these arguments, with lists turned into arrays."""
        return cls(
            dict(images),
            _array(state),
            _array(actions),
            instruction,
            success,
            dict(attributes or {}),
            None if times is None else _array(times),
            {name: _array(values) for name, values in (columns or {}).items()},
        )

    @property
    def num_steps(self) -> int:
        """T, the number of actions."""
        return len(self.actions)

    def faults(self, where: str, conventions: Conventions) -> list[str]:
        """Everything that forbids writing this episode under these conventions.

        Args:
            where: how messages call it, e.g. 'pick.hdf5:data/demo_3'.
            conventions: what the episode must agree with.
        """
        return [
            *_low_dim_faults(f"{where} actions", self.actions, conventions.action.names),
            *_low_dim_faults(f"{where} state", self.state, conventions.state.names),
            *self._camera_faults(where, conventions),
            *self._length_faults(where),
            *self._time_faults(where),
            *self._column_faults(where),
            *self._label_faults(where),
        ]

    def _camera_faults(self, where: str, conventions: Conventions) -> Iterator[str]:
        declared = list(conventions.camera_names)
        for name in self.images:
            if name not in declared:
                hint = nearest(name, declared)
                remedy = f"Rename the image or declare the camera{f'; {hint}' if hint else '.'}"
                yield describe(f"{where} images", f"camera {name!r}", f"one of {declared}", remedy)
        for camera in conventions.cameras:
            if camera.name not in self.images:
                found, expected = f"only {sorted(self.images)}", f"camera {camera.name!r}"
                yield describe(f"{where} images", found, expected, "Give its frames too.")
            else:
                yield from _frames_faults(where, camera, self.images[camera.name])

    def _length_faults(self, where: str) -> Iterator[str]:
        parts = {"state": self.state, "actions": self.actions, **self.images}
        if self.times is not None:
            parts["times"] = self.times
        lengths = {
            part: len(array)
            for part, array in parts.items()
            if not isinstance(array, np.ndarray) or array.ndim > 0
        }
        if len(set(lengths.values())) > 1:
            remedy = "Record one state, action and frame for each step."
            yield describe(where, f"lengths {lengths}", "one length", remedy)

    def _time_faults(self, where: str) -> Iterator[str]:
        if self.times is None:
            return
        if self.times.dtype.kind not in "fiu" or self.times.ndim != 1:
            found = f"{self.times.dtype}{list(self.times.shape)}"
            yield describe(f"{where} times", found, "float64[t]", "Give one number a step.")
        elif not np.isfinite(self.times).all() or (np.diff(self.times) <= 0).any():
            remedy = "Give the seconds since the start, or None when nobody measured them."
            found = "times that do not rise at every step"
            yield describe(f"{where} times", found, "rising, finite seconds", remedy)

    def _column_faults(self, where: str) -> Iterator[str]:
        for name, values in self.columns.items():
            if not re.fullmatch(NAME_PATTERN, name):
                remedy = "Rename the column."
                yield describe(f"{where} columns", repr(name), "letters, digits and _", remedy)
            if values.dtype.kind not in "fiub" or values.ndim not in (1, 2):
                found = f"{values.dtype}{list(values.shape)}"
                expected, remedy = "float32[t] or float32[t, n]", "Give a number a step."
                yield describe(f"{where} columns[{name!r}]", found, expected, remedy)
            else:
                yield from value_faults(
                    f"{where}, column {name!r}", name, values, len(self.actions)
                )

    def _label_faults(self, where: str) -> Iterator[str]:
        if not isinstance(self.instruction, str) or not self.instruction.strip():
            remedy = "Say what the robot was asked to do."
            yield describe(f"{where} instruction", repr(self.instruction), "a sentence", remedy)
        if self.success is not None and not isinstance(self.success, (bool, np.bool_)):
            remedy = "Leave it None if nobody judged the episode."
            yield describe(f"{where} success", repr(self.success), "True, False or None", remedy)
        try:
            json.dumps(self.attributes, allow_nan=False)
        except (TypeError, ValueError) as error:
            found = f"a value JSON cannot hold ({error})"
            remedy = "Turn arrays into lists and numpy numbers into Python ones."
            yield describe(f"{where} attributes", found, "plain values", remedy)


def _array(values: npt.ArrayLike) -> npt.NDArray[np.floating]:
    try:
        return np.asarray(values)
    except ValueError:
        # Rows of unequal length: as an array of objects they meet the fault about the dtype.
        return np.asarray(values, dtype=object)


def _low_dim_faults(
    where: str, array: npt.NDArray[np.floating], columns: tuple[str, ...]
) -> list[str]:
    if array.dtype.kind not in "fiu":
        remedy = "Give an array of numbers with rows of one length."
        return [describe(where, f"dtype {array.dtype}", "float32", remedy)]
    if array.ndim != 2 or array.shape[1] != len(columns) or len(array) == 0:
        expected = f"[t, {len(columns)}] with t at least 1 and the columns {list(columns)}"
        remedy = "Give one row a step, or correct the declared columns."
        return [describe(where, f"shape {list(array.shape)}", expected, remedy)]
    with np.errstate(over="ignore"):
        stored = array.astype(np.float32)
    return nonfinite_faults(where, stored, columns)


def _frames_faults(where: str, camera: CameraSpec, frames: object) -> list[str]:
    size = (camera.height, camera.width, 3)
    if isinstance(frames, list | tuple) and frames and isinstance(frames[0], bytes):
        return _encoded_faults(f"{where} images[{camera.name!r}]", size[:2], frames)
    found = type(frames).__name__
    if isinstance(frames, np.ndarray):
        if frames.dtype == np.uint8 and frames.shape[1:] == size:
            return []
        found = f"{frames.dtype}{list(frames.shape)}"
    remedy = "Resize or convert the frames, or correct the camera's declared size."
    expected = f"uint8[t, {camera.height}, {camera.width}, 3]"
    return [describe(f"{where} images[{camera.name!r}]", found, expected, remedy)]


def _encoded_faults(where: str, size: tuple[int, int], frames: Sequence[bytes]) -> list[str]:
    """The first frame that is no JPEG of the declared height and width; empty without any."""
    for step, data in enumerate(frames):
        try:
            found = jpeg_size(data)
        except UndecodableFrameError as error:
            remedy = "Give the bytes of JPEG files, or arrays of pixels."
            return [describe(f"{where}, step {step}", str(error), "a JPEG", remedy)]
        if found != size:
            remedy = "Resize the frames, or correct the camera's declared size."
            sizes = f"a JPEG of {list(found)}", f"height and width {list(size)}"
            return [describe(f"{where}, step {step}", *sizes, remedy)]
    return []
