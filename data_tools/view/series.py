"""The columns of state and actions as curves: what each is called, its unit, limits and range."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_tools.conventions import Conventions
from data_tools.episode import Episode


@dataclass(frozen=True)
class Series:
    """One column of the state or the actions.

    Attributes:
        part: 'state' or 'action'.
        name: the column's declared name.
        unit: its declared unit.
        about: what the number is relative to; '' for a state.
        limits: declared smallest and largest legal value, infinite where none is known.
        marks: what a gripper's values mean, e.g. {'open': -1.0, 'closed': 1.0}.
        band: 1 % and 99 % quantile over the episodes shown; NaN where no number is finite.
        extent: smallest and largest finite value over the episodes shown.
    """

    part: str
    name: str
    unit: str
    about: str
    limits: tuple[float, float]
    marks: dict[str, float]
    band: tuple[float, float]
    extent: tuple[float, float]

    @property
    def drawn_range(self) -> tuple[float, float]:
        """What an axis shows: all values with a margin, and the limits that are not far away."""
        low, high = self.extent if math.isfinite(self.extent[0]) else (0.0, 1.0)
        span = max(high - low, 1e-6 * max(abs(low), abs(high), 1e-3))
        near = [x for x in (*self.limits, *self.marks.values()) if low - span <= x <= high + span]
        bottom, top = min([low, *near]), max([high, *near])
        margin = 0.06 * max(top - bottom, span)
        return bottom - margin, top + margin


def column_series(conventions: Conventions, episodes: Sequence[Episode]) -> list[Series]:
    """Every state column, then every action column, with ranges over these episodes."""
    state, action = conventions.state, conventions.action
    stacked = np.concatenate([column_values(episode) for episode in episodes])
    marks = {
        gripper.column: {"open": gripper.open_value, "closed": gripper.closed_value}
        for gripper in action.grippers
    }
    unlimited = (-math.inf, math.inf)
    headers = [
        *(
            ("state", name, unit, "", unlimited, {})
            for name, unit in zip(state.names, state.units, strict=True)
        ),
        *(
            ("action", name, unit, reference, limits, marks.get(name, {}))
            for name, unit, reference, limits in zip(
                action.names,
                action.units,
                action.references,
                zip(action.low, action.high, strict=True),
                strict=True,
            )
        ),
    ]
    return [Series(*header, *_ranges(stacked[:, column])) for column, header in enumerate(headers)]


def column_values(episode: Episode) -> npt.NDArray[np.float32]:
    """float32[t, s + a]: state columns, then action columns."""
    return np.concatenate([episode.state(), episode.actions()], axis=1)


def _ranges(values: npt.NDArray[np.float32]) -> tuple[tuple[float, float], tuple[float, float]]:
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return (math.nan, math.nan), (math.nan, math.nan)
    low, high = np.quantile(finite, (0.01, 0.99))
    return (float(low), float(high)), (float(finite.min()), float(finite.max()))
