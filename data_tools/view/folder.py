"""view: the pictures of a dataset, written to a folder or to one file."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from PIL import Image, ImageDraw

from data_tools.episode import Dataset, Episode
from data_tools.errors import UserError, describe, nearest, raise_faults
from data_tools.finding import Finding
from data_tools.storage.files.disk import finished_file
from data_tools.storage.frames.videos import write_mp4
from data_tools.view.page import render_page
from data_tools.view.plots import plot_columns
from data_tools.view.sheets import (
    Labelled,
    contact_sheet,
    declaration_sheet,
    draw_line,
    select_cameras,
    select_episodes,
    tile,
)

UNKNOWN_RATE_HZ = 10.0

_CAMERA_HEIGHT, _BAND, _GAP = 320, 52, 4
_DARK, _LIGHT, _DIM = "#111418", "#ffffff", "#9fb1c4"


def write_video(
    episode: Episode, cameras: Sequence[str], control_hz: float | None, path: Path
) -> Iterator[int]:
    """Write an H.264 video that browsers play, one frame a step; yields each step when it is in.

    Args:
        episode: what is filmed.
        cameras: from left to right, each scaled to one height.
        control_hz: rate of the video, so that it shows the robot in real time; 10 frames a second
            where nobody knows.
        path: the file, whose name may end in anything.
    """
    pictures = (
        np.asarray(video_frame(episode, cameras, step, control_hz))
        for step in range(episode.num_steps)
    )
    return write_mp4(str(path), pictures, control_hz or UNKNOWN_RATE_HZ)


def video_frame(
    episode: Episode, cameras: Sequence[str], step: int, control_hz: float | None
) -> Image.Image:
    """RGB picture with even sides: a band of text above the cameras, at 320 rows each."""
    tiles = []
    for camera in cameras:
        frame = episode.image(camera, step)
        tiles.append(tile(frame, max(1, round(frame.shape[1] * _CAMERA_HEIGHT / frame.shape[0]))))
    width = max(sum(each.width for each in tiles) + _GAP * (len(tiles) - 1), 480)
    height = _BAND + max(each.height for each in tiles)
    picture = Image.new("RGB", (width + width % 2, height + height % 2), _DARK)
    draw = ImageDraw.Draw(picture)
    draw_line(draw, (8, 6), episode.instruction, width=width - 16, size=15, color=_LIGHT, bold=True)
    when = "at an unknown rate" if control_hz is None else f"{step / control_hz:.2f} s"
    count = f"step {step} of {episode.num_steps}, {when}: {', '.join(cameras)}"
    draw_line(draw, (8, 28), count, width=width - 16, size=13, color=_DIM)
    left = 0
    for each in tiles:
        picture.paste(each, (left, _BAND))
        left += each.width + _GAP
    return picture


ImageKind = Literal["contact", "declaration", "plots"]
Advance = Callable[[str], None]

IMAGE_SUFFIXES: Final = (".png", ".jpg", ".jpeg")
MAX_PLOTTED: Final = 8
MAX_ON_SHEET: Final = 6


@dataclass(frozen=True)
class View:
    """What is shown of a dataset.

    Attributes:
        dataset: the episodes.
        title: heading of the page.
        episodes: places and ranges, e.g. '0,3,5-8'; None for some spread over the dataset.
        cameras: names between commas; None for all.
        num_frames: columns of the contact sheet.
        findings: shown on the page, None when nobody looked.
        max_page_bytes: bound on the page's size.
        advance: called with what has just been done, for a progress bar.
    """

    dataset: Dataset
    title: str
    episodes: str | None = None
    cameras: str | None = None
    num_frames: int = 8
    findings: Sequence[Finding] | None = None
    max_page_bytes: int = 12_000_000
    advance: Advance = lambda done: None

    def write(
        self, out: Path, image: ImageKind = "contact", *, overwrite: bool = False
    ) -> list[Path]:
        """The files that were written: one by its ending, or all kinds into a folder.

        Args:
            out: a name that ends in .png, .jpg or .jpeg (`image` says which picture), .html (the
                page), .mp4 (a video of one episode), or in none of these: a folder for contact
                sheet, declaration sheet, plots, page and a video of the first episode shown.
            image: the picture for an image file.
            overwrite: whether existing files may be replaced.

        Raises:
            UserError: the name ends in something else, a file exists, a chosen episode or camera
                does not, or a frame does not decode; no file is begun for the first three.
        """
        makers = self._makers(out, image)
        if not overwrite:
            remedy = "Choose another name, or allow to replace it (--overwrite)."
            raise_faults(
                describe(str(path), "a file that exists already", "a new name", remedy)
                for path in makers
                if path.exists()
            )
        for path, make in makers.items():
            with finished_file(path, is_new=not overwrite) as partial:
                make(partial)
        return list(makers)

    def _makers(self, out: Path, image: ImageKind) -> dict[Path, Callable[[Path], None]]:
        """Each file to be written, and what writes it."""
        cameras = select_cameras(self.cameras, self.dataset.conventions)
        if out.suffix.lower() in IMAGE_SUFFIXES:
            self._require_cameras(out, image, cameras)
            return {out: self._image_maker(image, out.suffix, cameras)}
        if out.suffix == ".html":
            return {out: self._page_maker(cameras)}
        if out.suffix == ".mp4":
            self._require_cameras(out, "video", cameras)
            return {out: self._video_maker(out, cameras)}
        if out.suffix and not out.is_dir():
            raise UserError(_unknown_suffix(out))
        pictures: tuple[ImageKind, ...] = ("contact", "declaration", "plots")
        makers = {
            out / f"{kind}.png": self._image_maker(kind, ".png", cameras)
            for kind in pictures
            if cameras or kind == "plots"
        }
        makers[out / "index.html"] = self._page_maker(cameras)
        if cameras:
            first = self._chosen(1)[0] if self.episodes is None else self._chosen(0)[0]
            name = out / f"episode_{first.place}.mp4"
            makers[name] = lambda partial: self._film(first, cameras, partial)
        return makers

    def _chosen(self, at_most: int) -> list[Labelled]:
        places = select_episodes(self.episodes, len(self.dataset), at_most)
        return [Labelled(place, self.dataset[place]) for place in places]

    def _image_maker(
        self, kind: ImageKind, suffix: str, cameras: Sequence[str]
    ) -> Callable[[Path], None]:
        form = "PNG" if suffix.lower() == ".png" else "JPEG"
        chosen = self._chosen({"contact": MAX_ON_SHEET, "declaration": 1}.get(kind, MAX_PLOTTED))
        conventions = self.dataset.conventions

        def make(partial: Path) -> None:
            if kind == "plots":
                plot_columns(chosen, conventions).savefig(partial, format=form.lower())
            elif kind == "declaration":
                episode = chosen[0].episode
                sheet = declaration_sheet(episode, cameras, episode.num_steps // 2)
                sheet.save(partial, form, quality=92)
            else:
                contact_sheet(chosen, conventions, cameras, self.num_frames).save(
                    partial, form, quality=92
                )
            self.advance(kind)

        return make

    def _page_maker(self, cameras: Sequence[str]) -> Callable[[Path], None]:
        chosen = self._chosen(MAX_ON_SHEET)

        def make(partial: Path) -> None:
            page = render_page(
                self.dataset,
                self.title,
                chosen,
                cameras,
                findings=self.findings,
                max_bytes=self.max_page_bytes,
                on_episode=lambda: self.advance("page"),
            )
            partial.write_text(page, encoding="utf-8")

        return make

    def _video_maker(self, out: Path, cameras: Sequence[str]) -> Callable[[Path], None]:
        chosen = self._chosen(1)
        if len(chosen) != 1:
            found, remedy = f"{len(chosen)} episodes", "Name one with --episodes."
            raise UserError(describe(str(out), found, "one episode in a video", remedy))
        return lambda partial: self._film(chosen[0], cameras, partial)

    def _film(self, each: Labelled, cameras: Sequence[str], partial: Path) -> None:
        for _ in write_video(each.episode, cameras, self.dataset.conventions.control_hz, partial):
            self.advance("video")

    def _require_cameras(self, out: Path, kind: str, cameras: Sequence[str]) -> None:
        if not cameras and kind != "plots":
            remedy = "Ask for the plots (--image plots) or the page (.html)."
            raise UserError(describe(str(out), "data without cameras", "frames to show", remedy))


def _unknown_suffix(out: Path) -> str:
    known = [*IMAGE_SUFFIXES, ".html", ".mp4"]
    hint = nearest(out.suffix, known)
    remedy = f"Correct the ending{f'; {hint}' if hint else ', or give a folder.'}"
    expected = f"a folder, or a name that ends in one of {known}"
    return describe(str(out), f"the ending {out.suffix!r}", expected, remedy)
