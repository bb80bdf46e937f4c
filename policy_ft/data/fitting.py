"""Transforms fitted to the training episodes: statistics of what the model will see."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from data_tools.episode import Dataset
from data_tools.stats import NormalizationStats, exact_stats
from policy_ft.config.transforms import TransformsConfig
from policy_ft.transforms import ModelShape, Statistics, Transforms, delta_pairs, restricted

Rows = npt.NDArray[Any]


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
    for. No image is read.

    Args:
        config: which cameras, normalization and delta actions.
        episodes: all demonstrations.
        indices: the training split.
        shape: of the model.
        tokenizer_json: the tokenizer as `tokenizers` serializes it.

    Raises:
        UserError: the parts do not fit one another; all faults at once.
    """
    conventions = restricted(episodes.conventions, config.cameras, "the data's conventions")
    chosen = [episodes[index] for index in indices]
    states = [episode.state() for episode in chosen]
    actions = [episode.actions() for episode in chosen]
    return Transforms(
        config=config,
        conventions=conventions,
        shape=shape,
        statistics=Statistics(
            fingerprint=episodes.fingerprint,
            state=exact_stats(np.concatenate(states)),
            actions=_action_stats(
                actions, states, dict(delta_pairs(config, conventions)), shape.action_horizon
            ),
        ),
        tokenizer_json=tokenizer_json,
    )


def _action_stats(
    actions: Sequence[Rows], states: Sequence[Rows], delta: dict[int, int], horizon: int
) -> NormalizationStats:
    """One column at a time: chunks of all columns at once would need horizon times the memory."""
    columns = []
    for column in range(actions[0].shape[1]):
        if column in delta:
            values = [
                _relative_to_start(action[:, column], state[:, delta[column]], horizon)
                for action, state in zip(actions, states, strict=True)
            ]
        else:
            values = [action[:, column] for action in actions]
        columns.append(exact_stats(np.concatenate(values)[:, None]))
    return _side_by_side(columns)


def _relative_to_start(targets: Rows, state: Rows, horizon: int) -> Rows:
    """float[n]: targets[t + i] - state[t] for every start t and every recorded step i."""
    steps = np.arange(len(targets))[:, None] + np.arange(horizon)
    recorded = steps < len(targets)
    chunks = targets[np.minimum(steps, len(targets) - 1)].astype(np.float64)
    return (chunks - state[:, None])[recorded]


def _side_by_side(columns: Sequence[NormalizationStats]) -> NormalizationStats:
    """The statistics of all columns; num_frames is that of the column with the fewest values."""
    joined: dict[str, Any] = {
        name: tuple(value for column in columns for value in getattr(column, name))
        for name in ("mean", "std", "min", "max", "q01", "q99")
    }
    return NormalizationStats(**joined, num_frames=min(column.num_frames for column in columns))
