"""robot-data split and filter: which episodes, and which of their steps, to train on."""

import sys
from typing import Annotated

import numpy as np
import typer

from data_tools.commands.options import (
    ExternalLinks,
    LayoutName,
    LocalPaths,
    Mask,
)
from data_tools.commands.rewrite_commands import Out, write_edited
from data_tools.errors import UserError, describe
from data_tools.formats.keep_files import keep_steps
from data_tools.formats.reader import open_dataset
from data_tools.rewrite import filtering
from data_tools.rewrite.edited import (
    Edit,
    EditedDataset,
)
from data_tools.rewrite.split import (
    DEFAULT_VALID,
    GROUP_ATTRIBUTES,
    write_split_keep,
    write_split_masks,
)
from data_tools.rewrite.split import split as choose_split
from data_tools.rewrite.unfinished import new_file
from data_tools.storage.files.paths import HDF5_SUFFIXES, expand

app = typer.Typer(add_completion=False)


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
    links: ExternalLinks = False,
) -> None:
    """Choose episodes to validate on: a share of each task, and no scene on both sides.

    OUT ending in .hdf5 is a copy of the one file with mask/train and mask/valid; any other OUT is a
    folder of the keep-files train.json and valid.json.
    """
    dataset = open_dataset(path, layout=layout, allow_external_links=links)
    parts = choose_split(dataset, valid, seed, group)
    if out.suffix in HDF5_SUFFIXES:
        files = expand(path).read
        if len(files) > 1:
            found, remedy = f"{len(files)} files", "Merge them first, or give OUT as a folder."
            raise UserError(describe(str(out), found, "masks in one file", remedy))
        write_split_masks(dataset, parts, files[0], out, path)
    else:
        rule = f"split valid {valid}, seed {seed}, group {','.join(group)}"
        write_split_keep(dataset, parts, out, rule)
    sys.stdout.write(f"{out}: {len(parts.train)} episodes to train on, {len(parts.valid)} valid\n")


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
    leave_out: Annotated[
        list[str] | None, typer.Option(metavar="EPISODE", help="An episode to leave out: demo_3.")
    ] = None,
    allow_most: Annotated[
        bool, typer.Option("--allow-most", help="Let a rule remove over half of an episode.")
    ] = False,
    apply: Annotated[
        bool, typer.Option("--apply", help="Write the kept steps to a new native file.")
    ] = False,
    mask: Mask = None,
    layout: LayoutName = None,
    links: ExternalLinks = False,
) -> None:
    """Choose the steps to train on; writes a keep-file, which the reader takes, unless --apply."""
    lengths, named = (min_steps, max_steps, max_mads), tuple(leave_out or ())
    rules = filtering.Rules(noops, failures, *lengths, allow_most, named)
    if rules == filtering.Rules():
        remedy = "Give --noops, --drop-failures, --min-steps, --max-steps, --max-mads, --leave-out."
        raise UserError(describe("filter", "no rule", "at least one", remedy))
    dataset = open_dataset(path, mask=mask, layout=layout, allow_external_links=links)
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
        write_edited(edited, path, out, "native", "filter", settings)
    else:
        with new_file(out) as partial:
            partial.write_text(keep_steps(dataset, kept, str(rules)).model_dump_json(indent=1))
    num_episodes = sum(bool(steps.any()) for steps in kept)
    sys.stdout.write(
        f"{out}: keeps {left} of {total} steps, {num_episodes} of {len(kept)} episodes\n"
    )
