"""Faults of what actions mean: shifted, late, copied, mistaken, inverted; rotations; grippers."""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from data_tools.doctor.checks.roles import Quaternion
from data_tools.doctor.checks.rotations import quaternion_values
from data_tools.doctor.planting.bed import Bed, Fault, FloatArray, Planted, Strength, UnfitError
from data_tools.doctor.planting.column_faults import MEANING
from data_tools.doctor.planting.gripper_faults import GRIPPER
from data_tools.doctor.planting.number_faults import ODD, middle

SHIFTS: Final = frozenset(
    {"actions_after_motion", "late_motion", "odd_lag", "shifted_observations"}
)


def shifted(values: FloatArray, steps: int) -> FloatArray:
    """The same rows so many steps later, the first one repeated; earlier where negative."""
    at = np.arange(len(values)) - steps
    return values[at.clip(0, len(values) - 1)]


def _shift(bed: Bed, index: int, steps: int) -> str:
    recording = bed.recording(index)
    if recording.num_steps < 3 * abs(steps):
        raise UnfitError(f"only {recording.num_steps} steps")
    bed.write(index, actions=shifted(recording.actions, steps))
    return f"actions {abs(steps)} steps {'later' if steps > 0 else 'earlier'}"


def _after_motion(bed: Bed) -> Iterator[Planted]:
    changes = [_shift(bed, index, int(bed.strength)) for index in bed.chosen]
    yield Planted("", changes[0])


def _late(bed: Bed) -> Iterator[Planted]:
    steps = max(1, round(bed.strength * bed.control_hz))
    changes = [_shift(bed, index, -steps) for index in bed.chosen]
    yield Planted("", changes[0])


def _odd_lag(bed: Bed) -> Iterator[Planted]:
    steps = max(1, round(bed.strength * bed.control_hz))
    return bed.each(lambda index: _shift(bed, index, -steps))


def _pairs(bed: Bed, *references: str) -> list[tuple[int, int]]:
    """Pairs of action and state columns whose action is one of these."""
    declared = bed.declared.conventions.action.references
    pairs = [
        (pair.action, pair.state)
        for pair in bed.declared.roles.pairs
        if declared[pair.action] in references
    ]
    if not pairs:
        raise UnfitError(f"no action declared {' or '.join(references)} with its state column")
    return pairs


def _each_pair(
    bed: Bed, pairs: list[tuple[int, int]], change: Callable[[FloatArray, FloatArray], FloatArray]
) -> Iterator[Planted]:
    """Replace all paired actions: change(actions float64[t], states float64[t]) -> float64[t]."""
    names = bed.declared.conventions.action.names
    for index in bed.chosen:
        recording = bed.recording(index)
        for action, state in pairs:
            recording.actions[:, action] = change(
                recording.actions[:, action], recording.state[:, state]
            )
        bed.write(index, actions=recording.actions)
    yield Planted("", f"changed actions: {', '.join(names[action] for action, _ in pairs)}")


def _copied(bed: Bed) -> Iterator[Planted]:
    return _each_pair(bed, _pairs(bed, "absolute"), lambda _, state: state)


def _as_targets(bed: Bed) -> Iterator[Planted]:
    pairs = _pairs(bed, "delta", "velocity")
    return _each_pair(bed, pairs, lambda _, state: shifted(state, -1))


def _as_displacements(bed: Bed) -> Iterator[Planted]:
    pairs = _pairs(bed, "absolute")
    return _each_pair(bed, pairs, lambda _, state: np.diff(state, append=state[-1:]))


def _as_speeds(bed: Bed) -> Iterator[Planted]:
    pairs, rate = _pairs(bed, "absolute"), bed.control_hz
    return _each_pair(bed, pairs, lambda _, state: rate * np.diff(state, append=state[-1:]))


def _inverted(bed: Bed) -> Iterator[Planted]:
    pairs = _pairs(bed, "delta", "velocity")
    pair = pairs[int(bed.rng.integers(len(pairs)))]
    return _each_pair(bed, [pair], lambda action, _: -action)


def _next_states(bed: Bed) -> Iterator[Planted]:
    for index in bed.chosen:
        if bed.record(index).simulator is None:
            raise UnfitError("no states of a simulator beside the observations")
        bed.write(index, state=shifted(bed.recording(index).state, -1))
    yield Planted("", "every observation is the one of the next step")


def _quaternion(bed: Bed) -> Quaternion:
    found = bed.declared.roles.quaternions
    if not found:
        raise UnfitError("no four columns that are named as a quaternion")
    return found[int(bed.rng.integers(len(found)))]


def _turn(bed: Bed, index: int, quaternion: Quaternion, factors: FloatArray) -> None:
    recording = bed.recording(index)
    columns = list(quaternion.columns)
    values = quaternion_values(recording, quaternion) * factors[:, None]
    if quaternion.part == "state":
        recording.state[:, columns] = values
        bed.write(index, state=recording.state)
    else:
        recording.actions[:, columns] = values
        bed.write(index, actions=recording.actions)


