"""Faults of grippers: exchanged, in another unit, chattering."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from data_tools.doctor.checks.recording import Recording
from data_tools.doctor.checks.roles import GripperColumns
from data_tools.doctor.planting.bed import Bed, Fault, FloatArray, Planted, Strength, UnfitError
from data_tools.doctor.planting.number_faults import middle

GRIPPER: Final = frozenset({"gripper_polarity", "gripper_flipped", "gripper_values"})


def _gripper(bed: Bed) -> GripperColumns:
    found = [each for each in bed.declared.roles.grippers if each.open_value != each.closed_value]
    if not found:
        raise UnfitError("no declared gripper")
    return found[int(bed.rng.integers(len(found)))]


def _mirror(gripper: GripperColumns, actions: FloatArray) -> None:
    column = actions[:, gripper.action]
    actions[:, gripper.action] = gripper.open_value + gripper.closed_value - column


def _needs_reading(gripper: GripperColumns) -> None:
    if gripper.state is None:
        raise UnfitError("no state column that tells the gripper's opening")


def _polarity(bed: Bed) -> Iterator[Planted]:
    gripper = _gripper(bed)
    _needs_reading(gripper)
    for index in bed.chosen:
        actions = bed.recording(index).actions
        _mirror(gripper, actions)
        bed.write(index, actions=actions)
    yield Planted("", f"action {bed.declared.conventions.action.names[gripper.action]!r} mirrored")


def _require_used(gripper: GripperColumns, recording: Recording) -> None:
    way = abs(gripper.closed_value - gripper.open_value)
    if np.ptp(recording.actions[:, gripper.action]) < way / 2:
        raise UnfitError("the gripper is not used")


def _flipped(bed: Bed) -> Iterator[Planted]:
    def plant(index: int) -> str:
        recording, gripper = bed.recording(index), _gripper(bed)
        _needs_reading(gripper)
        _require_used(gripper, recording)
        _mirror(gripper, recording.actions)
        bed.write(index, actions=recording.actions)
        name = bed.declared.conventions.action.names[gripper.action]
        return f"action {name!r} mirrored"

    return bed.each(plant)


def _other_values(bed: Bed) -> Iterator[Planted]:
    gripper = _gripper(bed)
    action = bed.declared.conventions.action
    farthest = gripper.open_value + bed.strength * (gripper.closed_value - gripper.open_value)
    is_legal = action.low[gripper.action] <= farthest <= action.high[gripper.action]
    factor = bed.strength if is_legal else 1 / bed.strength
    for index in bed.chosen:
        actions = bed.recording(index).actions
        way = actions[:, gripper.action] - gripper.open_value
        actions[:, gripper.action] = gripper.open_value + factor * way
        bed.write(index, actions=actions)
    yield Planted("", f"closing commands {factor:.3g} times as far from open")


def _chatter(bed: Bed) -> Iterator[Planted]:
    def plant(index: int) -> str:
        recording, gripper = bed.recording(index), _gripper(bed)
        count = int(bed.strength)
        step = middle(bed, recording.num_steps, count)
        values = (gripper.open_value, gripper.closed_value)
        told = [values[each % 2] for each in range(count)]
        recording.actions[step : step + count, gripper.action] = told
        bed.write(index, actions=recording.actions)
        return f"the gripper's command changes in each of {count} steps from step {step}"

    return bed.each(plant)


FAULTS: Final = (
    Fault(
        "gripper_polarity",
        "Open and closed are exchanged in the commands.",
        "all",
        _polarity,
        also=GRIPPER,
    ),
    Fault(
        "gripper_flipped",
        "Open and closed are exchanged in the commands of an episode.",
        "one",
        _flipped,
        also=GRIPPER,
    ),
    Fault(
        "gripper_values",
        "Commands of a gripper are in another unit.",
        "all",
        _other_values,
        Strength(
            "how many times as far from open; as near, where limits are declared",
            2,
            10,
            255,
            least=1,
        ),
        also=GRIPPER | {"action_out_of_range"},
    ),
    Fault(
        "gripper_chatter",
        "A gripper is told to open and close in every step.",
        "one",
        _chatter,
        Strength("how many steps", 6, 12, 30, least=1),
        also=GRIPPER,
    ),
)
