"""One curve a column and episode, with units, declared limits, grippers and usual ranges.

The columns of state and actions as curves: what each is called, its unit, limits and range.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from data_tools.conventions import Conventions
from data_tools.episode import Episode
from data_tools.view.sheets import INK, LINE, MUTED, Labelled, fitted, font, printable


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


PALETTE: Final = (
    "#1f6feb", "#c2570c", "#2f7d4f", "#8250df", "#b3401f", "#0f8b8d", "#a37200", "#596673",
)  # fmt: skip
_PLOTS_A_ROW: Final = 3
_BAND_COLOR: Final = "#dfe8f3"
_LIMIT_COLOR: Final = "#b3401f"
_STYLE: Final[dict[Any, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


def plot_columns(episodes: Sequence[Labelled], conventions: Conventions) -> Figure:
    """A figure with one plot for each state and action column and one curve for each episode.

    The shaded band holds 98 % of the column's values in these episodes; dashed lines are declared
    limits, drawn where they are near the values; dotted lines say which value opens a gripper.
    """
    series = column_series(conventions, [each.episode for each in episodes])
    values = [column_values(each.episode) for each in episodes]
    groups = [
        [index for index, each in enumerate(series) if each.part == part]
        for part in ("state", "action")
    ]
    rows = [math.ceil(len(group) / _PLOTS_A_ROW) for group in groups]
    height = 1.95 * sum(rows) + 0.55 + 0.3 * len(rows)
    with rc_context(_STYLE):
        figure = Figure(figsize=(13, height), layout="constrained", dpi=100)
        ratios = [max(row, 0.1) for row in rows]
        parts = figure.subfigures(2, 1, squeeze=False, height_ratios=ratios)[:, 0]
        for part, title, group, row in zip(parts, ("State", "Actions"), groups, rows, strict=True):
            part.suptitle(title, x=0.012, ha="left", weight="bold", fontsize=12)
            grid = part.subplots(max(row, 1), _PLOTS_A_ROW, squeeze=False)
            for place, axes in enumerate(grid.flat):
                if place >= len(group):
                    axes.set_axis_off()
                    continue
                index = group[place]
                curves = [each[:, index] for each in values]
                _draw(axes, series[index], curves, conventions.control_hz)
        figure.legend(handles=_legend(episodes), loc="outside upper left", ncols=4, fontsize=8.5)
        return figure


def _draw(axes: Axes, series: Series, curves: Sequence[Any], control_hz: float | None) -> None:
    if math.isfinite(series.band[0]):
        axes.axhspan(*series.band, color=_BAND_COLOR, linewidth=0, zorder=0)
    bottom, top = series.drawn_range
    for limit in series.limits:
        if bottom <= limit <= top:
            axes.axhline(limit, color=_LIMIT_COLOR, linestyle="--", linewidth=1)
    for word, value in series.marks.items():
        if bottom <= value <= top:
            axes.axhline(value, color=MUTED, linestyle=":", linewidth=1)
            axes.annotate(
                word, (1, value), xycoords=("axes fraction", "data"), xytext=(-3, 0),
                textcoords="offset points", ha="right", va="center", fontsize=8, color=INK,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8},
            )  # fmt: skip
    for color, curve in zip(_colors(len(curves)), curves, strict=True):
        steps = np.arange(len(curve)) / (control_hz or 1.0)
        marker = "." if len(curve) == 1 else ""
        axes.plot(steps, curve, color=color, linewidth=1.1, alpha=0.9, marker=marker)
    axes.set_ylim(bottom, top)
    axes.margins(x=0.01)
    axes.set_xlabel("step" if control_hz is None else "time (s)", fontsize=8, labelpad=1)
    about = ", ".join(part for part in (series.unit, series.about) if part)
    title = fitted(f"{series.name} [{about}]", font(9), 330)
    axes.set_title(title, loc="left", fontsize=9)


def _legend(episodes: Sequence[Labelled]) -> list[Line2D | Patch]:
    lines: list[Line2D | Patch] = [
        Line2D([], [], color=color, label=_line_label(each))
        for color, each in zip(_colors(len(episodes)), episodes, strict=True)
    ]
    return [
        *lines,
        Patch(color=_BAND_COLOR, label="98 % of the values"),
        Line2D([], [], color=_LIMIT_COLOR, linestyle="--", linewidth=1, label="declared limit"),
    ]


def _line_label(each: Labelled) -> str:
    # A label that begins with an underscore would be left out of the legend.
    return fitted(f"episode {each.place}: {printable(each.episode.instruction)}", font(9), 250)


def _colors(count: int) -> list[str]:
    return [PALETTE[place % len(PALETTE)] for place in range(count)]
