"""robot-data: the commands that make new files out of robot data."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from data_tools.commands.options import (
    ExternalLinks,
    LayoutName,
    LocalPaths,
    Mask,
    Tolerance,
    notes_told,
    progress,
)
from data_tools.episode import Dataset
from data_tools.errors import UserError, describe, raise_faults
from data_tools.formats.lerobot.lerobot_options import LeRobotOptions
from data_tools.formats.reader import open_dataset
from data_tools.rewrite.convert import Format, LeRobotImages, lost_columns
from data_tools.rewrite.convert import convert as write_dataset
from data_tools.rewrite.edited import (
    Edit,
    EditedDataset,
    all_with,
    height_and_width,
    with_cameras,
    with_size,
)
from data_tools.rewrite.frame_storage import DEFAULT_QUALITY, Storage
from data_tools.rewrite.merge import merge as merge_files
from data_tools.rewrite.relabel import (
    ActionChange,
    GripperChange,
    sentences_of,
)
from data_tools.rewrite.relabel import relabel as relabelled
from data_tools.rewrite.repack import RepackSettings, copy_others, repacked_faults, targets_in
from data_tools.rewrite.repack import repack as repack_file
from data_tools.storage.files.paths import expand

app = typer.Typer(add_completion=False)

Out = Annotated[Path, typer.Argument(help="What to make; it must not exist yet.")]
Quality = Annotated[int, typer.Option(help="JPEG quality, 1 to 100; 95 is hard to tell apart.")]
To = Annotated[Format, typer.Option("--to", help="Format to write.")]


@app.command()
def repack(
    files: LocalPaths,
    out: Out,
    drop: Annotated[
        list[str],
        typer.Option(
            default_factory=list, show_default=False, help="A name to leave out, e.g. next_obs."
        ),
    ],
    images: Annotated[Storage, typer.Option(help="How frames are stored.")] = "jpeg",
    quality: Quality = DEFAULT_QUALITY,
) -> None:
    """Store any HDF5 file for random access: one frame a chunk; the tree stays as it is.

    Several files go into the folder OUT, in the folders they are in; of a folder, its other files
    (videos, sentences, sidecars) come along. Prints size and measured speed before and after. A
    killed or interrupted repack goes on when the same command is given again, after the last
    quarter gigabyte that was finished.
    """
    sources = expand(files).read
    is_folder = len(sources) > 1 or out.is_dir() or any(path.is_dir() for path in files)
    targets = targets_in(out, files, sources) if is_folder else {sources[0]: out}
    settings: RepackSettings = {"images": images, "quality": quality, "drop": drop}
    there = {source: target for source, target in targets.items() if is_folder and target.exists()}
    raise_faults(f for each in there.items() for f in repacked_faults(*each, settings))
    sys.stdout.writelines(copy_others(out, files, sources))
    for source, target in targets.items():
        if source in there:
            sys.stdout.write(f"{target}: there already\n")
            continue
        with progress(f"{source.name}, MB", unit=1e6) as advance, notes_told():
            done = repack_file(source, target, **settings, advance=advance)
        times = ""
        if done.before.frames_per_s and done.after.frames_per_s:
            times = f" ({done.after.frames_per_s / done.before.frames_per_s:.1f} times as fast)"
        sys.stdout.write(f"{target}: {done.before} before; {done.after} after{times}\n")


@app.command()
def convert(
    path: LocalPaths,
    out: Out,
    to: To,
    quality: Quality = DEFAULT_QUALITY,
    cameras: Annotated[str | None, typer.Option(help="Cameras to keep: front,wrist.")] = None,
    size: Annotated[
        str | None, typer.Option(help="Size of every frame: 224x224 (width x height).")
    ] = None,
    align: Annotated[
        int, typer.Option(min=-1000, max=1000, help="Pair observation t with action t + k.")
    ] = 0,
    images: Annotated[
        LeRobotImages, typer.Option(help="In LeRobot folders: video is lossy, png is not.")
    ] = "video",
    mask: Mask = None,
    layout: LayoutName = None,
    links: ExternalLinks = False,
    tolerance_s: Tolerance = None,
) -> None:
    """Write the episodes in another format.

    A killed or interrupted convert goes on after its last finished episode when the same command is
    given again; one to LeRobot, whose files hold many episodes, begins again.
    """
    dataset = open_dataset(
        path, mask=mask, layout=layout, allow_external_links=links, tolerance_s=tolerance_s
    )
    conventions = dataset.conventions
    if cameras is not None:
        conventions = with_cameras(conventions, cameras.split(","))
    if size is not None:
        conventions = with_size(conventions, *height_and_width(size))
    settings = {"cameras": cameras, "size": size, "align": align, "mask": mask, "layout": layout}
    edited = EditedDataset(dataset, all_with(dataset, Edit(align=align)), conventions)
    write_edited(edited, path, out, to, "convert", settings, quality, images)


@app.command()
def merge(files: LocalPaths, out: Out, layout: LayoutName = None) -> None:
    """Join files of data/demo_N episodes that declare the same into one."""
    dataset = open_dataset(files, layout=layout)
    with progress(f"{out.name}, episodes") as advance:
        merge_files(dataset, out, files, layout, advance)
    sys.stdout.write(f"{out}: {len(dataset)} episodes\n")


@app.command()
def relabel(
    path: LocalPaths,
    out: Out,
    pair: Annotated[
        list[str],
        typer.Option(
            default_factory=list,
            show_default=False,
            help="action=state column; those of one name if not given.",
        ),
    ],
    text: Annotated[str | None, typer.Option(help="One sentence for every episode.")] = None,
    attribute: Annotated[
        str | None, typer.Option(help="Attribute that holds the sentence.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Pattern with one group that finds the words in the file's name."),
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="JSON {name: text} or CSV name,text; pick.hdf5:data/demo_3.")
    ] = None,
    gripper: Annotated[
        GripperChange | None, typer.Option(help="binarize commands, or flip values and meaning.")
    ] = None,
    actions: Annotated[
        ActionChange | None, typer.Option(help="What the actions shall be relative to.")
    ] = None,
    to: To = "native",
    mask: Mask = None,
    layout: LayoutName = None,
    links: ExternalLinks = False,
) -> None:
    """Write the episodes with other sentences, gripper values or action references."""
    dataset = open_dataset(path, mask=mask, layout=layout, allow_external_links=links)
    given = {"text": text, "attribute": attribute, "name": name, "table": table}
    chosen = [option for option, value in given.items() if value is not None]
    if len(chosen) > 1 or not (chosen or gripper or actions):
        found = f"{chosen or 'nothing to change'}"
        remedy = f"Give one of {[f'--{option}' for option in given]}, --gripper or --actions."
        raise UserError(describe("relabel", found, "one source of sentences or a change", remedy))
    edited = relabelled(
        dataset,
        instructions=sentences_of(dataset, text, attribute, name, table),
        gripper=gripper,
        actions=actions,
        pairs=_pairs(pair) if pair else None,
    )
    settings: dict[str, object] = {"pair": pair, "gripper": gripper, "actions": actions}
    settings |= {option: str(given[option]) for option in chosen}
    settings |= {"mask": mask, "layout": layout}
    write_edited(edited, path, out, to, "relabel", settings)


def write_edited(
    dataset: Dataset,
    sources: list[Path],
    out: Path,
    to: Format,
    command: str,
    settings: Mapping[str, object],
    quality: int = DEFAULT_QUALITY,
    images: LeRobotImages = "video",
) -> None:
    """A new dataset with its provenance, and on stdout what was written and lost.

    Raises:
        UserError: the format cannot hold these episodes, or `out` exists.
    """
    raise_faults(_video_faults(dataset, to, images))
    with progress(f"{out.name}, episodes") as advance, notes_told():
        write_dataset(
            dataset,
            out,
            to,
            sources=sources,
            quality=quality,
            images=images,
            command=command,
            settings=settings,
            advance=advance,
        )
    sys.stdout.write(f"{out}: {len(dataset)} episodes as {to}\n")
    lost = lost_columns(dataset, to)
    if lost:
        sys.stdout.write(f"{out}: without the columns {', '.join(lost)}, which {to} cannot hold\n")


def _video_faults(dataset: Dataset, to: Format, images: LeRobotImages) -> list[str]:
    """Cameras whose frames make no video, with what to type instead."""
    if not to.startswith("lerobot"):
        return []
    options = LeRobotOptions(images=images)
    faults = options.camera_faults(dataset.conventions)
    remedy = "Use robot-data convert with --images png, or an even --size such as 224x224."
    return [f"{fault} {remedy}" for fault in faults]


def _pairs(given: list[str]) -> dict[str, str]:
    raise_faults(
        describe("--pair", repr(pair), "action=state", "Name a column of each, as in x=x.")
        for pair in given
        if pair.count("=") != 1
    )
    return dict(pair.split("=") for pair in given)
