"""Text and tiles of the sheets."""

from functools import cache

import numpy as np
import numpy.typing as npt
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

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
