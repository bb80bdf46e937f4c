"""What a person says about two datasets: which camera plays which part, which column is which.

What both have declared is converted without being asked for: the size of an image and the sign of a
gripper (`data_tools.formats.mapping.mapped`). What still differs afterwards is a fault.

Maps between a robot's own columns and the space a pretrained model was trained in.

A pretrained policy may count a joint the other way round, or know a gripper by the angle of its
motor where the data holds its opening. Each map is about one column, named, and has its inverse
beside it; all maths is float64.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from data_tools.conventions import Conventions, compare
from data_tools.declaration import Declaration, Number
from data_tools.errors import describe, nearest

FloatArray = npt.NDArray[np.float64]

# The gripper of ALOHA's follower arms (ViperX 300), as openpi's aloha_policy.py undoes it. ALOHA
# reports the fingers' position from closed to open as 0 to 1; a crank of radius HORN_M with a rod
# of ARM_M turns it into the angle of the motor; 0 to 1 of the model is 2405 to 3110 of 4096 counts,
# where 2048 counts are 0 rad.
CLOSED_M: Final = 0.01844
OPEN_M: Final = 0.05800
HORN_M: Final = 0.022
ARM_M: Final = 0.036
ZERO_RAD: Final = 0.5476
ONE_RAD: Final = 1.6296


class LinearMap(Declaration):
    """model = scale * robot + offset, for one column."""

    kind: Literal["linear"]
    column: str = Field(description="Name of the column.")
    scale: Number = Field(
        allow_inf_nan=False, description="Factor; -1 turns a joint's direction round."
    )
    offset: Number = Field(
        0.0, allow_inf_nan=False, description="Added afterwards, in the model's unit."
    )

    @field_validator("scale")
    @classmethod
    def _has_an_inverse(cls, scale: float) -> float:
        if scale == 0:
            raise ValueError(
                "found 0; expected another number, for the map must have an inverse. Correct it."
            )
        return scale

    def to_model(self, values: FloatArray) -> FloatArray:
        """float64[...], in the model's space."""
        return self.scale * values + self.offset

    def to_robot(self, values: FloatArray) -> FloatArray:
        """float64[...], in the robot's own units: the inverse of `to_model`."""
        return (values - self.offset) / self.scale


class AlohaGripperMap(Declaration):
    """Opening of an ALOHA gripper, 0 closed to 1 open, to the angle that pi0 was pretrained with.

    0 becomes -1.0799, 0.5 becomes -0.1401 and 1 becomes 0.9457. At 1 the crank is stretched: what
    lies beyond gives 0.9457, too, and comes back as 1. Source: `_gripper_to_angular` in openpi's
    aloha_policy.py.
    """

    kind: Literal["aloha_gripper"]
    column: str = Field(description="Name of the column.")

    def to_model(self, values: FloatArray) -> FloatArray:
        """float64[...], normalized angle of the motor."""
        position = values * (OPEN_M - CLOSED_M) + CLOSED_M
        sine = (HORN_M**2 + position**2 - ARM_M**2) / (2 * HORN_M * position)
        return (np.arcsin(np.clip(sine, -1.0, 1.0)) - ZERO_RAD) / (ONE_RAD - ZERO_RAD)

    def to_robot(self, values: FloatArray) -> FloatArray:
        """float64[...], opening from 0 to 1: the inverse of `to_model`."""
        reach = HORN_M * np.sin(values * (ONE_RAD - ZERO_RAD) + ZERO_RAD)
        # the positive root of position^2 - 2 reach position + HORN_M^2 - ARM_M^2 = 0
        position = reach + np.sqrt(reach**2 + ARM_M**2 - HORN_M**2)
        return (position - CLOSED_M) / (OPEN_M - CLOSED_M)


ColumnMap = Annotated[LinearMap | AlohaGripperMap, Field(discriminator="kind")]


def map_columns(
    values: npt.ArrayLike, maps: Sequence[LinearMap | AlohaGripperMap], names: Sequence[str]
) -> FloatArray:
    """float64[..., d], each mapped column in the model's space, the others as they are.

    Args:
        values: float[..., d] in the robot's own units.
        maps: at most one a column.
        names: of the d columns.
    """
    mapped = np.array(values, dtype=np.float64)
    for each in maps:
        column = names.index(each.column)
        mapped[..., column] = each.to_model(mapped[..., column])
    return mapped


def unmap_columns(
    values: npt.ArrayLike, maps: Sequence[LinearMap | AlohaGripperMap], names: Sequence[str]
) -> FloatArray:
    """float64[..., d] in the robot's own units: the inverse of `map_columns`."""
    mapped = np.array(values, dtype=np.float64)
    for each in maps:
        column = names.index(each.column)
        mapped[..., column] = each.to_robot(mapped[..., column])
    return mapped


def map_faults(
    where: str, maps: Sequence[LinearMap | AlohaGripperMap], names: Sequence[str]
) -> Iterator[str]:
    """Maps of columns that do not exist, or that have one already; the nearest name is given."""
    seen: set[str] = set()
    for each in maps:
        if each.column not in names:
            hint = nearest(each.column, names)
            remedy = f"Correct the name{f'; {hint}' if hint else '.'}"
            yield describe(where, f"the column {each.column!r}", f"one of {list(names)}", remedy)
        if each.column in seen:
            found, remedy = f"two maps of {each.column!r}", "Join them into one."
            yield describe(where, found, "at most one a column", remedy)
        seen.add(each.column)


class ColumnChoice(Declaration):
    """Which columns of a dataset become those of the target, and how."""

    rename: dict[str, str] = Field(
        {},
        description="The target's name of a column -> the dataset's own; columns not named here "
        "are taken by the name that both have.",
    )
    maps: tuple[ColumnMap, ...] = Field(
        (),
        description="How values become the target's, where unit or sense differ; `column` is the "
        "target's name, and what comes out is in the target's unit.",
    )
    drop: tuple[str, ...] = Field(
        (), description="Columns of the dataset that the target has no use for, each by name."
    )


