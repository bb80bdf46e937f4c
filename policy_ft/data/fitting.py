"""Transforms fitted to the training episodes: statistics of what the model will see."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from data_tools.conventions import Conventions
from data_tools.episode import Dataset
from data_tools.formats.mapping.mapping import map_columns, map_faults
from data_tools.stats import NormalizationStats, exact_stats, side_by_side
from policy_ft.config.transforms import TransformsConfig
from policy_ft.errors import raise_faults
from policy_ft.ranks import of_first_rank
from policy_ft.transforms import ModelShape, Statistics, Transforms, delta_pairs, restricted

Rows = npt.NDArray[np.float64]


def fit_transforms(
    config: TransformsConfig,
    episodes: Dataset,
    indices: Sequence[int],
    *,
    shape: ModelShape,
    tokenizer_json: str,
) -> Transforms:
    """Transforms whose statistics come from these episodes alone: validation does not leak.

    States and most actions count every recorded step once. A delta action counts every step of
    every chunk, relative to the state at the chunk's start, because that is what the model is asked
    for. Mapped columns count as the model sees them. No image is read.

    Args:
        config: which cameras, column maps, normalization and delta actions.
        episodes: all demonstrations.
        indices: the training split.
        shape: of the model.
        tokenizer_json: the tokenizer as `tokenizers` serializes it.

    Raises:
        UserError: the parts do not fit one another; all faults at once.
    """
    conventions = restricted(episodes.conventions, config.camera_names, "the data's conventions")
    return Transforms(
        config=config,
        conventions=conventions,
        shape=shape,
        statistics=fit_statistics(config, conventions, episodes, indices, shape.action_horizon),
        tokenizer_json=tokenizer_json,
    )


def fit_statistics(
    config: TransformsConfig,
    conventions: Conventions,
    episodes: Dataset,
    indices: Sequence[int],
    action_horizon: int,
) -> Statistics:
    """The statistics of these episodes' states and actions, as the model sees them.

    Of several processes, which must all call this, the first computes, and tells the others.

    Args:
        config: column maps and delta actions.
        conventions: of the policy; the episodes' columns.
        episodes: all demonstrations.
        indices: the training split.
        action_horizon: steps of a chunk.

    Raises:
        UserError: a column map or a delta action is not of these columns; all faults at once.
    """
    return of_first_rank(
        partial(_statistics, config, conventions, episodes, indices, action_horizon)
    )


def _statistics(
    config: TransformsConfig,
    conventions: Conventions,
    episodes: Dataset,
    indices: Sequence[int],
    action_horizon: int,
) -> Statistics:
    state_names, action_names = conventions.state.names, conventions.action.names
    raise_faults(
        [
            *map_faults("transforms.state_maps", config.state_maps, state_names),
            *map_faults("transforms.action_maps", config.action_maps, action_names),
        ]
    )
    chosen = [episodes[index] for index in indices]
    states = [map_columns(each.state(), config.state_maps, state_names) for each in chosen]
    actions = [map_columns(each.actions(), config.action_maps, action_names) for each in chosen]
    return Statistics(
        fingerprint=episodes.fingerprint,
        state=exact_stats(np.concatenate(states)),
        actions=_action_stats(
            actions, states, dict(delta_pairs(config, conventions)), action_horizon
        ),
    )


def _action_stats(
    actions: Sequence[Rows], states: Sequence[Rows], delta: dict[int, int], horizon: int
) -> NormalizationStats:
    """One column at a time: chunks of all columns at once would need horizon times the memory."""
    columns = []
    for column in range(actions[0].shape[1]):
        if column in delta:
            values = [
                relative_to_start(action[:, column], state[:, delta[column]], horizon)
                for action, state in zip(actions, states, strict=True)
            ]
        else:
            values = [action[:, column] for action in actions]
        columns.append(exact_stats(np.concatenate(values)[:, None]))
    return side_by_side(columns)


def relative_to_start(targets: Rows, state: Rows, horizon: int) -> Rows:
    """float[n]: targets[t + i] - state[t] for every start t and every recorded step i."""
    steps = np.arange(len(targets))[:, None] + np.arange(horizon)
    recorded = steps < len(targets)
    chunks = targets[np.minimum(steps, len(targets) - 1)]
    return (chunks - state[:, None])[recorded]
