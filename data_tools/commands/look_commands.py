"""robot-data inspect and stats: commands that read headers and numbers, and tell."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data_tools.commands.options import (
    AsJson,
    ExternalLinks,
    LayoutName,
    Mask,
    Paths,
    Tolerance,
    progress,
)
from data_tools.conventions import CameraSpec, Conventions
from data_tools.errors import Faults, UserError, describe, raise_faults, told_once
from data_tools.finding import Finding
from data_tools.formats.drafts.draft import Draft, draft_for
from data_tools.formats.layouts.sidecar import FOLDER_SIDECAR
from data_tools.formats.reader import open_dataset
from data_tools.rewrite.stats_files import lerobot_stats, openpi_stats, write_json
from data_tools.stats import (
    NormalizationStats,
    action_motions,
    dataset_stats,
    state_motions,
    still_columns,
)
from data_tools.storage.files.disk import existing_faults, finished_file
from data_tools.storage.files.paths import first_refused
from data_tools.view.summary import summary, tree_of
from data_tools.view.tables import line_width, number_table, numbers, print_table

app = typer.Typer()

MAX_TOLD = 20
MAX_ORIGINS = 3


@app.command()
def inspect(
    path: Paths,
    mask: Mask = None,
    layout: LayoutName = None,
    links: ExternalLinks = False,
    as_json: AsJson = False,
    draft: Annotated[
        bool,
        typer.Option(
            "--draft",
            help="Write a sidecar beside the data, with blanks for what is to be declared.",
        ),
    ] = False,
) -> None:
    """Say what the files hold: layout, episodes, cameras, columns and sentences."""
    if draft:
        raise_faults(_beside_draft(mask, as_json=as_json))
        _tell_draft(draft_for(path, layout, allow_external_links=links))
        return
    try:
        dataset = open_dataset(
            path,
            mask=mask,
            layout=layout,
            allow_undeclared=True,
            allow_external_links=links,
        )
    except UserError as error:
        if not as_json:
            sys.stdout.writelines(_tree_lines(path, error))
        raise
    told = summary(dataset)
    if as_json:
        _print_json(told)
        return
    for table in (_facts(told, dataset.conventions), *_declared(dataset.conventions)):
        print_table(table)
    told["warnings"] = _warning_lines(dataset.inspected.warnings)
    sys.stdout.write("\n".join(_lists(told)) + "\n")


@app.command()
def stats(
    path: Paths,
    as_json: AsJson = False,
    openpi: Annotated[
        Path | None, typer.Option(help="Also write openpi's norm_stats.json here.")
    ] = None,
    lerobot: Annotated[
        Path | None, typer.Option(help="Also write LeRobot's stats.json here; reads every frame.")
    ] = None,
    mask: Mask = None,
    layout: LayoutName = None,
    links: ExternalLinks = False,
    tolerance_s: Tolerance = None,
) -> None:
    """Print exact statistics of every state and action column."""
    targets = [target for target in (openpi, lerobot) if target is not None]
    raise_faults(fault for target in targets for fault in existing_faults(target))
    if openpi is not None and openpi == lerobot:
        remedy = "Give each its own name."
        raise UserError(describe(str(openpi), "one name for two files", "two names", remedy))
    dataset = open_dataset(
        path, mask=mask, layout=layout, allow_external_links=links, tolerance_s=tolerance_s
    )
    parts = dataset_stats(dataset)
    if openpi is not None:
        write_json(openpi, openpi_stats(parts))
    if lerobot is not None:
        with progress("episodes") as advance:
            counted = lerobot_stats(dataset, advance)
        write_json(lerobot, counted)
    if as_json:
        dumped = {part: values.model_dump() for part, values in parts.items()}
        _print_json({"fingerprint": dataset.fingerprint, **dumped})
        return
    width = line_width(Console())
    sys.stdout.write("\n".join(_stats_lines(parts, dataset.conventions, width)) + "\n")


def _stats_lines(
    parts: dict[str, NormalizationStats], conventions: Conventions, width: int | None
) -> Iterator[str]:
    """A table of each part, and the columns that never move."""
    state, action = conventions.state, conventions.action
    declared = {
        "state": (state.names, state.units, state_motions(conventions)),
        "actions": (action.names, action.units, action_motions(conventions)),
    }
    rows = ("mean", "std", "min", "q01", "q99", "max")
    for part, values in parts.items():
        names, units, motions = declared[part]
        labels = [f"{name} [{unit}]" for name, unit in zip(names, units, strict=True)]
        columns = np.column_stack([values.row(row) for row in rows]).tolist()
        table = dict(zip(labels, columns, strict=True))
        yield f"{part}, {values.num_frames} frames"
        yield from number_table(table, ("column [unit]", *rows), width)
        still = [names[index] for index in still_columns(values, motions)]
        if still:
            yield f"near-constant: {', '.join(still)}"
        yield ""


def _beside_draft(mask: str | None, *, as_json: bool) -> Iterator[str]:
    """Options that a draft has no use for."""
    for name, is_given in (("--json", as_json), ("--mask", mask is not None)):
        if is_given:
            yield describe(name, "it beside --draft", "one of the two", "Leave one out.")


def _tell_draft(draft: Draft) -> None:
    """The draft on stdout, and in its file; on stderr what to do with it."""
    if not draft.text:
        sys.stderr.write("nothing to draft: nothing is to be declared\n")
        return
    sys.stdout.write(draft.text)
    count = len(draft.blanks)
    todo = f"fill in {count} blank{'' if count == 1 else 's'} <...>"
    if draft.target is None:
        sys.stderr.write(f"save it beside the data as {FOLDER_SIDECAR}, and {todo}\n")
        return
    with finished_file(draft.target, is_new=True) as partial:
        partial.write_text(draft.text, encoding="utf-8")
    sys.stderr.write(f"wrote {draft.target}: {todo}\n")
    if draft.note:
        sys.stderr.write(f"it does not fit all: {draft.note}\n")


def _tree_lines(places: list[str], error: UserError) -> Iterator[str]:
    """The tree of the first file that is refused; nothing where none can be opened."""
    refused = first_refused(places, error)
    tree = None if refused is None else Faults().of(lambda: tree_of(refused))
    if tree:
        yield f"tree of {refused}:\n"
        yield from (f"  {line}\n" for line in tree)


def _facts(told: dict[str, Any], conventions: Conventions) -> Table:
    hertz, judged = conventions.control_hz, told["judged"]
    size = "elsewhere" if told["megabytes"] is None else f"{told['megabytes']:.1f} MB"
    duration = "" if told["duration_s"] is None else f", {told['duration_s']:.1f} s"
    rate = "" if hertz is None else f" at {hertz:g} Hz"
    columns = ", ".join(
        f"{name} (in {'all' if count == told['episodes'] else count} episodes)"
        for name, count in told["columns"].items()
    )
    facts = {
        "layout": ", ".join(told["layout"]),
        "files": f"{told['files']}, {size}",
        "episodes": str(told["episodes"]),
        "frames": f"{told['frames']}{duration}{rate}",
        "successes": f"{told['successes']} of {judged} judged" if judged else "nobody judged",
        "fingerprint": told["fingerprint"][:16],
        **({"columns": columns} if columns else {}),
        **({} if conventions.cameras else {"cameras": "none: for policies of states alone"}),
    }
    table = Table("", "", show_header=False)
    for name, value in facts.items():
        table.add_row(name, escape(value))
    return table


def _declared(conventions: Conventions) -> Iterator[Table]:
    """What cameras, state and action are declared to be, a row each."""
    cameras = Table("camera", "width x height", "colours", "orientation", "source")
    for each in conventions.cameras:
        size = f"{each.width} x {each.height}"
        cameras.add_row(
            escape(each.name), size, each.color_order, each.orientation, escape(each.source)
        )
    if conventions.cameras:
        yield cameras
    state, action = conventions.state, conventions.action
    columns = Table("state column", "unit", "frame")
    for name, unit in zip(state.names, state.units, strict=True):
        columns.add_row(escape(name), escape(unit), escape(state.frame))
    yield columns
    grippers = {
        each.column: f"open {each.open_value:g}, closed {each.closed_value:g}"
        for each in action.grippers
    }
    columns = Table("action column", "unit", "reference", *numbers("low", "high"), "gripper")
    rows = zip(action.names, action.units, action.references, action.low, action.high, strict=True)
    for name, unit, reference, low, high in rows:
        limits = f"{low:g}", f"{high:g}"
        columns.add_row(
            escape(name), escape(unit), reference, *limits, escape(grippers.get(name, ""))
        )
    yield columns


def _lists(told: dict[str, Any]) -> Iterator[str]:
    """What is told line by line, outside tables: it may be long, or be meant to be copied."""
    sentences = [f"{each['text']} ({each['episodes']})" for each in told["instructions"]]
    if len(sentences) > MAX_TOLD:
        sentences[MAX_TOLD:] = [f"... and {len(sentences) - MAX_TOLD} more (--json has all)"]
    for title, lines in (
        ("evidence", told["evidence"]),
        ("instructions, with their episodes", sentences),
        ("where each value is from", list(_origins(told))),
        ("rows", told["rules"]),
        ("tree of the first file", told["tree"]),
        ("warnings", told["warnings"]),
        ("to be declared", told["undeclared"]),
    ):
        if lines:
            yield f"{title}:"
            for line in lines:
                yield line if title == "to be declared" else f"  {line}"


def _origins(told: dict[str, Any]) -> Iterator[str]:
    """What says each value, with the places it says; what is the same of every camera once."""
    names = [camera["name"] for camera in told["conventions"]["cameras"]]
    alike: dict[tuple[str, ...], list[str]] = {}
    for place, origins in told["origins"].items():
        alike.setdefault(tuple(origins), []).append(place)
    for origins, places in alike.items():
        for key in CameraSpec.model_fields:
            each = [f"cameras.{name}.{key}" for name in names]
            if len(each) > 1 and set(each) <= set(places):
                places[places.index(each[0])] = f"cameras.*.{key}"
                places = [place for place in places if place not in each]
        more = f" and {len(origins) - MAX_ORIGINS} more" if len(origins) > MAX_ORIGINS else ""
        yield f"{', '.join(origins[:MAX_ORIGINS])}{more}: {', '.join(places)}"


def _warning_lines(warnings: Sequence[Finding]) -> list[str]:
    """Every warning; what several episodes share is told once."""
    return [
        f"{severity} [{rule}] {fault}"
        for severity, rule in dict.fromkeys((each.severity, each.rule) for each in warnings)
        for fault in told_once(each.sentence for each in warnings if each.rule == rule)
    ]


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")
