"""The figures of a report, as self-contained SVG."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter

from policy_ft.evaluation.statistics import SuccessRate

INK, MUTED, GRID = "#1f2933", "#8593a3", "#e4e9ee"
PALETTE = ("#9fb1c4", "#1f6feb", "#d9b48f", "#c2570c", "#7a9e7e", "#2f7d4f")

_SIZE = (5.6, 3.5)  # inches
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "svg.hashsalt": "policy_ft",
}


def success_bars(rates: Mapping[str, SuccessRate]) -> str:
    """SVG text: one bar a label, its success rate in percent, with the 95 % Wilson interval."""
    with rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        heights = [100 * rate.success_rate for rate in rates.values()]
        below = [100 * (rate.success_rate - rate.low) for rate in rates.values()]
        above = [100 * (rate.high - rate.success_rate) for rate in rates.values()]
        colors = [PALETTE[index % len(PALETTE)] for index in range(len(rates))]
        places = range(len(rates))
        axes.bar(places, heights, width=0.58, color=colors)
        axes.errorbar(
            places, heights, yerr=[below, above], fmt="none", ecolor=INK, capsize=5, elinewidth=1.2
        )
        for place, rate in zip(places, rates.values(), strict=True):
            axes.annotate(
                f"{100 * rate.success_rate:.0f} %",
                (place, 100 * rate.high),
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
                weight="bold",
            )
        axes.set_xticks(places, [label.replace(", ", ",\n") for label in rates])
        axes.tick_params(axis="x", length=0)
        axes.set_yticks(range(0, 101, 20))
        axes.set_ylim(0, 112)
        axes.set_xlim(-0.6, len(rates) - 0.4)
        axes.set_ylabel("success (%)")
        return _svg(figure)


def loss_curves(
    rows: Sequence[Mapping[str, float | str]], kinds: Mapping[str, str], metric: str = "loss"
) -> str:
    """SVG text: a metric over train steps, one line a kind of row, on a logarithmic axis.

    Args:
        rows: lines of `metrics.jsonl`, each with `train_step` and `kind`.
        kinds: kind of row -> label of its line.
        metric: the value to draw.
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        for color, (kind, label) in zip((PALETTE[0], PALETTE[1]), kinds.items(), strict=False):
            points = [
                (float(row["train_step"]), float(row[metric]))
                for row in rows
                if row["kind"] == kind and metric in row
            ]
            steps, values = zip(*points, strict=True) if points else ((), ())
            marker = "o" if len(points) < 40 else ""
            axes.plot(
                steps, values, color=color, label=label, linewidth=1.6, marker=marker, markersize=3
            )
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.yaxis.set_minor_formatter(FormatStrFormatter("%.1g"))
        axes.grid(which="minor", axis="y")
        axes.set_xlabel("train step")
        axes.set_ylabel("flow-matching loss")
        axes.legend()
        return _svg(figure)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()
