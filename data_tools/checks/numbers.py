"""Checks of one episode's actions, states and sentence."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from data_tools.conventions import Conventions
from data_tools.episode import Episode
from data_tools.finding import Finding
from data_tools.finite import nonfinite_columns

# 15 steps at the 50 Hz of ALOHA; in seconds, as a robot at 10 Hz is done in fewer steps.
SHORTEST_S: Final = 0.3
# Share of a column's legal range that float32 and a controller's rounding may use up.
RANGE_TOLERANCE: Final = 1e-3
INSTRUCTION_LENGTHS: Final = (3, 200)
PLACEHOLDERS: Final = {
    "test",
    "task",
    "todo",
    "do something",
    "instruction",
    "none",
    "n/a",
    "unknown",
}


def check_finite(episode: Episode, conventions: Conventions) -> Iterator[Finding]:
    """The first NaN or infinity of each column, with the number of them."""
    arrays = {
        "action": (episode.actions(), conventions.action.names),
        "state": (episode.state(), conventions.state.names),
    }
    for part, (array, names) in arrays.items():
        for column, step, count in nonfinite_columns(array):
            yield Finding(
                rule="not_finite",
                severity="error",
                where=episode.name,
                step=step,
                value=f"{part} {names[column]!r} = {array[step, column]} ({count} in the column)",
                threshold="finite numbers",
                remedy="Correct the values, or leave the episode out.",
            )


def check_action_range(episode: Episode, conventions: Conventions) -> Iterator[Finding]:
    """Columns with actions beyond the declared range, each at its worst step."""
    low, high = np.array(conventions.action.low), np.array(conventions.action.high)
    actions = episode.actions().astype(np.float64)
    beyond = np.maximum(actions - high, low - actions)
    # a range open to one side has no width to take a share of
    width = np.where(np.isfinite(high - low), high - low, 1.0)
    with np.errstate(invalid="ignore"):
        is_beyond = beyond > RANGE_TOLERANCE * width
    for column in np.flatnonzero(is_beyond.any(axis=0)).tolist():
        step = int(np.nanargmax(beyond[:, column]))
        yield Finding(
            rule="action_out_of_range",
            severity="error",
            where=episode.name,
            step=step,
            value=f"action {conventions.action.names[column]!r} = {actions[step, column]:g}",
            threshold=f"{low[column]:g} to {high[column]:g} as the conventions declare",
            remedy="Correct the declared range, or check the units of this column.",
        )


def check_length(episode: Episode, conventions: Conventions) -> Iterator[Finding]:
    """An episode too short to be a demonstration."""
    rate = conventions.known_control_hz("tell how long an episode lasts")
    if episode.num_steps / rate < SHORTEST_S:
        yield Finding(
            rule="short_episode",
            severity="warning",
            where=episode.name,
            value=f"{episode.num_steps} steps at {rate:g} Hz",
            threshold=f"at least {SHORTEST_S:g} s",
            remedy="Check that the recording was not cut off.",
        )


def check_instruction(episode: Episode) -> Iterator[Finding]:
    """A sentence that tells a policy nothing: too short, too long, or a placeholder."""
    text = episode.instruction.strip()
    shortest, longest = INSTRUCTION_LENGTHS
    if text.lower().strip(". ") in PLACEHOLDERS or not shortest <= len(text) <= longest:
        yield Finding(
            rule="instruction",
            severity="warning",
            where=episode.name,
            value=f"{text[:60]!r} ({len(text)} characters)",
            threshold=f"the task in {shortest} to {longest} characters",
            remedy="Say what the robot was asked to do.",
        )
