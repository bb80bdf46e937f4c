"""One HTML file that shows a dataset; it opens offline, fetches nothing and runs one script."""

import base64
import hashlib
import io
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

import numpy as np
import simplejpeg
from PIL import Image

from data_tools.conventions import Conventions
from data_tools.episode import Dataset, Episode
from data_tools.errors import UserError, describe
from data_tools.finding import Finding
from data_tools.view.html_pages import page_environment
from data_tools.view.plots import PALETTE, Series, column_series, column_values
from data_tools.view.sheets import Labelled, declaration_sheet, describe_episode, spread, tile

MAX_FRAMES: Final = 60  # an episode and camera
MAX_FRAME_SIDE: Final = 320
MAX_POINTS: Final = 160  # a curve
MAX_ROWS: Final = 200  # a table
PLOT_WIDTH, PLOT_HEIGHT = 300, 74
_QUALITY: Final = 80


@dataclass(frozen=True)
class Plot:
    """A curve in a box of 300 x 74: x from the first step to the last, y downwards."""

    series: Series
    color: str
    lines: tuple[str, ...]
    band: tuple[float, float] | None
    limits: tuple[float, ...]
    marks: dict[str, float]
    bottom: str
    top: str


@dataclass(frozen=True)
class Player:
    """One episode as the page shows it; `data` is what the script moves along."""

    place: int
    title: str
    about: str
    name: str
    plots: tuple[Plot, ...]
    data: dict[str, object]


def render_page(
    dataset: Dataset,
    title: str,
    episodes: Sequence[Labelled],
    cameras: Sequence[str],
    *,
    findings: Sequence[Finding] | None = None,
    max_bytes: int = 12_000_000,
    on_episode: Callable[[], None] = lambda: None,
) -> str:
    """The page as HTML text of at most `max_bytes`; every text put into it is escaped.

    Frames are scaled to at most 320 pixels a side; as many evenly spaced ones of each episode are
    kept as the size allows, 60 at most.

    Args:
        dataset: what the tables describe.
        title: the page's heading.
        episodes: those with frames and curves.
        cameras: those whose frames are shown.
        findings: of `robot-data validate`, None when it was not asked.
        max_bytes: bound on the page's size.
        on_episode: called after each episode.

    Raises:
        UserError: not even one frame an episode fits the size.
    """
    num_frames = _affordable_frames(episodes, cameras, max_bytes)
    while True:
        page = _render(dataset, title, episodes, cameras, findings, num_frames, on_episode)
        size = len(page.encode())
        if size <= max_bytes:
            return page
        if num_frames == 1:
            found, expected = f"{size / 1e6:.1f} MB", f"at most {max_bytes / 1e6:.1f} MB"
            remedy = "Choose fewer episodes or cameras, or allow a larger page (--max-mb)."
            raise UserError(describe("the page", found, expected, remedy))
        num_frames = max(1, int(num_frames * 0.9 * max_bytes / size))


