"""What a dataset, a policy or an environment declares about its cameras, state and actions.

Numbers without a declared meaning are how a robot ends up moving the wrong way: nothing in an array
says whether a gripper's +1 opens or closes, whether an action is a displacement or a target, or
whether an image is upside down. So each party declares it once, here, and `compare` finds every
disagreement before an hour is spent on it.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StrictInt, model_validator

from data_tools.declaration import Declaration, Number
from data_tools.errors import UserError, describe

# No robot arm is commanded faster; what is above is a typing error or a damaged header.
MAX_CONTROL_HZ = 10_000


class CameraSpec(Declaration):
    """One camera: its name, pixel size, channel order, orientation and how its pixels were made."""

    name: str = Field(
        min_length=1, description="Name of the camera, the key of its image in an Observation."
    )
    height: StrictInt = Field(gt=0, description="Rows of the image, in pixels.")
    width: StrictInt = Field(gt=0, description="Columns of the image, in pixels.")
    color_order: Literal["rgb", "bgr"] = Field("rgb", description="Order of the three channels.")
    orientation: Literal["upright", "flipped_vertical", "rotated_180", "unknown"] = Field(
        "upright", description="How the stored image relates to the scene as a person sees it."
    )
    source: str = Field(
        "unknown",
        description="What makes the pixels: a camera model, or a renderer and its profile.",
    )


class StateSpec(Declaration):
    """The layout of the state vector: one name and one unit a column."""

    names: tuple[str, ...] = Field(description="Name of each column, in order.")
    units: tuple[str, ...] = Field(description="Unit of each column: m, rad, 1, ...")
    frame: str = Field(
        "unknown", description="Frame of the positions and rotations, e.g. 'world' or 'robot_base'."
    )

    @model_validator(mode="after")
    def _one_unit_a_name(self) -> Self:
        _require_same_length("state", names=self.names, units=self.units)
        _refuse([*_repeated("state.names", self.names)])
        return self


class GripperSpec(Declaration):
    """Which action column drives a gripper, and which value opens and closes it."""

    column: str = Field(description="Name of the action column.")
    open_value: Number = Field(description="The action value that opens the gripper fully.")
    closed_value: Number = Field(description="The action value that closes the gripper fully.")

    @model_validator(mode="after")
    def _two_ends(self) -> Self:
        if self.open_value == self.closed_value:
            raise ValueError(
                f"gripper {self.column!r}: found {self.open_value:g} as open_value and as "
                "closed_value; expected two values. Correct one of them."
            )
        return self

    def __str__(self) -> str:
        return f"{self.column!r} (open {self.open_value:g}, closed {self.closed_value:g})"


ActionReference = Literal["delta", "absolute", "velocity", "unknown"]


class ActionSpec(Declaration):
    """The layout of the action vector: names, units, what each number is relative to, ranges."""

    names: tuple[str, ...] = Field(description="Name of each column, in order.")
    units: tuple[str, ...] = Field(description="Unit of each column; '1' for a normalized command.")
    references: tuple[ActionReference, ...] = Field(
        description="What each column is: delta (to the state when the action starts), absolute "
        "(a target), velocity, or unknown."
    )
    low: tuple[Number, ...] = Field(
        description="Smallest legal value of each column; -infinity where none is known."
    )
    high: tuple[Number, ...] = Field(
        description="Largest legal value of each column; infinity where none is known."
    )
    frame: str = Field(
        "unknown", description="Frame of positions and rotations, e.g. 'world' or 'robot_base'."
    )
    rotation: Literal[
        "none",
        "axis_angle",
        "euler_xyz",
        "quat_xyzw",
        "quat_wxyz",
        "rot6d_rows",
        "rot6d_columns",
        "unknown",
    ] = Field("none", description="Form of the rotation columns, 'none' when there are none.")
    grippers: tuple[GripperSpec, ...] = Field(
        (), description="The columns that drive grippers, with their signs."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _require_same_length(
            "action",
            names=self.names,
            units=self.units,
            references=self.references,
            low=self.low,
            high=self.high,
        )
        _refuse(
            [
                *_repeated("action.names", self.names),
                *self._exchanged_limits(),
                *self._grippers_without_column(),
            ]
        )
        return self

    def _exchanged_limits(self) -> Iterator[str]:
        for name, low, high in zip(self.names, self.low, self.high, strict=True):
            if not low <= high:
                found, expected = f"low {low} and high {high}", "low <= high"
                remedy = "Exchange them, or write -.inf and .inf for a limit nobody knows."
                yield describe(f"action {name!r}", found, expected, remedy)

    def _grippers_without_column(self) -> Iterator[str]:
        for gripper in self.grippers:
            if gripper.column not in self.names:
                found, expected = f"column {gripper.column!r}", f"one of {list(self.names)}"
                remedy = "Name the action column that drives the gripper."
                yield describe("action.grippers", found, expected, remedy)


def _require_possible_rate(control_hz: float) -> float:
    if control_hz > MAX_CONTROL_HZ:
        raise ValueError(f"at most {MAX_CONTROL_HZ} control steps per second")
    return control_hz


_Rate = Annotated[Number, Field(gt=0), AfterValidator(_require_possible_rate)]


class Conventions(Declaration):
    """Everything a dataset, a policy or an environment declares about its inputs and outputs."""

    cameras: tuple[CameraSpec, ...] = Field(description="The cameras, in order.")
    state: StateSpec = Field(description="Layout of the state vector.")
    action: ActionSpec = Field(description="Layout of the action vector.")
    control_hz: _Rate | None = Field(
        description="Control steps per second, at most 10000; null where nobody knows, as in a "
        "checkpoint that does not say."
    )

    @model_validator(mode="after")
    def _unique_cameras(self) -> Self:
        names = [camera.name for camera in self.cameras]
        if len(set(names)) != len(names):
            raise ValueError(
                f"cameras: found the names {names}; expected each name once. "
                "Rename the duplicate camera."
            )
        return self

    @property
    def camera_names(self) -> tuple[str, ...]:
        """Names of the cameras, in order."""
        return tuple(camera.name for camera in self.cameras)

    def as_delivered(self) -> Self:
        """What readers give of data declared so: RGB and upright, unless nobody has said how up."""
        cameras = tuple(
            camera.model_copy(
                update={
                    "color_order": "rgb",
                    "orientation": "unknown" if camera.orientation == "unknown" else "upright",
                }
            )
            for camera in self.cameras
        )
        return self.model_copy(update={"cameras": cameras})

    def known_control_hz(self, purpose: str) -> float:
        """Control steps per second; UserError when it is unknown, naming what it is needed for."""
        if self.control_hz is None:
            found, remedy = "unknown (null)", "Declare the rate the robot is controlled at."
            expected = f"control steps per second, to {purpose}"
            raise UserError(describe("conventions, control_hz", found, expected, remedy))
        return self.control_hz

    def camera(self, name: str) -> CameraSpec:
        """The camera of that name; KeyError quoting the names there are."""
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise KeyError(f"camera {name!r}; declared cameras are {list(self.camera_names)}")


@dataclass(frozen=True)
class Mismatch:
    """One disagreement between two declarations: where, what each side says, and what to do."""

    where: str
    found: str
    expected: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: found {self.found}; expected {self.expected}. {self.remedy}"


def compare(
    found: Conventions,
    expected: Conventions,
    *,
    found_name: str,
    expected_name: str,
    may_leave_open: bool = False,
) -> list[Mismatch]:
    """Every disagreement between two declarations, empty when they agree.

    Args:
        found: the declaration under test, e.g. a dataset's.
        expected: the declaration it must agree with, e.g. a policy's. Cameras that only `found` has
            are allowed: a dataset may record more cameras than a policy looks at.
        found_name: how messages call the first, e.g. "dataset demos/pick.hdf5".
        expected_name: how messages call the second, e.g. "policy checkpoints/base".
        may_leave_open: whether anything agrees with a camera's source 'unknown' and with an
            infinite action limit in `expected`, as in a pretrained policy's declaration. Names,
            units, references, frames and the control rate decide what the numbers mean, and must
            be declared and equal in any case.
    """
    if may_leave_open:
        found = _without_what_is_open(found, expected)
    return [
        Mismatch(
            f"{found_name}, {where}",
            _said(where, a),
            f"{_said(where, b)} as {expected_name} declares",
            remedy,
        )
        for where, a, b, remedy in _differences(found, expected)
        if a != b
    ]


def _differences(
    found: Conventions, expected: Conventions
) -> Iterator[tuple[str, object, object, str]]:
    for camera in expected.cameras:
        if camera.name not in found.camera_names:
            yield (
                f"camera {camera.name!r}",
                list(found.camera_names),
                f"a camera named {camera.name!r}",
                "Rename a camera where it is declared, or leave it out of the other declaration.",
            )
            continue
        other = found.camera(camera.name)
        remedy = "Correct the declaration if it is wrong; else re-record or convert the images."
        for field in ("color_order", "orientation", "source"):
            yield (
                f"camera {camera.name!r} {field}",
                getattr(other, field),
                getattr(camera, field),
                remedy,
            )
    for part in ("state", "action"):
        ours, theirs = getattr(found, part), getattr(expected, part)
        for field in type(ours).model_fields:
            remedy = f"Convert the {part} columns, or correct the declaration if it is wrong."
            yield f"{part} {field}", getattr(ours, field), getattr(theirs, field), remedy
    remedy = "Resample the data, or correct control_hz if it is wrong."
    if None in (found.control_hz, expected.control_hz):
        remedy = "Declare the rate where it is None (unknown): no rate can be assumed."
    yield "control_hz", found.control_hz, expected.control_hz, remedy


def _without_what_is_open(found: Conventions, expected: Conventions) -> Conventions:
    """`found`, but with the sources and limits of `expected` where that leaves them open."""
    open_sources = {each.name for each in expected.cameras if each.source == "unknown"}
    cameras = tuple(
        each.model_copy(update={"source": "unknown"}) if each.name in open_sources else each
        for each in found.cameras
    )
    limits = {
        field: _where_limited(getattr(found.action, field), getattr(expected.action, field))
        for field in ("low", "high")
    }
    action = found.action.model_copy(update=limits)
    return found.model_copy(update={"cameras": cameras, "action": action})


def _where_limited(found: tuple[float, ...], expected: tuple[float, ...]) -> tuple[float, ...]:
    """The limits found, but infinite where `expected` declares none; as they are if misaligned."""
    if len(found) != len(expected):
        return found
    return tuple(
        limit if math.isinf(limit) else have for have, limit in zip(found, expected, strict=True)
    )


def _said(where: str, value: object) -> str:
    """A declared value as messages say it: grippers in words."""
    if where == "action grippers" and isinstance(value, tuple):
        return " and ".join(map(str, value)) or "no gripper"
    return repr(value)


def _refuse(faults: Sequence[str]) -> None:
    if faults:
        raise ValueError("\n".join(faults))


def _repeated(where: str, names: Sequence[str]) -> Iterator[str]:
    """Names that stand for two columns; what is said of one of them is then said of the other."""
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        remedy = "Give every column a name of its own."
        yield describe(where, f"{twice} more than once", "each name once", remedy)


def _require_same_length(part: str, **columns: tuple[object, ...]) -> None:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(
            f"{part}: found {lengths} entries; expected one entry a column in each. "
            "List one value for every column."
        )
