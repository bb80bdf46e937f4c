"""Sheets of frames: some of some episodes as training sees them, or one in all eight ways.

Nothing in an array says which way is up or which channel is red; a person sees it at once.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from data_tools.conventions import CameraSpec, Conventions
from data_tools.episode import Episode
from data_tools.errors import describe, nearest, raise_faults
from data_tools.storage.frames.images import to_rgb_upright


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


Frame = npt.NDArray[np.uint8]
ColorOrder = Literal["rgb", "bgr"]

_TILE, _EDGE, _BETWEEN, _FRAME = 300, 24, 22, 5
_COLOR_ORDERS: Final[tuple[ColorOrder, ...]] = ("rgb", "bgr")
# Declared value -> what it does to a stored frame. No declaration mirrors left and right: a frame
# that is right only there was turned once too often on its way to the disk.
_ORIENTATIONS: Final = {
    "upright": "as stored",
    "flipped_vertical": "top and bottom exchanged",
    "rotated_180": "turned by half a turn",
    "mirrored": "left and right exchanged",
}
_ADVICE: Final = (
    "The framed picture, if there is one, is declared and what training sees. It must look like "
    "the scene: things stand on the table,",
    "writing reads from left to right, skin and wood are warm and not blue, the robot's left is on "
    "its left. If another one does, declare",
    "what is written below that one.",
)


def declaration_sheet(episode: Episode, cameras: Sequence[str], step: int) -> Image.Image:
    """For each camera one stored frame read in two colour orders and four orientations.

    The way that is declared, which is what `Episode.image` gives, has a frame around it; below each
    other one stands what to declare if that is the right one. Where the orientation is unknown,
    none has.
    """
    parts = [_camera_part(episode, camera, step) for camera in cameras]
    top = _EDGE + 96
    width = 2 * _EDGE + 4 * _TILE + 3 * _BETWEEN
    sheet = Image.new("RGB", (width, top + sum(part.height for part in parts)), PAPER)
    draw = ImageDraw.Draw(sheet)
    room = width - 2 * _EDGE
    title = "Which of these is the scene?"
    draw_line(draw, (_EDGE, _EDGE), title, width=room, size=20, bold=True)
    for line, text in enumerate(_ADVICE):
        draw_line(draw, (_EDGE, _EDGE + 30 + 18 * line), text, width=room, size=13)
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet


def read_as(stored: Frame, color_order: ColorOrder, orientation: str) -> Frame:
    """uint8[y, x, 3]: a stored frame as it is delivered under this declaration.

    Args:
        stored: uint8[y, x, 3] as it lies on the disk.
        color_order: 'rgb' or 'bgr'.
        orientation: of `CameraSpec`, or 'mirrored', which none may declare.
    """
    frame = stored if color_order == "rgb" else stored[:, :, ::-1]
    match orientation:
        case "flipped_vertical":
            frame = frame[::-1]
        case "rotated_180":
            frame = frame[::-1, ::-1]
        case "mirrored":
            frame = frame[:, ::-1]
    return np.ascontiguousarray(frame)


def as_stored(delivered: Frame, camera: CameraSpec) -> Frame:
    """uint8[y, x, 3]: the frame on the disk that reads as `delivered`; each turn undoes itself."""
    return to_rgb_upright(delivered, camera)


def _camera_part(episode: Episode, camera: str, step: int) -> Image.Image:
    declared = episode.stored_frames(camera).camera
    stored = as_stored(episode.image(camera, step), declared)
    height = tile(stored, _TILE).height
    row_height = height + 44
    width = 2 * _EDGE + 4 * _TILE + 3 * _BETWEEN
    part = Image.new("RGB", (width, 54 + 2 * row_height + 10), PAPER)
    draw = ImageDraw.Draw(part)
    title = (
        f"{camera}: declared color_order {declared.color_order}, orientation {declared.orientation}"
    )
    draw_line(draw, (_EDGE, 6), title, width=width - 2 * _EDGE, size=16, bold=True)
    where = f"{declared.width} x {declared.height} pixels, step {step} of {episode.name}"
    draw_line(draw, (_EDGE, 28), where, width=width - 2 * _EDGE, size=12, color=MUTED)
    for row, color_order in enumerate(_COLOR_ORDERS):
        for column, (orientation, meaning) in enumerate(_ORIENTATIONS.items()):
            left, top = _EDGE + column * (_TILE + _BETWEEN), 54 + row * row_height
            is_declared = (declared.color_order, declared.orientation) == (color_order, orientation)
            if is_declared:
                box = (left - _FRAME, top - _FRAME, left + _TILE + _FRAME - 1, top + height + 40)
                draw.rectangle(box, fill=DECLARED)
            part.paste(tile(read_as(stored, color_order, orientation), _TILE), (left, top))
            ink, note = (PAPER, PAPER) if is_declared else (INK, MUTED)
            words = _caption(color_order, orientation, is_declared)
            draw_line(draw, (left, top + height + 3), words, width=_TILE, color=ink, bold=True)
            about = f"{color_order.upper()}, {meaning}"
            draw_line(draw, (left, top + height + 20), about, width=_TILE, size=12, color=note)
    return part


def _caption(color_order: str, orientation: str, is_declared: bool) -> str:
    if is_declared:
        return "DECLARED: what training sees"
    if orientation == "mirrored":
        return "no declaration: convert the frames"
    return f"{color_order}, {orientation}"