def _rotation(rule: str) -> Callable[[Bed], Iterator[Planted]]:
    def plant(bed: Bed) -> Iterator[Planted]:
        def one(index: int) -> str:
            quaternion, steps = _quaternion(bed), bed.recording(index).num_steps
            factors = np.ones(steps)
            if rule == "quaternion_norm":
                factors *= 1 + bed.strength
            elif rule == "quaternion_hemisphere":
                factors *= -1
            else:
                factors[middle(bed, steps) :] *= -1
            _turn(bed, index, quaternion, factors)
            return f"{quaternion.part} {quaternion.name} times {sorted({*factors.tolist()})}"

        return bed.each(one)

    return plant


def _shaky(bed: Bed) -> Iterator[Planted]:
    def plant(index: int) -> str:
        recording, declared = bed.recording(index), bed.declared
        grippers = {*declared.roles.action_grippers}
        columns = [each for each in range(recording.actions.shape[1]) if each not in grippers]
        jerks = np.diff(recording.actions[:, columns], n=2, axis=0)
        size = bed.strength * np.sqrt((jerks**2).mean(axis=0))
        shake = bed.rng.normal(size=(recording.num_steps, len(columns))) * size / np.sqrt(6)
        action = declared.conventions.action
        low, high = (np.array(each)[columns] for each in (action.low, action.high))
        recording.actions[:, columns] = (recording.actions[:, columns] + shake).clip(low, high)
        for pair in declared.roles.pairs:
            if pair.action in columns and action.references[pair.action] == "absolute":
                # the arm follows half of it
                recording.state[:, pair.state] += shake[:, columns.index(pair.action)] / 2
        bed.write(index, state=recording.state, actions=recording.actions)
        return f"noise of {bed.strength:g} times the usual jerk on the commands"

    return bed.each(plant)


_LATE = Strength("how late [s]", 0.7, 1.0, 1.3)
FAULTS: Final = (
    Fault(
        "quaternion_norm",
        "A quaternion is not of unit length.",
        "one",
        _rotation("quaternion_norm"),
        Strength("how much too long", 0.002, 0.05, 1),
        also=frozenset({"outlier"}),
    ),
    Fault(
        "quaternion_flip",
        "A quaternion becomes its negative from a step on.",
        "one",
        _rotation("quaternion_flip"),
        also=ODD | {"quaternion_hemisphere"},
    ),
    Fault(
        "quaternion_hemisphere",
        "A quaternion is negative in the whole episode.",
        "one",
        _rotation("quaternion_hemisphere"),
        also=ODD,
    ),
    Fault(
        "actions_after_motion",
        "Every action is paired with a later observation.",
        "all",
        _after_motion,
        Strength("how many steps late", 1, 3, 8, least=1),
        also=SHIFTS | GRIPPER,
    ),
    Fault(
        "late_motion",
        "Every action is paired with an earlier observation.",
        "all",
        _late,
        _LATE,
        also=SHIFTS | GRIPPER | MEANING,
    ),
    Fault(
        "odd_lag",
        "The robot of one episode moves late.",
        "one",
        _odd_lag,
        Strength("how late [s]", 0.3, 0.6, 1.0),
        also=GRIPPER | SHIFTS,
    ),
    Fault(
        "action_is_state",
        "Targets are the positions of their own step.",
        "all",
        _copied,
        also=frozenset({"actions_after_motion", "clipped_action"}),
    ),
    Fault(
        "looks_absolute",
        "Displacements are the positions that follow.",
        "all",
        _as_targets,
        also=frozenset({"action_out_of_range", "inverted_action", "actions_after_motion"}),
    ),
    Fault(
        "looks_delta",
        "Targets are the displacements that follow.",
        "all",
        _as_displacements,
        also=frozenset(
            {"no_ops", "idle_episode", "actions_after_motion", "action_out_of_range"}
            | {"looks_velocity", "quaternion_norm"}
        ),
    ),
    Fault(
        "looks_velocity",
        "Targets are the speeds that follow.",
        "all",
        _as_speeds,
        also=frozenset(
            {"looks_delta", "no_ops", "idle_episode", "actions_after_motion", "quaternion_norm"}
        ),
    ),
    Fault(
        "inverted_action",
        "An action column has the other sign.",
        "all",
        _inverted,
        also=frozenset({"action_out_of_range"}),
    ),
    Fault(
        "shifted_observations",
        "Every observation is the one of the next step.",
        "all",
        _next_states,
        also=SHIFTS,
    ),
    Fault(
        "shaky_episode",
        "The operator's hand shakes.",
        "one",
        _shaky,
        Strength("how many times the usual jerk", 4, 8, 20, least=1),
        also=ODD | MEANING | {"clipped_action"},
    ),
)
