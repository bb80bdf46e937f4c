"""Faults of an episode's numbers: not finite, out of range, still, jumping."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from data_tools.doctor.checks.numbers import MIN_COMMAND, MIN_STATE_MOTION
from data_tools.doctor.checks.recording import Recording
from data_tools.doctor.planting.bed import Bed, Fault, Planted, Strength, UnfitError

JUMPS: Final = frozenset({"joint_jump", "position_jump", "angle_wrap", "outlier"})
# What a jump of the hand or of its joints may look like besides.
ODD: Final = JUMPS | {"narrow_quantiles", "degrees", "millimetres", "quaternion_norm"}


def moving(
    recording: Recording, columns: Sequence[int], least: float = MIN_STATE_MOTION
) -> list[int]:
    """Those of the state's columns that move."""
    spans = np.ptp(recording.state, axis=0)
    return [column for column in columns if spans[column] > least]


def chosen_of(bed: Bed, columns: Sequence[int], what: str) -> int:
    """One column by chance; UnfitError, saying what there is none of."""
    if not columns:
        raise UnfitError(f"no {what}")
    return int(bed.rng.choice(columns))


def middle(bed: Bed, num_steps: int, length: int = 1) -> int:
    """A step by chance, away from both ends, so many of which follow within the episode."""
    if num_steps < length + 4:
        raise UnfitError(f"only {num_steps} steps")
    return int(bed.rng.integers(2, num_steps - length - 1))


def _not_finite(bed: Bed) -> Iterator[Planted]:
    def plant(index: int) -> str:
        recording = bed.recording(index)
        count = int(bed.strength)
        column = int(bed.rng.integers(recording.state.shape[1]))
        step = middle(bed, recording.num_steps, count)
        recording.state[step : step + count, column] = np.nan
        bed.write(index, state=recording.state)
        return f"NaN in state column {column}, {count} steps from step {step}"

    return bed.each(plant)


def _out_of_range(bed: Bed) -> Iterator[Planted]:
    def plant(index: int) -> str:
        recording, action = bed.recording(index), bed.declared.conventions.action
        low, high = np.array(action.low), np.array(action.high)
        limited = np.flatnonzero(np.isfinite(high - low)).tolist()
        column = chosen_of(bed, limited, "action column with declared limits")
        step = middle(bed, recording.num_steps)
        value = high[column] + bed.strength * (high[column] - low[column])
        recording.actions[step, column] = value
        bed.write(index, actions=recording.actions)
        return f"action {action.names[column]!r} = {value:g} at step {step}"

    return bed.each(plant)


def _zero_state(bed: Bed) -> Iterator[Planted]:
    def plant(index: int) -> str:
        bed.write(index, state=np.zeros_like(bed.recording(index).state))
        return "zeros in every state"

    return bed.each(plant)


def _stuck_state(bed: Bed) -> Iterator[Planted]:
    def plant(index: int) -> str:
        recording, conventions = bed.recording(index), bed.declared.conventions
        spans = np.ptp(recording.actions, axis=0)
        known = {*bed.declared.roles.angles, *bed.declared.roles.positions}
        driven = [
            pair.state
            for pair in bed.declared.roles.pairs
            if conventions.action.references[pair.action] == "absolute"
            and spans[pair.action] > MIN_COMMAND
            and pair.state in known
        ]
        column = chosen_of(bed, driven, "state column that the target of an action drives")
        recording.state[:, column] = recording.state[0, column]
        bed.write(index, state=recording.state)
        return f"state {conventions.state.names[column]!r} stays where it was"

    return bed.each(plant)


def _frozen_state(bed: Bed) -> Iterator[Planted]:
    def plant(index: int) -> str:
        recording = bed.recording(index)
        count = int(np.ceil(bed.strength * bed.control_hz))
        step = middle(bed, recording.num_steps, count)
        if not (np.diff(recording.actions[step : step + count], axis=0) != 0).any(axis=1).all():
            raise UnfitError(f"no {bed.strength:g} s in which the actions change in every step")
        recording.state[step : step + count] = recording.state[step]
        bed.write(index, state=recording.state)
        return f"one state for {count} steps from step {step}"

    return bed.each(plant)


def _jump(kind: str) -> "Fault":
    def columns_of(bed: Bed) -> tuple[int, ...]:
        roles = bed.declared.roles
        return roles.joints if kind == "joint" else roles.positions

    unit = "rad" if kind == "joint" else "m"

    def plant(bed: Bed) -> Iterator[Planted]:
        def one(index: int) -> str:
            recording = bed.recording(index)
            column = chosen_of(bed, columns_of(bed), f"state column of a {kind} in {unit}")
            step = middle(bed, recording.num_steps)
            inward = -np.sign(recording.state[step, column]) or 1.0
            recording.state[step, column] += inward * bed.strength
            bed.write(index, state=recording.state)
            name = bed.declared.conventions.state.names[column]
            return f"state {name!r} {bed.strength:g} {unit} off at step {step}"

        return bed.each(one)

    weak, default, strong = (0.7, 1.5, 3.0) if kind == "joint" else (0.2, 0.5, 2.0)
    return Fault(
        rule=f"{kind}_jump",
        change=f"One reading of a {kind} is off.",
        scope="one",
        plant=plant,
        strength=Strength(f"how far off [{unit}]", weak, default, strong),
        also=ODD,
    )


def _angle_wrap(bed: Bed) -> Iterator[Planted]:
    def plant(index: int) -> str:
        recording = bed.recording(index)
        column = chosen_of(
            bed, moving(recording, bed.declared.roles.angles, 0.05), "angle in radians that moves"
        )
        angle = recording.state[:, column]
        about = angle - (angle.max() + angle.min()) / 2 + np.pi
        recording.state[:, column] = (about + np.pi) % (2 * np.pi) - np.pi
        bed.write(index, state=recording.state)
        return f"state {bed.declared.conventions.state.names[column]!r} about pi, where it wraps"

    return bed.each(plant)


FAULTS: Final = (
    Fault(
        "not_finite",
        "A state column is NaN for some steps.",
        "one",
        _not_finite,
        Strength("how many steps", 1, 3, 20, least=1),
    ),
    Fault(
        "action_out_of_range",
        "One action lies beyond its declared range.",
        "one",
        _out_of_range,
        Strength("how far beyond, as a share of the range", 0.01, 0.5, 5),
        also=frozenset({"narrow_quantiles", "outlier"}),
    ),
    Fault("zero_state", "Every state is zero.", "one", _zero_state, also=ODD),
    Fault(
        "stuck_state",
        "A state column stays where it was, while its command moves.",
        "one",
        _stuck_state,
        also=frozenset({"quaternion_norm"}),
    ),
    Fault(
        "frozen_state",
        "The whole state repeats itself while the actions go on.",
        "one",
        _frozen_state,
        Strength("how long [s]", 1.2, 2, 4),
        also=ODD | {"frozen_camera"},
    ),
    _jump("joint"),
    _jump("position"),
    Fault("angle_wrap", "An angle wraps at half a turn.", "one", _angle_wrap, also=ODD),
)
