"""A sheet that makes a wrong colour order or orientation obvious: one frame in all eight ways.

Nothing in an array says which way is up or which channel is red; a person sees it at once.
"""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from data_tools.conventions import CameraSpec
from data_tools.episode import Episode
from data_tools.storage.frames.images import to_rgb_upright
from data_tools.view.contact_sheet import DECLARED, INK, MUTED, PAPER, draw_line, tile

Frame = npt.NDArray[np.uint8]
ColorOrder = Literal["rgb", "bgr"]

_TILE, _MARGIN, _GAP, _FRAME = 300, 24, 22, 5
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
    top = _MARGIN + 96
    width = 2 * _MARGIN + 4 * _TILE + 3 * _GAP
    sheet = Image.new("RGB", (width, top + sum(part.height for part in parts)), PAPER)
    draw = ImageDraw.Draw(sheet)
    room = width - 2 * _MARGIN
    title = "Which of these is the scene?"
    draw_line(draw, (_MARGIN, _MARGIN), title, width=room, size=20, bold=True)
    for line, text in enumerate(_ADVICE):
        draw_line(draw, (_MARGIN, _MARGIN + 30 + 18 * line), text, width=room, size=13)
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
    width = 2 * _MARGIN + 4 * _TILE + 3 * _GAP
    part = Image.new("RGB", (width, 54 + 2 * row_height + 10), PAPER)
    draw = ImageDraw.Draw(part)
    title = (
        f"{camera}: declared color_order {declared.color_order}, orientation {declared.orientation}"
    )
    draw_line(draw, (_MARGIN, 6), title, width=width - 2 * _MARGIN, size=16, bold=True)
    where = f"{declared.width} x {declared.height} pixels, step {step} of {episode.name}"
    draw_line(draw, (_MARGIN, 28), where, width=width - 2 * _MARGIN, size=12, color=MUTED)
    for row, color_order in enumerate(_COLOR_ORDERS):
        for column, (orientation, meaning) in enumerate(_ORIENTATIONS.items()):
            left, top = _MARGIN + column * (_TILE + _GAP), 54 + row * row_height
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
