"""Roles: what the declared names and units say about each column.

A check of joints must not look at grippers, and one of positions not at quaternions. What names and
units do not tell is left out: a check that guesses is worse than none.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Self

from data_tools.conventions import ActionSpec, Conventions

Part = Literal["state", "action"]

RADIANS: Final = {"rad", "radian", "radians"}
METRES: Final = {"m", "metre", "metres", "meter", "meters"}
LENGTHS: Final = METRES | {"cm", "mm", "millimetre", "millimetres", "millimeter", "millimeters"}

_GRIPPER_WORDS: Final = {"gripper", "finger", "jaw", "opening", "aperture", "width", "hand"}
_WIDTH_WORDS: Final = {"opening", "aperture", "width"}
_ORIENTATION_WORDS: Final = {
    *("roll", "pitch", "yaw", "rx", "ry", "rz", "ax", "ay", "az"),
    *("euler", "rot", "rotation", "ori", "orientation", "rotvec", "axis", "angle"),
}
_AXIS_WORDS: Final = {"x", "y", "z", "w", "qx", "qy", "qz", "qw"} | _ORIENTATION_WORDS
_SIDES: Final = {"left", "right", "l", "r"}
# Words that say that a column is a command or a reading, and not of what.
_COMMAND_WORDS: Final = {
    *("delta", "action", "target", "cmd", "command", "goal", "desired", "leader", "master", "abs"),
    *("state", "obs", "qpos", "pos", "position", "follower", "puppet", "measured"),
    *("vel", "velocity"),
}
_SHORT_DELTA: Final = re.compile(r"d(x|y|z|rx|ry|rz|roll|pitch|yaw|q\d*|j\d*)")
_QUATERNION: Final = re.compile(r"(?P<stem>.*?)(?P<q>q|quat|quaternion|orn)_?(?P<axis>[wxyz])")


class Quaternion(NamedTuple):
    """Four columns that hold a rotation as a unit quaternion, in whatever order."""

    part: Part
    columns: tuple[int, ...]
    name: str


class Pair(NamedTuple):
    """An action column and the state column that it drives."""

    action: int
    state: int


class GripperColumns(NamedTuple):
    """An action column that drives a gripper, and the state column that tells of it.

    Attributes:
        action: index of the action column.
        open_value: the action that opens it, as declared.
        closed_value: the action that closes it, as declared.
        state: index of the state column; None where no name tells it.
        wider: what says that a larger magnitude of the state is wider, in words; '' where nothing
            does. Bearing the command's name says nothing: a command of -1 may open what reads 1.
    """

    action: int
    open_value: float
    closed_value: float
    state: int | None
    wider: str


@dataclass(frozen=True)
class Roles:
    """Indices of columns by what they are; grippers are in no other list than theirs.

    Attributes:
        joints: state columns in radians that are no rotation in space.
        angles: all state columns in radians, joints and rotations.
        positions: state columns in metres.
        quaternions: of the state, and of the actions that are absolute.
        state_grippers: state columns of grippers.
        action_grippers: action columns of grippers.
        grippers: the declared grippers, each with its state column.
        pairs: action columns with the state columns they drive, grippers left out.
    """

    joints: tuple[int, ...]
    angles: tuple[int, ...]
    positions: tuple[int, ...]
    quaternions: tuple[Quaternion, ...]
    state_grippers: tuple[int, ...]
    action_grippers: tuple[int, ...]
    grippers: tuple[GripperColumns, ...]
    pairs: tuple[Pair, ...]

    @classmethod
    def of(cls, conventions: Conventions) -> Self:
        """What these names and units tell."""
        state, action = conventions.state, conventions.action
        state_grippers = tuple(i for i, n in enumerate(state.names) if _is_gripper(n))
        others = [i for i in range(len(state.names)) if i not in state_grippers]
        angles = tuple(i for i in others if state.units[i] in RADIANS)
        action_grippers = tuple(action.names.index(each.column) for each in action.grippers)
        return cls(
            joints=tuple(i for i in angles if _is_joint(state.names[i])),
            angles=angles,
            positions=tuple(i for i in others if state.units[i] in METRES),
            quaternions=(
                *_quaternions("state", state.names),
                *(q for q in _quaternions("action", action.names) if _is_absolute(action, q)),
            ),
            state_grippers=state_grippers,
            action_grippers=action_grippers,
            grippers=tuple(_grippers(conventions, action_grippers, state_grippers)),
            pairs=tuple(_pairs(conventions, action_grippers, others)),
        )


def words(name: str) -> set[str]:
    """The words of a column's name: 'robot0_eef_pos.x' -> {robot0, eef, pos, x}."""
    spaced = re.sub(r"([a-z])([A-Z])", r"\1_\2", name)
    return {word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word}


