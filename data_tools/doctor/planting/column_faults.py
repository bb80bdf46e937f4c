"""Faults of columns over all episodes: still, far out, clipped, in another unit."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from data_tools.doctor.checks.recording import Extent, Spread
from data_tools.doctor.planting.bed import Bed, Fault, FloatArray, Planted, Strength, UnfitError
from data_tools.doctor.planting.number_faults import JUMPS, ODD, chosen_of, middle

# Share of the steps in which a column is still used.
RARE: Final = 0.008
MEANING: Final = frozenset(
    {"looks_absolute", "looks_delta", "looks_velocity", "inverted_action", "action_is_state"}
)


def _spread(bed: Bed) -> Spread:
    return Spread.of([Extent.of(each.state) for each in bed.recordings()])


def _still(bed: Bed) -> Iterator[Planted]:
    roles, names = bed.declared.roles, bed.declared.conventions.state.names
    driven = {pair.state for pair in roles.pairs} | {*roles.state_grippers}
    driven |= {
        column for each in roles.quaternions if each.part == "state" for column in each.columns
    }
    free = [column for column in range(len(names)) if column not in driven]
    column = chosen_of(bed, free or range(len(names)), "state column")
    value = bed.recording(0).state[0, column]
    for index in bed.chosen:
        state = bed.recording(index).state
        state[:, column] = value
        bed.write(index, state=state)
    yield Planted("", f"state {names[column]!r} = {value:g} in every step")


def _outlier(bed: Bed) -> Iterator[Planted]:
    spread = _spread(bed)

    def plant(index: int) -> str:
        recording = bed.recording(index)
        movers = np.flatnonzero(spread.high - spread.low > 1e-3).tolist()
        column = chosen_of(bed, movers, "state column that moves")
        step = middle(bed, recording.num_steps)
        value = spread.mean[column] + bed.strength * spread.std[column]
        recording.state[step, column] = value
        bed.write(index, state=recording.state)
        name = bed.declared.conventions.state.names[column]
        return f"state {name!r} = {value:g} at step {step}"

    return bed.each(plant)


def _other_unit(kind: str) -> Fault:
    factor = 180 / np.pi if kind == "degrees" else 1000.0
    what = "joints in radians" if kind == "degrees" else "positions in metres"

    def plant(bed: Bed) -> Iterator[Planted]:
        roles, conventions = bed.declared.roles, bed.declared.conventions
        columns = list(roles.joints if kind == "degrees" else roles.positions)
        if not columns:
            raise UnfitError(f"no {what} in the state")
        drivers = [
            pair.action
            for pair in roles.pairs
            if pair.state in columns
            and conventions.action.units[pair.action] == conventions.state.units[pair.state]
        ]
        farthest = np.abs([np.abs(each.state[:, columns]).max() for each in bed.recordings()]).max()
        for index in bed.chosen:
            recording = bed.recording(index)
            recording.state[:, columns] *= factor
            recording.actions[:, drivers] *= factor
            bed.write(index, state=recording.state, actions=recording.actions)
        yield Planted("", f"{what} are now {kind}, up to {farthest * factor:.3g}")

    # what was within the noise of a sensor is a thousand times as large
    also = ODD | {"action_out_of_range", "stuck_state", "clipped_action", "shaky_episode"}
    change = f"All {what}, and their targets, are in {kind}."
    return Fault(kind, change, "all", plant, also=also)


def _clipped_action(bed: Bed) -> Iterator[Planted]:
    action, roles = bed.declared.conventions.action, bed.declared.roles
    low, high = np.array(action.low), np.array(action.high)
    limited = [
        column
        for column in np.flatnonzero(np.isfinite(high - low)).tolist()
        if column not in roles.action_grippers
    ]
    together = np.concatenate([each.actions for each in bed.recordings()])
    limited = [column for column in limited if np.ptp(together[:, column]) > 0]
    column = chosen_of(bed, limited, "action column with declared limits that moves")
    about = (low[column] + high[column]) / 2
    distance = np.abs(together[:, column] - about)
    # so many steps of the hand go beyond the limits, where they are cut
    factor = (high[column] - low[column]) / 2 / max(np.quantile(distance, 1 - bed.strength), 1e-9)
    for index in bed.chosen:
        actions = bed.recording(index).actions
        grown = about + factor * (actions[:, column] - about)
        actions[:, column] = grown.clip(low[column], high[column])
        bed.write(index, actions=actions)
    yield Planted("", f"action {action.names[column]!r} times {factor:.3g}, cut at its limits")


def _clip(bed: Bed, columns: Sequence[int], part: str, what: str) -> tuple[int, float, float]:
    """Cut a column of all chosen episodes at quantiles that leave out `strength` of the steps."""
    arrays = [getattr(bed.recording(index), part) for index in range(len(bed.dataset))]
    together = np.concatenate(arrays)
    movers = [column for column in columns if np.ptp(together[:, column]) > 1e-2]
    column = chosen_of(bed, movers, what)
    low, high = np.quantile(together[:, column], [bed.strength / 2, 1 - bed.strength / 2])
    for index in bed.chosen:
        values: FloatArray = arrays[index]
        values[:, column] = values[:, column].clip(low, high)
        bed.write(
            index,
            state=values if part == "state" else None,
            actions=values if part == "actions" else None,
        )
    return column, float(low), float(high)


def _clipped_state(bed: Bed) -> Iterator[Planted]:
    roles = bed.declared.roles
    columns = sorted({*roles.angles, *roles.positions})
    column, low, high = _clip(bed, columns, "state", "angle or position that moves")
    name = bed.declared.conventions.state.names[column]
    yield Planted("", f"state {name!r} cut at {low:.4g} and {high:.4g}")


def _clipped_targets(bed: Bed) -> Iterator[Planted]:
    roles, action = bed.declared.roles, bed.declared.conventions.action
    columns = [
        each
        for each, reference in enumerate(action.references)
        if reference == "absolute" and each not in roles.action_grippers
    ]
    column, low, high = _clip(bed, columns, "actions", "target that moves")
    yield Planted("", f"action {action.names[column]!r} cut at {low:.4g} and {high:.4g}")


def _copied_column(bed: Bed) -> Iterator[Planted]:
    roles, names = bed.declared.roles, bed.declared.conventions.state.names
    spread = _spread(bed)
    columns = [*roles.joints, *roles.positions]
    movers = [column for column in columns if spread.high[column] - spread.low[column] > 1e-2]
    if len(movers) < 2:
        raise UnfitError("fewer than two joints or positions that move")
    kept, lost = (movers[each] for each in bed.rng.permutation(len(movers))[:2])
    for index in bed.chosen:
        state = bed.recording(index).state
        state[:, lost] = state[:, kept]
        bed.write(index, state=state)
    yield Planted("", f"state {names[lost]!r} has the numbers of {names[kept]!r}")


def _narrow_quantiles(bed: Bed) -> Iterator[Planted]:
    action, roles = bed.declared.conventions.action, bed.declared.roles
    columns = [
        column
        for column in range(len(action.names))
        if column not in roles.action_grippers and action.references[column] != "absolute"
    ]
    together = np.concatenate([each.actions for each in bed.recordings()])
    movers = [each for each in columns if np.ptp(together[:, each]) > 1e-2]
    column = chosen_of(bed, movers, "displacement or speed that is used")
    # ties, as of actions at their limits, are broken by chance
    size = np.abs(together[:, column]) + bed.rng.uniform(0, 1e-6, len(together))
    is_rare = size >= np.quantile(size, 1 - RARE)
    begin = 0
    for index in bed.chosen:
        actions = bed.recording(index).actions
        rows = is_rare[begin : begin + len(actions)]
        actions[:, column] *= np.where(rows, 1.0, 1 / bed.strength)
        bed.write(index, actions=actions)
        begin += len(actions)
    yield Planted("", f"action {action.names[column]!r} used in {RARE:.1%} of the steps alone")


FAULTS: Final = (
    Fault(
        "near_constant_column",
        "A state column is one number in all episodes.",
        "all",
        _still,
        also=frozenset({"stuck_state", "gripper_flipped", "quaternion_norm", "action_is_state"}),
    ),
    Fault(
        "outlier",
        "One reading lies far from all others.",
        "one",
        _outlier,
        Strength("how far [standard deviations from the mean]", 12, 20, 100),
        also=ODD,
    ),
    _other_unit("degrees"),
    _other_unit("millimetres"),
    Fault(
        "clipped_action",
        "An action column is amplified, and cut at its declared limits.",
        "all",
        _clipped_action,
        Strength("share of the steps that are cut", 0.65, 0.8, 0.95, most=1),
        also=MEANING | {"late_motion", "actions_after_motion", "clipped_targets"},
    ),
    Fault(
        "clipped_state",
        "A state column is cut off above and below, as by a sensor's range.",
        "all",
        _clipped_state,
        Strength("share of the steps that are cut", 0.1, 0.2, 0.5, most=1),
        also=MEANING | {"quaternion_norm"},
    ),
    Fault(
        "clipped_targets",
        "Targets of a column are cut off by the recorder, where the robot goes on.",
        "all",
        _clipped_targets,
        Strength("share of the steps that are cut", 0.1, 0.2, 0.5, most=1),
        also=MEANING | {"clipped_action", "quaternion_norm"},
    ),
    Fault(
        "copied_column",
        "A column of the state has the numbers of another.",
        "all",
        _copied_column,
        also=MEANING | {"late_motion", "actions_after_motion", "odd_lag"},
    ),
    Fault(
        "narrow_quantiles",
        "An action column is hardly used but in one of 120 steps.",
        "all",
        _narrow_quantiles,
        Strength("how much smaller the others are", 30, 100, 1000, least=1),
        also=JUMPS | MEANING | {"late_motion", "actions_after_motion", "no_ops", "idle_episode"},
    ),
)
