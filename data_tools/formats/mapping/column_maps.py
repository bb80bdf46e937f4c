"""Maps between a robot's own columns and the space a pretrained model was trained in.

A pretrained policy may count a joint the other way round, or know a gripper by the angle of its
motor where the data holds its opening. Each map is about one column, named, and has its inverse
beside it; all maths is float64.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

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