def sides(name: str) -> frozenset[str]:
    """'left' or 'right', as the name says; empty where it says neither."""
    return frozenset({"l": "left", "r": "right"}.get(word, word) for word in words(name) & _SIDES)


def numbers_in(name: str) -> tuple[str, ...]:
    """The numbers of a name, in order: 'arm2_joint_1' -> ('2', '1')."""
    return tuple(re.findall(r"\d+", name))


def vector_name(name: str) -> frozenset[str]:
    """The words of a name but for what tells places in one vector apart: numbers and axes."""
    plain = {re.sub(r"\d+$", "", word) for word in words(name)}
    return frozenset(plain - _AXIS_WORDS - {""})


def _is_joint(name: str) -> bool:
    return "joint" in words(name) or not words(name) & _ORIENTATION_WORDS


def _is_gripper(name: str) -> bool:
    return bool(words(name) & _GRIPPER_WORDS) and not words(name) & _AXIS_WORDS


def _is_absolute(action: ActionSpec, quaternion: Quaternion) -> bool:
    return all(action.references[column] == "absolute" for column in quaternion.columns)


def _quaternions(part: Part, names: Sequence[str]) -> Iterator[Quaternion]:
    matches = [_QUATERNION.fullmatch(name.lower()) for name in names]
    for start in range(len(names) - 3):
        four = [match for match in matches[start : start + 4] if match is not None]
        if len(four) == 4 and len({match["stem"] for match in four}) == 1:
            axes = "".join(match["axis"] for match in four)
            if sorted(axes) == sorted("wxyz"):
                columns = tuple(range(start, start + 4))
                yield Quaternion(part, columns, f"{names[start]}..{names[start + 3]} ({axes})")


def _grippers(
    conventions: Conventions, action_grippers: Sequence[int], state_grippers: Sequence[int]
) -> Iterator[GripperColumns]:
    names = conventions.state.names
    for spec, action in zip(conventions.action.grippers, action_grippers, strict=True):
        side = sides(spec.column)
        alone = len(action_grippers) == 1
        candidates = [i for i in state_grippers if alone or sides(names[i]) == side]
        widths = [i for i in candidates if _wider(conventions, i)]
        same = [i for i in candidates if names[i] == spec.column]
        named_widths = [i for i in same if i in widths]
        alone_or_same = same or (candidates if len(candidates) == 1 else [])
        state = next(iter([*named_widths, *widths, *alone_or_same]), None)
        wider = "" if state is None else _wider(conventions, state)
        yield GripperColumns(action, spec.open_value, spec.closed_value, state, wider)


def _wider(conventions: Conventions, column: int) -> str:
    """What says that a larger magnitude of this gripper's column is wider; '' if nothing does."""
    name, unit = conventions.state.names[column], conventions.state.units[column]
    if unit in LENGTHS:
        return f"{name!r} is a length ({unit})"
    return f"{name!r} is an opening by its name" if words(name) & _WIDTH_WORDS else ""


def _pairs(
    conventions: Conventions, action_grippers: Sequence[int], state_columns: Sequence[int]
) -> Iterator[Pair]:
    state, action = conventions.state, conventions.action
    places = [column for column in state_columns if not state.units[column].endswith("/s")]
    meanings = {column: _meaning(state.names[column]) for column in places}
    for column, name in enumerate(action.names):
        if column in action_grippers:
            continue
        wanted = _meaning(name)
        exact = [each for each in places if meanings[each] == wanted]
        wider = [each for each in places if wanted and wanted < meanings[each]]
        found = exact or wider
        if len(found) == 1:
            yield Pair(column, found[0])


def _meaning(name: str) -> frozenset[str]:
    """The words of a name that say what is moved."""
    told = words(name) - _COMMAND_WORDS
    return frozenset(match[1] if (match := _SHORT_DELTA.fullmatch(word)) else word for word in told)
