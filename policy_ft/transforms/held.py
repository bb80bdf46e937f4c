"""Columns that never move: which they are, and what a person is told of them."""

from collections.abc import Iterator, Sequence
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from data_tools.actions import Scaling, scaling
from data_tools.conventions import Conventions
from data_tools.formats.mapping.mapping import ColumnMap, map_columns
from data_tools.stats import (
    NormalizationStats,
    action_motions,
    constants,
    state_motions,
    still_columns,
)
from policy_ft.config.transforms import TransformsConfig
from policy_ft.errors import UserError, describe
from policy_ft.transforms.records import Statistics

FloatArray = npt.NDArray[np.float64]
Part = Literal["state", "action"]

_MOST_TOLD: Final = 8
_WORDS: Final[dict[Part, tuple[str, str, str]]] = {
    "action": (
        "held there and left out of the loss",
        "commanded within their noise, which is learned as if it were motion",
        "commanded within the policy's error, for their normalization is identity",
    ),
    "state": (
        "0 to the model whatever the robot reads",
        "what the robot reads beside that is multiplied by {times:.3g} for the model",
        "told to the model as they are",
    ),
}
"""What is said of columns that are held, of those that are divided, and of those passed on."""


def state_scaling(
    config: TransformsConfig, conventions: Conventions, statistics: Statistics
) -> Scaling:
    """How the state's columns are normalized; UserError where the statistics do not suffice."""
    motions = model_motions(config, conventions, "state")
    return scaling(statistics.state, config.state_normalization, config.scale_rule, motions)


def action_scaling(
    config: TransformsConfig, conventions: Conventions, statistics: Statistics
) -> Scaling:
    """How the action's columns are normalized; UserError where the statistics do not suffice."""
    motions = model_motions(config, conventions, "action")
    return scaling(statistics.actions, config.action_normalization, config.scale_rule, motions)


def model_motions(config: TransformsConfig, conventions: Conventions, part: Part) -> FloatArray:
    """float64[d], the smallest motion of each column as the model sees it."""
    if part == "state":
        return _mapped(state_motions(conventions), config.state_maps, conventions.state.names)
    return _mapped(action_motions(conventions), config.action_maps, conventions.action.names)


def _mapped(motions: FloatArray, maps: Sequence[ColumnMap], names: Sequence[str]) -> FloatArray:
    start = map_columns(np.zeros_like(motions), maps, names)
    return np.abs(map_columns(motions, maps, names) - start)


def scaling_faults(
    config: TransformsConfig, conventions: Conventions, statistics: Statistics
) -> list[str]:
    """Statistics that a normalization lacks, divisors of zero, and actions none of which moves."""
    faults = []
    for name, made in (("state", state_scaling), ("action", action_scaling)):
        try:
            how = made(config, conventions, statistics)
        except UserError as error:
            kind = getattr(config, f"{name}_normalization")
            faults += [f"transforms.{name}_normalization {kind}: {each}" for each in error.faults]
            continue
        if name == "action" and how.is_held.all():
            found = f"none that moves among {list(conventions.action.names)}"
            remedy = "Record demonstrations in which the robot moves, or correct the declaration."
            faults.append(describe("action columns", found, "one to learn", remedy))
    return faults


def still_notes(
    config: TransformsConfig, conventions: Conventions, statistics: Statistics
) -> list[str]:
    """What becomes of the columns that never move in the statistics, and what changes it."""
    actions, states = conventions.action.names, conventions.state.names
    relative = {actions.index(name) for name in config.delta_actions}
    action_how = action_scaling(config, conventions, statistics)
    state_how = state_scaling(config, conventions, statistics)
    notes = [
        *_part_notes(
            "action",
            [f"{n} (state + " if i in relative else f"{n} (" for i, n in enumerate(actions)],
            statistics.actions,
            model_motions(config, conventions, "action"),
            action_how,
        ),
        *_part_notes(
            "state",
            [f"{name} (" for name in states],
            statistics.state,
            model_motions(config, conventions, "state"),
            state_how,
        ),
    ]
    if not notes:
        return []
    other = "divide" if action_how.is_held.any() or state_how.is_held.any() else "hold"
    return [
        *notes,
        f"still_columns is {config.still_columns}; {other} treats these columns otherwise (in "
        "policy.transforms of a new policy, in policy of a pretrained one)",
    ]


def _part_notes(
    part: Part,
    starts: Sequence[str],
    stats: NormalizationStats,
    motions: FloatArray,
    how: Scaling,
) -> Iterator[str]:
    """One sentence, where there are columns that never move.

    Args:
        part: of what.
        starts: what stands before the constant of each column.
        stats: of the columns, as the model sees them.
        motions: the smallest motion of each.
        how: they are normalized.
    """
    still = still_columns(stats, motions)
    if not still:
        return
    told = [f"{starts[i]}{constants(stats)[i]:.6g})" for i in still[:_MOST_TOLD]]
    told += [f"{len(still) - _MOST_TOLD} more"] if len(still) > _MOST_TOLD else []
    held, divided, as_is = _WORDS[part]
    times = 1 / how.scale[list(still)].min()
    words = held if how.is_held.any() else as_is if times == 1 else divided.format(times=times)
    yield f"{part} columns that never move: {', '.join(told)}; {words}"
