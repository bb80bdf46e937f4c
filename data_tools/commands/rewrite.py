"""robot-data: the commands that make new files out of robot data."""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from data_tools.commands.options import LayoutName, LocalPaths, Mask, progress
from data_tools.episode import Dataset
from data_tools.errors import UserError, describe, nearest, raise_faults
from data_tools.files.disk import finished_file
from data_tools.files.paths import HDF5_SUFFIXES, expand
from data_tools.keep import keep_steps
from data_tools.reader import open_dataset
from data_tools.rewrite import filtering
from data_tools.rewrite.convert import DEFAULT_QUALITY, Format, LeRobotImages
from data_tools.rewrite.convert import convert as write_dataset
from data_tools.rewrite.edited import Edit, EditedDataset, all_with, with_cameras, with_size
from data_tools.rewrite.frame_storage import Storage
from data_tools.rewrite.merge import merge as merge_files
from data_tools.rewrite.relabel import (
    ActionChange,
    GripperChange,
    from_attribute,
    from_name,
    from_table,
)
from data_tools.rewrite.relabel import relabel as relabelled
from data_tools.rewrite.repack import repack as repack_file
from data_tools.rewrite.split import (
    DEFAULT_VALID,
    GROUP_ATTRIBUTES,
    write_split_keep,
    write_split_masks,
)
from data_tools.rewrite.split import split as choose_split
from data_tools.rewrite.unfinished import existing_faults

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
    killed repack goes on when the same command is given again; what is finished stays.
    """
    sources = expand(files)
    is_folder = len(sources) > 1 or out.is_dir() or any(path.is_dir() for path in files)
    above = [path for path in files if path.is_dir()] or [source.parent for source in sources]
    shared = Path(os.path.commonpath([folder.resolve() for folder in above]))
    for folder in filter(Path.is_dir, files):
        _copy_others(folder, out / folder.resolve().relative_to(shared), sources)
    for source in sources:
        target = out / source.resolve().relative_to(shared) if is_folder else out
        if is_folder and target.exists():
            sys.stdout.write(f"{target}: there already\n")
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with progress(f"{source.name}, MB", unit=1e6) as advance:
            done = repack_file(
                source, target, images=images, quality=quality, drop=drop, advance=advance
            )
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
    cameras: Annotated[str, typer.Option(help="Cameras to keep: front,wrist.")] = "",
    size: Annotated[str, typer.Option(help="Size of every frame: 224x224 (width x height).")] = "",
    align: Annotated[
        int, typer.Option(help="Pair the observation of step t with the action of step t + k.")
    ] = 0,
    images: Annotated[
        LeRobotImages, typer.Option(help="In LeRobot folders: video is lossy, png is not.")
    ] = "video",
    mask: Mask = None,
    layout: LayoutName = None,
) -> None:
    """Write the episodes in another format; a killed convert goes on when given again."""
    dataset = open_dataset(path, mask=mask, layout=layout)
    conventions = dataset.conventions
    if cameras:
        conventions = with_cameras(conventions, _camera_names(dataset, cameras))
    if size:
        conventions = with_size(conventions, *_height_and_width(size))
    settings = {"cameras": cameras, "size": size, "align": align, "mask": mask, "layout": layout}
    edited = EditedDataset(dataset, all_with(dataset, Edit(align=align)), conventions)
    _write(edited, path, out, to, "convert", settings, quality, images)


@app.command()
def split(
    path: LocalPaths,
    out: Out,
    group: Annotated[
        list[str],
        typer.Option(
            default_factory=lambda: list(GROUP_ATTRIBUTES),
            show_default=", ".join(GROUP_ATTRIBUTES),
            help="Attribute whose values must not be on both sides.",
        ),
    ],
    valid: Annotated[float, typer.Option(help="Fraction to validate on.")] = DEFAULT_VALID,
    seed: Annotated[int, typer.Option(help="Another seed, another choice.")] = 0,
    layout: LayoutName = None,
) -> None:
    """Choose episodes to validate on: a share of each task, and no scene on both sides.

    OUT ending in .hdf5 is a copy of the one file with mask/train and mask/valid; any other OUT is a
    folder of the keep-files train.json and valid.json.
    """
    dataset = open_dataset(path, layout=layout)
    parts = choose_split(dataset, valid, seed, group)
    if out.suffix in HDF5_SUFFIXES:
        files = expand(path)
        if len(files) > 1:
            found, remedy = f"{len(files)} files", "Merge them first, or give OUT as a folder."
            raise UserError(describe(str(out), found, "masks in one file", remedy))
        write_split_masks(dataset, parts, files[0], out)
    else:
        rule = f"split valid {valid}, seed {seed}, group {','.join(group)}"
        write_split_keep(dataset, parts, out, rule)
    sys.stdout.write(f"{out}: {len(parts.train)} episodes to train on, {len(parts.valid)} valid\n")


@app.command()
def merge(files: LocalPaths, out: Out, layout: LayoutName = None) -> None:
    """Join files of data/demo_N episodes that declare the same into one."""
    dataset = open_dataset(files, layout=layout)
    merge_files(dataset, out)
    sys.stdout.write(f"{out}: {len(dataset)} episodes\n")


@app.command("filter")
def filter_(
    path: LocalPaths,
    out: Out,
    noops: Annotated[
        filtering.NoopRule | None, typer.Option(help="Whose rule tells steps without motion.")
    ] = None,
    failures: Annotated[
        bool, typer.Option("--drop-failures", help="Leave out episodes judged a failure.")
    ] = False,
    min_steps: Annotated[int, typer.Option(help="Leave out shorter episodes.")] = 1,
    max_steps: Annotated[int | None, typer.Option(help="Leave out longer episodes.")] = None,
    max_mads: Annotated[
        float | None, typer.Option(help="Leave out lengths this many deviations off; 3 is usual.")
    ] = None,
    allow_most: Annotated[
        bool, typer.Option("--allow-most", help="Let a rule remove over half of an episode.")
    ] = False,
    apply: Annotated[
        bool, typer.Option("--apply", help="Write the kept steps to a new native file.")
    ] = False,
    mask: Mask = None,
    layout: LayoutName = None,
) -> None:
    """Choose the steps to train on; writes a keep-file, which the reader takes, unless --apply."""
    dataset = open_dataset(path, mask=mask, layout=layout)
    rules = filtering.Rules(noops, failures, min_steps, max_steps, max_mads, allow_most)
    kept = filtering.kept_steps(dataset, rules)
    total, left = sum(map(len, kept)), sum(int(steps.sum()) for steps in kept)
    if apply:
        edits = [
            (index, Edit(rows=np.flatnonzero(steps)))
            for index, steps in enumerate(kept)
            if steps.any()
        ]
        edited = EditedDataset(dataset, edits, dataset.conventions)
        settings = {**vars(rules), "mask": mask, "layout": layout}
        _write(edited, path, out, "native", "filter", settings)
    else:
        raise_faults(existing_faults(out))
        with finished_file(out) as partial:
            partial.write_text(keep_steps(dataset, kept, str(rules)).model_dump_json(indent=1))
    num_episodes = sum(bool(steps.any()) for steps in kept)
    sys.stdout.write(
        f"{out}: keeps {left} of {total} steps, {num_episodes} of {len(kept)} episodes\n"
    )


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
    text: Annotated[str, typer.Option(help="One sentence for every episode.")] = "",
    attribute: Annotated[str, typer.Option(help="Attribute that holds the sentence.")] = "",
    name: Annotated[
        str, typer.Option(help="Pattern with one group that finds the words in the file's name.")
    ] = "",
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
) -> None:
    """Write the episodes with other sentences, gripper values or action references."""
    dataset = open_dataset(path, mask=mask, layout=layout)
    given = {"text": text, "attribute": attribute, "name": name, "table": table}
    chosen = [option for option, value in given.items() if value]
    if len(chosen) > 1 or not (chosen or gripper or actions):
        found = f"{chosen or 'nothing to change'}"
        remedy = f"Give one of {[f'--{option}' for option in given]}, --gripper or --actions."
        raise UserError(describe("relabel", found, "one source of sentences or a change", remedy))
    edited = relabelled(
        dataset,
        instructions=_sentences(dataset, text, attribute, name, table),
        gripper=gripper,
        actions=actions,
        pairs=_pairs(pair) if pair else None,
    )
    settings: dict[str, object] = {"pair": pair, "gripper": gripper, "actions": actions}
    settings |= {option: str(given[option]) for option in chosen}
    settings |= {"mask": mask, "layout": layout}
    _write(edited, path, out, to, "relabel", settings)


def _write(
    dataset: Dataset,
    sources: list[Path],
    out: Path,
    to: Format,
    command: str,
    settings: Mapping[str, object],
    quality: int = DEFAULT_QUALITY,
    images: LeRobotImages = "video",
) -> None:
    with progress(f"{out.name}, episodes") as advance:
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


def _sentences(
    dataset: Dataset, text: str, attribute: str, name: str, table: Path | None
) -> list[str] | None:
    if text:
        return [text] * len(dataset)
    if attribute:
        return from_attribute(dataset, attribute)
    if name:
        return from_name(dataset, name)
    return from_table(dataset, table) if table else None


def _pairs(given: list[str]) -> dict[str, str]:
    raise_faults(
        describe("--pair", repr(pair), "action=state", "Name a column of each, as in x=x.")
        for pair in given
        if pair.count("=") != 1
    )
    return dict(pair.split("=") for pair in given)


def _camera_names(dataset: Dataset, given: str) -> list[str]:
    names, known = given.split(","), dataset.conventions.camera_names
    faults = []
    for name in names:
        if name not in known or names.count(name) > 1:
            hint = nearest(name, known)
            remedy = f"Name each once{f'; {hint}' if hint else '.'}"
            faults.append(describe("--cameras", repr(name), f"some of {list(known)}", remedy))
    raise_faults(faults)
    return names


def _height_and_width(size: str) -> tuple[int, int]:
    width, _, height = size.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) * int(height) > 0):
        remedy = "Write width and height, as in 224x224."
        raise UserError(describe("--size", repr(size), "WIDTHxHEIGHT in pixels", remedy))
    return int(height), int(width)


def _copy_others(folder: Path, out: Path, sources: list[Path]) -> None:
    """Copy what lies in a folder beside its HDF5 files, unless it is there already."""
    repacked = {source.resolve() for source in sources}
    for file in folder.rglob("*"):
        target = out / file.relative_to(folder)
        if file.is_file() and file.resolve() not in repacked and not target.exists():
            with finished_file(target) as partial:
                shutil.copyfile(file, partial)
