"""One HTML file that tells what a run achieved; it opens offline and fetches nothing."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_tools.view.html_pages import page_environment
from policy_ft.evaluation.statistics import PairedComparison, SuccessRate


@dataclass(frozen=True)
class Video:
    """One filmed episode: a caption, whether it succeeded, and the MP4 file's bytes."""

    caption: str
    is_success: bool
    mp4: bytes


@dataclass(frozen=True)
class Table:
    """A titled table of text cells."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Report:
    """What a report page shows, from top to bottom.

    Attributes:
        title: the page's heading.
        summary: the result in one or two sentences.
        rates: label -> success rate, one tile each.
        comparison: the paired comparison of two policies on the same seeds.
        compared: names of the first and the second policy of the comparison.
        figures: caption -> SVG text.
        tables: further tables.
        videos: filmed episodes by group title.
        settings: the run's settings as YAML text.
        provenance: name -> value: command, versions, hashes, durations.
    """

    title: str
    summary: str
    rates: Mapping[str, SuccessRate]
    comparison: PairedComparison
    compared: tuple[str, str]
    figures: Mapping[str, str]
    tables: Sequence[Table] = ()
    videos: Mapping[str, Sequence[Video]] = field(default_factory=dict)
    settings: str = ""
    provenance: Mapping[str, str] = field(default_factory=dict)


def render_report(report: Report) -> str:
    """The page as HTML text, figures and videos inside it; every text put into it is escaped."""
    environment = page_environment("policy_ft", "evaluation")
    environment.filters["svg_uri"] = lambda svg: _data_uri("image/svg+xml", svg.encode())
    environment.filters["mp4_uri"] = lambda mp4: _data_uri("video/mp4", mp4)
    environment.filters["percent"] = lambda share: f"{100 * share:.0f}"
    return environment.get_template("report.html.j2").render(
        report=report, verdict=verdict(report.comparison, report.compared)
    )


def write_report(report: Report, path: Path) -> None:
    """Write the page to `path`."""
    path.write_text(render_report(report), encoding="utf-8")


def verdict(comparison: PairedComparison, compared: tuple[str, str]) -> str:
    """One sentence: whether the policies differ by more than chance would explain."""
    first, second = compared
    points = 100 * comparison.difference
    interval = f"95 % interval {100 * comparison.low:+.0f} to {100 * comparison.high:+.0f}"
    p = "p < 0.0001" if comparison.p_value < 1e-4 else f"p = {comparison.p_value:.4f}"
    if not comparison.is_significant:
        return (
            f"The {second} policy and the {first} policy differ by {points:+.0f} points "
            f"({interval}, {p}): not more than chance explains."
        )
    word = "better" if points > 0 else "worse"
    return (
        f"The {second} policy is {word} than the {first} policy by {abs(points):.0f} points "
        f"({interval}, {p})."
    )


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
