"""A contact sheet: some frames of some episodes, side by side, as training sees them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from data_tools.conventions import Conventions
from data_tools.episode import Episode
from data_tools.view.drawing import LINE, MUTED, PAPER, draw_line, tile
from data_tools.view.selection import spread

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
