"""convert: any dataset written in a format that another project reads."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, get_args

from data_tools.columns import fingerprint_with, widths
from data_tools.episode import Dataset, Episode
from data_tools.errors import UserError, describe, nearest, raise_faults
from data_tools.finite import nonfinite_values
from data_tools.formats.lerobot.lerobot_options import LeRobotOptions
from data_tools.formats.lerobot.write import write_lerobot
from data_tools.rewrite.demo_files import write_aloha, write_native, write_robomimic
from data_tools.rewrite.edited import stored_cameras
from data_tools.rewrite.frame_storage import DEFAULT_QUALITY, require_quality
from data_tools.rewrite.minari_files import write_minari
from data_tools.rewrite.provenance import Provenance, provenance, sidecar_for_copy
from data_tools.rewrite.unfinished import Advance, Unfinished, silently
from data_tools.storage.files.disk import flush_to_disk

Format = Literal["native", "robomimic", "aloha", "minari", "lerobot-v2.1", "lerobot-v3"]
LeRobotImages = Literal["video", "png"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
JPEG_FORMATS: Final[tuple[Format, ...]] = ("native", "minari")
COLUMN_FORMATS: Final[tuple[Format, ...]] = ("native", "lerobot-v2.1", "lerobot-v3")
DEMO_FORMATS: Final[tuple[Format, ...]] = ("native", "robomimic")


def convert(
    dataset: Dataset,
    target: Path,
    to: Format,
    *,
    sources: Iterable[str | Path] = (),
    quality: int = DEFAULT_QUALITY,
    images: LeRobotImages = "video",
    command: str = "convert",
    settings: Mapping[str, object] = MappingProxyType({}),
    advance: Advance = silently,
) -> Path:
    """The file or folder made: the dataset's episodes, in order, in another format.

    Images that are JPEG already keep their bytes in formats that hold JPEG (native, minari). A
    killed or interrupted convert goes on when it is called again, after the last whole episode; one
    to LeRobot, whose files hold many episodes, begins again. All of it goes on only from the same
    sources, sidecars and settings.

    Args:
        dataset: what to write, e.g. of `open_dataset`, or an `EditedDataset`.
        target: the file (native, robomimic) or folder (the others) to make.
        to: the format.
        sources: what the dataset was opened from, for the provenance; its files when not given.
        quality: of JPEG, 1 to 100, where native and minari files encode frames.
        images: how LeRobot folders keep frames; png is lossless.
        command: what the provenance calls this.
        settings: every setting that made the dataset what it is, for the provenance.
        advance: called with the episodes done and the episodes there are.

    Raises:
        UserError: the target exists, or a sidecar that would speak for it; the format is unknown or
            has no use for `images` or `quality`; an episode has no step left; a keep-file lets
            windows start at some steps of an episode only, which no format can say; a number is NaN
            or infinite, or a frame cannot be read.
    """
    _require_options(to, quality, images)
    raise_faults([*_empty_faults(dataset), *_partly_kept(dataset)])
    every = {
        "to": to,
        "quality": quality,
        "images": images,
        "fingerprint": fingerprint_with(dataset, dataset.columns),
        "stored": stored_cameras(dataset),
        **settings,
    }
    made = provenance(command, list(sources) or dataset.inspected.files, every)
    work = Unfinished(target, made)
    if to in DEMO_FORMATS:
        sidecar_for_copy(target, None, is_native=True)
    raise_faults(nonfinite_values(dataset))
    with work:
        whole = _write(dataset, to, work, made, quality, images, advance)
        return work.publish(whole)


def lost_columns(dataset: Dataset, to: Format) -> tuple[str, ...]:
    """Names of the columns that this format has no place for."""
    return () if to in COLUMN_FORMATS else dataset.columns


def _require_options(to: Format, quality: int, images: LeRobotImages) -> None:
    if to not in FORMATS:
        hint = nearest(str(to), FORMATS)
        remedy = f"Choose one of these{f'; {hint}' if hint else '.'}"
        raise UserError(describe("format", repr(to), f"one of {list(FORMATS)}", remedy))
    if images == "png" and not to.startswith("lerobot"):
        remedy = "Leave it out, or write a LeRobot folder."
        raise UserError(describe("images", f"'png' for {to}", "a LeRobot format", remedy))
    require_quality(quality)
    if quality != DEFAULT_QUALITY and to not in JPEG_FORMATS:
        remedy = "Leave it out: this format keeps no JPEG."
        expected = f"one of the formats {list(JPEG_FORMATS)}"
        raise UserError(describe("quality", f"{quality} for {to}", expected, remedy))


def _empty_faults(dataset: Dataset) -> list[str]:
    """Episodes that an edit left no step of."""
    remedy = "Leave it out first (robot-data filter --min-steps), or pair nearer steps."
    return [
        describe(dataset[index].name, "no step left", "at least one", remedy)
        for index in range(len(dataset))
        if dataset[index].num_steps == 0
    ]


def _partly_kept(dataset: Dataset) -> list[str]:
    """Episodes of which a keep-file allows only some steps; one fault stands for all."""
    remedy = "Write the kept steps only (robot-data filter --apply), or open it without the file."
    for index in range(len(dataset)):
        episode = dataset[index]
        if len(episode.starts()) != episode.num_steps:
            found = f"windows that start at {len(episode.starts())} of {episode.num_steps} steps"
            return [describe(episode.name, found, "all, for no format keeps that", remedy)]
    return []


def _write(
    dataset: Dataset,
    to: Format,
    work: Unfinished,
    made: Provenance,
    quality: int,
    images: LeRobotImages,
    advance: Advance,
) -> Path:
    match to:
        case "native":
            return write_native(dataset, work, made, quality, advance)
        case "robomimic":
            return write_robomimic(dataset, work, made, advance)
        case "aloha":
            return write_aloha(dataset, work, made, advance)
        case "minari":
            return write_minari(dataset, work, made, quality, advance)
        case "lerobot-v2.1":
            return _write_lerobot(
                dataset, LeRobotOptions(version="v2.1", images=images), work, made, advance
            )
        case "lerobot-v3":
            return _write_lerobot(
                dataset, LeRobotOptions(version="v3.0", images=images), work, made, advance
            )


def _write_lerobot(
    dataset: Dataset,
    options: LeRobotOptions,
    work: Unfinished,
    made: Provenance,
    advance: Advance,
) -> Path:
    def write(folder: Path) -> None:
        write_lerobot(
            folder, dataset.conventions, _told(dataset, advance), options, widths(dataset)
        )
        (folder / "provenance.json").write_text(json.dumps([made], indent=1), encoding="utf-8")
        flush_to_disk(folder / "provenance.json")

    return work.part("lerobot", write)


def _told(dataset: Dataset, advance: Advance) -> Iterator[Episode]:
    for index in range(len(dataset)):
        yield dataset[index]
        advance(index + 1, len(dataset))
