"""Contact sheets: some frames of some episodes side by side, as training sees them."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from data_tools.conventions import Conventions
from data_tools.episode import Episode
from data_tools.errors import describe, nearest, raise_faults


def select_episodes(text: str | None, num_episodes: int, at_most: int) -> list[int]:
    """Places of the episodes to show, in order.

    Args:
        text: places and ranges, e.g. '0,3,5-8' (both ends included), or None for `at_most` spread
            evenly over the dataset, the first and the last among them.
        num_episodes: of the dataset.
        at_most: how many when `text` is None.

    Raises:
        UserError: a part is no place or range, or no such episode exists; every fault is named.
    """
    if text is None:
        return spread(num_episodes, at_most)
    places: dict[int, None] = {}
    faults: list[str] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?", part)
        if match is None:
            remedy = "Write places and ranges, like 0,3,5-8."
            faults.append(describe("--episodes", repr(part), "a number or a range", remedy))
            continue
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < num_episodes:
            expected = f"places from 0 to {num_episodes - 1}, the smaller one first"
            faults.append(describe("--episodes", repr(part), expected, "Correct it."))
            continue
        places.update(dict.fromkeys(range(first, last + 1)))
    raise_faults(faults)
    return list(places)


def select_cameras(text: str | None, conventions: Conventions) -> list[str]:
    """Names of the cameras to show; all when `text` is None.

    Raises:
        UserError: a camera of that name is not declared; the nearest name is given.
    """
    if text is None:
        return list(conventions.camera_names)
    names = [name.strip() for name in text.split(",")]
    faults = []
    for name in names:
        if name not in conventions.camera_names:
            hint = nearest(name, conventions.camera_names)
            expected = f"one of {list(conventions.camera_names)}"
            remedy = f"Correct the name{f'; {hint}' if hint else '.'}"
            faults.append(describe("--cameras", repr(name), expected, remedy))
    raise_faults(faults)
    return list(dict.fromkeys(names))


def spread(count: int, at_most: int) -> list[int]:
    """At most so many of 0 ... count - 1, evenly spaced, with both ends; the middle for one."""
    if count <= at_most:
        return list(range(count))
    if at_most == 1:
        return [count // 2]
    return [int(place) for place in np.linspace(0, count - 1, at_most).round()]


INK, MUTED, LINE, PAPER = "#1f2933", "#66788a", "#e1e7ed", "#ffffff"
DECLARED = "#1f6feb"


@cache
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib ships, so that sheets look the same on every machine."""
    name = font_manager.FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")
    return ImageFont.truetype(font_manager.findfont(name), size)


def fitted(text: str, face: ImageFont.FreeTypeFont, width: int) -> str:
    """The text on one line, cut with '...' where it is wider than so many pixels."""
    line = " ".join(printable(text).split())
    if face.getlength(line) <= width:
        return line
    while line and face.getlength(line + "...") > width:
        line = line[:-1]
    return line + "..."


def printable(text: str) -> str:
    """The text with whatever no font can draw (control characters) as '?'."""
    return "".join(letter if letter.isprintable() or letter.isspace() else "?" for letter in text)


def tile(frame: npt.NDArray[np.uint8], width: int) -> Image.Image:
    """The frame at this width: smooth where it shrinks, square pixels where it grows."""
    image = Image.fromarray(frame)
    height = max(1, round(frame.shape[0] * width / frame.shape[1]))
    grows = width > frame.shape[1]
    kind = Image.Resampling.NEAREST if grows else Image.Resampling.LANCZOS
    return image.resize((width, height), kind)


def draw_line(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    *,
    width: int,
    size: int = 13,
    color: str = INK,
    bold: bool = False,
) -> None:
    """One line of text with its upper left corner here, cut where it is wider than `width`."""
    face = font(size, bold=bold)
    draw.text(place, fitted(text, face, width), fill=color, font=face)


_MARGIN, _GAP = 20, 6
_CAMERA_WIDTH = 96  # of the column with the cameras' names
_TITLE_HEIGHT, _STEP_HEIGHT = 40, 18
_SHEET_WIDTH = 1600


@dataclass(frozen=True)
class Labelled:
    """An episode with its place in the dataset."""

    place: int
    episode: Episode


def contact_sheet(
    episodes: Iterable[Labelled],
    conventions: Conventions,
    cameras: Sequence[str],
    num_frames: int = 8,
) -> Image.Image:
    """One block an episode: a title, a row a camera, and evenly spaced frames from first to last.

    Frames are RGB and upright as `Episode.image` gives them.

    Args:
        episodes: shown from top to bottom.
        conventions: of the dataset, for the control rate.
        cameras: rows of each block.
        num_frames: columns.
    """
    width = (_SHEET_WIDTH - 2 * _MARGIN - _CAMERA_WIDTH - (num_frames - 1) * _GAP) // num_frames
    blocks = [_block(each, conventions, cameras, num_frames, width) for each in episodes]
    height = sum(block.height for block in blocks) + 2 * _MARGIN
    sheet = Image.new("RGB", (_SHEET_WIDTH, height), PAPER)
    top = _MARGIN
    for block in blocks:
        sheet.paste(block, (0, top))
        top += block.height
    return sheet


def describe_episode(episode: Episode, control_hz: float | None) -> str:
    """Length, duration and outcome in a few words: '42 steps, 2.1 s, success'."""
    words = [f"{episode.num_steps} steps"]
    if control_hz is not None:
        words.append(f"{episode.num_steps / control_hz:.1f} s")
    outcome = {True: "success", False: "failure", None: "outcome not recorded"}
    return ", ".join([*words, outcome[episode.is_success]])


def _block(
    each: Labelled, conventions: Conventions, cameras: Sequence[str], num_frames: int, width: int
) -> Image.Image:
    episode, hz = each.episode, conventions.control_hz
    steps = spread(episode.num_steps, num_frames)
    rows = [[tile(episode.image(camera, step), width) for step in steps] for camera in cameras]
    height = _TITLE_HEIGHT + _STEP_HEIGHT + sum(row[0].height + _GAP for row in rows) + 14
    block = Image.new("RGB", (_SHEET_WIDTH, height), PAPER)
    draw = ImageDraw.Draw(block)
    right = _SHEET_WIDTH - 2 * _MARGIN
    title = f"Episode {each.place}: {episode.instruction}"
    draw_line(draw, (_MARGIN, 0), title, width=right, size=16, bold=True)
    about = f"{describe_episode(episode, hz)}, {episode.name}"
    draw_line(draw, (_MARGIN, 21), about, width=right, size=12, color=MUTED)
    lefts = [_MARGIN + _CAMERA_WIDTH + column * (width + _GAP) for column in range(len(steps))]
    for left, step in zip(lefts, steps, strict=True):
        when = f"step {step}" + ("" if hz is None else f", {step / hz:.2f} s")
        draw_line(draw, (left, _TITLE_HEIGHT), when, width=width, size=12, color=MUTED)
    top = _TITLE_HEIGHT + _STEP_HEIGHT
    for camera, row in zip(cameras, rows, strict=True):
        draw_line(draw, (_MARGIN, top), camera, width=_CAMERA_WIDTH - 8, size=12)
        for left, image in zip(lefts, row, strict=True):
            block.paste(image, (left, top))
        top += row[0].height + _GAP
    draw.line((_MARGIN, height - 7, _SHEET_WIDTH - _MARGIN, height - 7), fill=LINE)
    return block
