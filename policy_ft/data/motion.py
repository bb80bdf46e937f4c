"""Whether data moves what a policy holds, where its statistics come from elsewhere."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from data_tools.episode import Dataset, Episode
from data_tools.formats.mapping.mapping import map_columns
from data_tools.stats import floor
from policy_ft.data.fitting import relative_to_start
from policy_ft.data.sources import Source, sources_of, statistics_basis
from policy_ft.errors import describe
from policy_ft.ranks import of_first_rank
from policy_ft.transforms import Transforms, delta_pairs
from policy_ft.transforms.held import Part, model_motions

Rows = npt.NDArray[np.float64]

# Two recordings of a joint that is locked differ by more than its noise in one of them.
_ELSEWHERE: Final = 10.0


def held_motion_faults(episodes: Dataset, transforms: Transforms) -> list[str]:
    """Actions that the policy holds and the data moves, or holds elsewhere.

    None where the policy's statistics are of these data. Reads no image. Of several processes,
    which must all call this, the first looks and tells the others.

    Args:
        episodes: of one source or several, as the policy declares them.
        transforms: of the policy.
    """
    return of_first_rank(lambda: [*_held_motion_faults(episodes, transforms)])


def _held_motion_faults(episodes: Dataset, transforms: Transforms) -> Iterator[str]:
    held = np.flatnonzero(transforms.action_scaling.is_held).tolist()
    if not held or _is_fitted(episodes, transforms):
        return
    for source in sources_of(episodes):
        low, high = _extent(source, transforms, "action")
        for column in _beyond(low, high, transforms, "action"):
            yield describe(
                f"{source.where}, action column {transforms.conventions.action.names[column]!r}",
                f"values from {low[column]:.6g} to {high[column]:.6g} as the policy sees them",
                f"{transforms.action_scaling.center[column]:.6g}, where the policy holds it, for "
                "it never moved in the policy's statistics",
                "Set policy.statistics to data, which lets it move.",
            )


def motion_remarks(episodes: Dataset, transforms: Transforms) -> list[str]:
    """What a person should know of columns that move in the data or in the statistics alone.

    Arguments and processes as of `held_motion_faults`.
    """
    return of_first_rank(lambda: [*_motion_remarks(episodes, transforms)])


def _motion_remarks(episodes: Dataset, transforms: Transforms) -> Iterator[str]:
    is_fitted = _is_fitted(episodes, transforms)
    states, actions = transforms.conventions.state.names, transforms.conventions.action.names
    for source in sources_of(episodes):
        low, high = _extent(source, transforms, "action")
        moved = [actions[i] for i in _beyond(low, high, transforms, "action")]
        if moved and is_fitted:
            yield (
                f"{source.where}: the action columns {moved} move here and are held all the same, "
                "for they never move where the policy's statistics come from"
            )
        if is_fitted:
            continue
        still = (high - low) / 2 < floor(
            np.maximum(np.abs(low), np.abs(high)),
            model_motions(transforms.config, transforms.conventions, "action"),
        )
        driven = [actions[i] for i in np.flatnonzero(still & ~transforms.action_scaling.is_held)]
        if driven:
            yield (
                f"{source.where}: the action columns {driven} never move here, and by the "
                "policy's statistics they do: it will move them by its error; policy.statistics "
                "data holds them"
            )
        unseen = _beyond(*_extent(source, transforms, "state"), transforms, "state")
        if unseen:
            yield (
                f"{source.where}: the state columns {[states[i] for i in unseen]} are 0 to the "
                "policy, for they never moved in its statistics, and here they do; "
                "policy.statistics data lets it see them"
            )


def _is_fitted(episodes: Dataset, transforms: Transforms) -> bool:
    """Whether the policy's statistics are of these data."""
    return statistics_basis(episodes).fingerprint == transforms.statistics.fingerprint


def _beyond(low: Rows, high: Rows, transforms: Transforms, part: Part) -> list[int]:
    """Held columns of which the data is farther from the constant than noise can be."""
    how = transforms.state_scaling if part == "state" else transforms.action_scaling
    reach = _ELSEWHERE * floor(
        np.abs(how.center), model_motions(transforms.config, transforms.conventions, part)
    )
    is_beyond = np.maximum(np.abs(low - how.center), np.abs(high - how.center)) > reach
    return np.flatnonzero(how.is_held & is_beyond).tolist()


def _extent(source: Source, transforms: Transforms, part: Part) -> tuple[Rows, Rows]:
    """Two float64[d], the extremes of each column as the policy sees it."""
    rows = [
        _model_extent(source.episodes[index], transforms, part)
        for index in range(len(source.episodes))
    ]
    low, high = zip(*rows, strict=True)
    return np.min(low, axis=0), np.max(high, axis=0)


def _model_extent(episode: Episode, transforms: Transforms, part: Part) -> tuple[Rows, Rows]:
    config, declared = transforms.config, transforms.conventions
    state = map_columns(episode.state(), config.state_maps, declared.state.names)
    if part == "state":
        return state.min(axis=0), state.max(axis=0)
    actions = map_columns(episode.actions(), config.action_maps, declared.action.names)
    low, high = actions.min(axis=0), actions.max(axis=0)
    for column, base in delta_pairs(config, declared):
        deltas = relative_to_start(
            actions[:, column], state[:, base], transforms.shape.action_horizon
        )
        low[column], high[column] = deltas.min(), deltas.max()
    return low, high