class ConventionsMapping(Declaration):
    """How a dataset's observations and actions become the target's."""

    cameras: dict[str, str | None] = Field(
        {},
        description="The target's name of a camera -> the dataset's own; null where the dataset "
        "has no such camera. Cameras not named here are taken by the name that both have.",
    )
    state: ColumnChoice = Field(ColumnChoice(), description="The state's columns.")
    action: ColumnChoice = Field(ColumnChoice(), description="The action's columns.")

    @property
    def absent(self) -> tuple[str, ...]:
        """The target's cameras that the dataset lacks."""
        return tuple(name for name, own in self.cameras.items() if own is None)


def unusable(
    source: Conventions, target: Conventions, mapping: ConventionsMapping
) -> Iterator[str]:
    """Names in a mapping that are not there, and columns it leaves without a use.

    Args:
        source: of the dataset.
        target: of what it is to become.
        mapping: between the two; each fault begins with its key in it.
    """
    yield from _camera_faults(source, target, mapping.cameras)
    yield from _column_faults("state", source.state.names, target.state.names, mapping.state)
    yield from _column_faults("action", source.action.names, target.action.names, mapping.action)


def mapping_faults(
    conventions: Conventions,
    target: Conventions,
    absent: Sequence[str],
    *,
    found_name: str,
    expected_name: str,
) -> list[str]:
    """Every declaration that still differs after a mapping, with the key that would mend it.

    Args:
        conventions: of the mapped dataset.
        target: what it should declare.
        absent: cameras of the target that the dataset lacks and says so.
        found_name: how messages call the dataset; the keys of its mapping follow this name.
        expected_name: how messages call the target.
    """
    mismatches = compare(
        conventions,
        without_cameras(target, absent),
        found_name=found_name,
        expected_name=expected_name,
        may_leave_open=True,
    )
    return [str(replace(each, remedy=_remedy(each.where, each.remedy))) for each in mismatches]


def without_cameras(conventions: Conventions, names: Container[str]) -> Conventions:
    """The same declaration without these cameras."""
    present = tuple(camera for camera in conventions.cameras if camera.name not in names)
    return conventions.model_copy(update={"cameras": present})


def _remedy(where: str, otherwise: str) -> str:
    """What mends a mismatch in a mapping, where a mapping can; what mends it elsewhere, if not."""
    part = "state" if ", state " in where else "action"
    if where.endswith(" units"):
        return (
            f"Name a map in {part}.maps that turns each column into the target's unit, or correct "
            "the declaration."
        )
    if where.endswith(" source"):
        return (
            "Name the camera in cameras (e.g. {front: front}) to accept how it sees, or leave it "
            "out with null."
        )
    if where.endswith((" low", " high")):
        return "Correct the declared range of one of the two, or map the columns in action.maps."
    if ", camera " in where:
        return "Name the dataset's camera in cameras, or null where it has none."
    return otherwise


def _camera_faults(
    source: Conventions, target: Conventions, named: Mapping[str, str | None]
) -> Iterator[str]:
    for name, own in named.items():
        if name not in target.camera_names:
            yield _unknown("cameras", name, target.camera_names, "a camera of the target")
        if own is not None and own not in source.camera_names:
            yield _unknown(f"cameras.{name}", own, source.camera_names, "a camera of the dataset")
    if target.cameras and all(named.get(name, "") is None for name in target.camera_names):
        found, remedy = "no camera at all", "Name a camera: without one the policy sees nothing."
        yield describe("cameras", found, f"at least one of {list(target.camera_names)}", remedy)


def _column_faults(
    part: str, own: Sequence[str], target: Sequence[str], choice: ColumnChoice
) -> Iterator[str]:
    for name, each in choice.rename.items():
        if name not in target:
            yield _unknown(f"{part}.rename", name, target, "a column of the target")
        if each not in own:
            yield _unknown(f"{part}.rename.{name}", each, own, "a column of the dataset")
    for name in choice.drop:
        if name not in own:
            yield _unknown(f"{part}.drop", name, own, "a column of the dataset")
    yield from map_faults(f"{part}.maps", choice.maps, target)
    used = {choice.rename.get(name, name): name for name in target}
    for each, name in used.items():
        if each not in own and name not in choice.rename:
            found, expected = f"the columns {list(own)}", f"one for the target's {name!r}"
            remedy = f"Name it in {part}.rename ({{{name}: <the dataset's name>}})."
            yield describe(part, found, expected, remedy)
    yield from _use_faults(part, own, target, used, choice.drop)


def _use_faults(
    part: str,
    own: Sequence[str],
    target: Sequence[str],
    used: Container[str],
    dropped: Sequence[str],
) -> Iterator[str]:
    """Columns of the dataset that become nothing without a word, or are dropped and used."""
    for name in own:
        if name not in used and name not in dropped:
            found = f"the column {name!r}, which becomes none of {list(target)}"
            remedy = f"Name it in {part}.rename, or in {part}.drop if the target can do without."
            yield describe(part, found, "a use for every column", remedy)
        if name in used and name in dropped:
            found, remedy = f"{name!r}, which is used", "Remove it from the list."
            yield describe(f"{part}.drop", found, "columns that nothing uses", remedy)


def _unknown(where: str, name: str, known: Sequence[str], what: str) -> str:
    hint = nearest(name, known)
    remedy = f"Correct the name{f'; {hint}' if hint else '.'}"
    return describe(where, f"{name!r}", f"{what}, one of {list(known)}", remedy)