def _render(
    dataset: Dataset,
    title: str,
    episodes: Sequence[Labelled],
    cameras: Sequence[str],
    findings: Sequence[Finding] | None,
    num_frames: int,
    on_episode: Callable[[], None],
) -> str:
    environment = page_environment("data_tools", "view")
    script = (files("data_tools.view") / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    series = column_series(dataset.conventions, [each.episode for each in episodes])
    players = []
    for each in episodes:
        players.append(_player(each, dataset.conventions, cameras, series, num_frames))
        on_episode()
    every = [dataset[index] for index in range(len(dataset))]
    texts = Counter(episode.instruction for episode in every)
    return environment.get_template("page.html.j2").render(
        title=title,
        script=script,
        script_digest=digest,
        conventions=dataset.conventions,
        stored=[every[0].stored_frames(name) for name in cameras],
        declaration=_sheet_uri(episodes[0].episode, cameras) if cameras else "",
        totals=_totals(every, dataset.conventions),
        instructions=texts.most_common(MAX_ROWS),
        num_instructions=len(texts),
        episodes=[(place, _about(each, dataset)) for place, each in enumerate(every[:MAX_ROWS])],
        num_episodes=len(every),
        findings=None if findings is None else findings[:MAX_ROWS],
        num_findings=0 if findings is None else len(findings),
        players=players,
        shown={player.place for player in players},
        plot_width=PLOT_WIDTH,
        plot_height=PLOT_HEIGHT,
    )


def _affordable_frames(episodes: Sequence[Labelled], cameras: Sequence[str], max_bytes: int) -> int:
    """How many frames of each episode and camera fit, judged by the middle ones."""
    if not cameras:
        return MAX_FRAMES
    middle = sum(
        len(_frame(each.episode, camera, each.episode.num_steps // 2))
        for each in episodes
        for camera in cameras
    )
    return min(MAX_FRAMES, max(1, int(0.9 * max_bytes / middle)))


def _player(
    each: Labelled,
    conventions: Conventions,
    cameras: Sequence[str],
    series: Sequence[Series],
    num_frames: int,
) -> Player:
    episode, hz = each.episode, conventions.control_hz
    steps = spread(episode.num_steps, num_frames)
    values = column_values(episode)
    data = {
        "steps": steps,
        "lastStep": max(episode.num_steps - 1, 1),
        "times": None if hz is None else [round(step / hz, 3) for step in steps],
        "frames": {name: [_frame(episode, name, step) for step in steps] for name in cameras},
        "values": [[_rounded(value) for value in values[step]] for step in steps],
    }
    return Player(
        place=each.place,
        title=episode.instruction,
        about=describe_episode(episode, hz),
        name=episode.name,
        plots=tuple(_plot(each, values[:, i]) for i, each in enumerate(series)),
        data=data,
    )


def _plot(series: Series, values: np.ndarray) -> Plot:
    bottom, top = series.drawn_range

    def height(value: float) -> float:
        return round(PLOT_HEIGHT * (1 - (value - bottom) / (top - bottom)), 2)

    band = series.band
    return Plot(
        series=series,
        color=PALETTE[0] if series.part == "state" else PALETTE[1],
        lines=tuple(_polylines(values, height)),
        band=None if math.isnan(band[0]) else (height(band[1]), height(band[0]) - height(band[1])),
        limits=tuple(height(each) for each in series.limits if bottom <= each <= top),
        marks={w: height(each) for w, each in series.marks.items() if bottom <= each <= top},
        bottom=f"{bottom:.3g}",
        top=f"{top:.3g}",
    )


def _polylines(values: np.ndarray, height: Callable[[float], float]) -> list[str]:
    """SVG points of each run of finite values; one point becomes a short dash."""
    last = max(len(values) - 1, 1)
    runs: list[list[str]] = [[]]
    for step in spread(len(values), MAX_POINTS):
        if math.isfinite(values[step]):
            x = round(PLOT_WIDTH * step / last, 1)
            runs[-1].append(f"{x},{height(float(values[step]))}")
        elif runs[-1]:
            runs.append([])
    return [" ".join(run if len(run) > 1 else [*run, *run]) for run in runs if run]


def _frame(episode: Episode, camera: str, step: int) -> str:
    """A frame as the text of a JPEG's base64, at most 320 pixels a side."""
    frame = episode.image(camera, step)
    longest = max(frame.shape[:2])
    if longest > MAX_FRAME_SIDE:
        frame = np.asarray(tile(frame, round(frame.shape[1] * MAX_FRAME_SIDE / longest)))
    jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(frame), quality=_QUALITY, colorspace="RGB")
    return base64.b64encode(jpeg).decode("ascii")


def _sheet_uri(episode: Episode, cameras: Sequence[str]) -> str:
    sheet = declaration_sheet(episode, cameras, episode.num_steps // 2)
    buffer = io.BytesIO()
    sheet.resize((sheet.width * 3 // 4, sheet.height * 3 // 4), Image.Resampling.LANCZOS).save(
        buffer, "JPEG", quality=82
    )
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _totals(every: Sequence[Episode], conventions: Conventions) -> dict[str, str]:
    num_steps = [episode.num_steps for episode in every]
    outcomes = Counter(episode.is_success for episode in every)
    totals = {
        "episodes": f"{len(every)}",
        "steps": f"{sum(num_steps):,}",
        "steps an episode": f"{min(num_steps)} to {max(num_steps)}",
        "cameras": f"{len(conventions.cameras)}",
        "state and action columns": f"{len(conventions.state.names)} and "
        f"{len(conventions.action.names)}",
        "success, failure, not recorded": f"{outcomes[True]}, {outcomes[False]}, {outcomes[None]}",
    }
    if conventions.control_hz is not None:
        minutes = sum(num_steps) / conventions.control_hz / 60
        totals["duration"] = f"{minutes:.1f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
        totals["control rate"] = f"{conventions.control_hz:g} Hz"
    return totals


def _about(episode: Episode, dataset: Dataset) -> dict[str, str]:
    return {
        "name": episode.name,
        "about": describe_episode(episode, dataset.conventions.control_hz),
        "instruction": episode.instruction,
    }


def _rounded(value: float) -> float | None:
    """Four digits, so that the page stays small; None, which JSON has, for what is not finite."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
