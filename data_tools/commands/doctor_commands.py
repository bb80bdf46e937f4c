"""robot-data validate and plant: the doctor on the command line, and faults for it to find."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from data_tools.commands.options import (
    AsJson,
    ExternalLinks,
    LayoutName,
    Mask,
    Paths,
    Tolerance,
    progress,
)
from data_tools.doctor.checks.collection import check_size
from data_tools.doctor.diagnosis import DataDiagnosis, examine_opened, shared_with
from data_tools.doctor.examination import require_rules
from data_tools.doctor.planting.plant import FAULTS
from data_tools.doctor.planting.plant import plant as plant_fault
from data_tools.doctor.repairs.repair import Repair, repair
from data_tools.doctor.report import Report, as_json, data_facts, print_report, render_html
from data_tools.episode import Dataset
from data_tools.errors import UserError, describe, raise_faults
from data_tools.finding import Finding
from data_tools.formats.reader import open_what_opens
from data_tools.rules import as_findings
from data_tools.storage.files.disk import existing_faults, finished_file
from data_tools.storage.files.paths import visible

app = typer.Typer()

Validation = Annotated[
    str | None,
    typer.Option(
        metavar="PATH|KEY",
        help="Also check what these share with the episodes: data, or a filter key.",
    ),
]


@app.command()
def validate(
    path: Paths,
    as_json_: AsJson = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the report as one .html page.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier page.")
    ] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Decode every image, not three of each camera.")
    ] = False,
    fix: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Write a new file with what can be repaired safely."),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="RULE", help="A rule whose findings are meant.")
    ] = None,
    mask: Mask = None,
    layout: LayoutName = None,
    links: ExternalLinks = False,
    tolerance_s: Tolerance = None,
    validation: Validation = None,
) -> None:
    """Check numbers, sentences and images; exit code 1 for findings, 2 when nothing opens."""
    asked = _Asked(path, mask, layout, links, tolerance_s, deep, tuple(ignore or ()))
    try:
        if html is not None:
            raise_faults(_page_faults(html, overwrite=overwrite))
        found, report = _examined(asked, validation)
    except UserError as error:
        if as_json_:
            _write_json({"findings": [], "ledger": [], "refused": list(error.faults)})
        raise
    if html is not None:
        with finished_file(html, is_new=not overwrite) as partial:
            partial.write_text(render_html(report), encoding="utf-8")
    mended = _Mended() if fix is None else _mended(asked, found, fix)
    if as_json_:
        _write_json(as_json(report) | mended.as_json())
    elif found.datasets:
        print_report(report, Console())
        sys.stdout.writelines(f"{line}\n" for line in mended.lines())
    _require_done(found, mended)
    if report.findings:
        raise typer.Exit(1)


def _require_done(found: DataDiagnosis, mended: "_Mended") -> None:
    """UserError where nothing opened, or what opened cannot be repaired as asked."""
    if not found.datasets:
        raise UserError([each.sentence for each in found.unopened])
    if mended.refusal is not None:
        raise mended.refusal


@dataclass(frozen=True)
class _Asked:
    """What a person gave: the data, and how to look at it."""

    path: list[str]
    mask: str | None
    layout: str | None
    links: bool
    tolerance_s: float | None
    deep: bool
    ignored: tuple[str, ...]


def _examined(asked: _Asked, validation: str | None) -> tuple[DataDiagnosis, Report]:
    require_rules(asked.ignored)
    opened = open_what_opens(
        asked.path,
        mask=asked.mask,
        layout=asked.layout,
        allow_external_links=asked.links,
        tolerance_s=asked.tolerance_s,
    )
    look = partial(examine_opened, opened, deep=asked.deep, ignore=asked.ignored)
    if opened.datasets:
        with progress("checking, episodes") as advance:
            found = look(progress=advance)
    else:
        found = look()
    more = [*_size_findings(asked.path), *_split_findings(asked, found.datasets, validation)]
    findings = (*found.findings, *(each for each in more if each.rule not in asked.ignored))
    facts = data_facts(found.datasets, found.instructions)
    unopened = len(found.unopened)
    paths = tuple(asked.path)
    return found, Report(paths, facts, findings, asked.ignored, found.ledger, unopened)


def _write_json(told: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(told, indent=2) + "\n")


@dataclass(frozen=True)
class _Mended:
    """What --fix did: the repairs in the target, which is not made when there are none.

    The target is None where nobody asked; `refusal` says why nothing can be repaired.
    """

    target: Path | None = None
    repairs: Sequence[Repair] = ()
    notes: Sequence[str] = ()
    refusal: UserError | None = None

    def as_json(self) -> dict[str, object]:
        if self.refusal is not None:
            return {"refused": list(self.refusal.faults)}
        if self.target is None:
            return {}
        notes = {"notes": list(self.notes)} if self.notes else {}
        return {"repairs": [vars(each) for each in self.repairs], **notes}

    def lines(self) -> Iterator[str]:
        yield from map(str, self.repairs)
        yield from (f"note: {note}" for note in self.notes)
        if self.repairs:
            yield f"written to {self.target}; repairs: {len(self.repairs)}"
        elif self.target is not None and self.refusal is None:
            yield f"nothing to repair, {self.target} was not made"


def _mended(asked: _Asked, found: DataDiagnosis, target: Path) -> _Mended:
    notes: list[str] = []
    try:
        raise_faults(_whole_faults(found))
        with progress("repairing, episodes") as advance:
            repairs = repair(
                found.datasets[0],
                target,
                found.findings,
                sources=asked.path,
                layout=asked.layout,
                allow_external_links=asked.links,
                advance=advance,
                tell=notes.append,
            )
    except UserError as error:
        return _Mended(target, refusal=error)
    return _Mended(target, list(repairs), notes)


def _whole_faults(found: DataDiagnosis) -> Iterator[str]:
    """Why there is no one new file: some of the data is not read, or it is of two kinds."""
    remedy = "Mend what does not open first, or leave it out; --fix would lose it."
    for each in found.unopened:
        yield describe(f"--fix: {each.where}", each.value, "data that opens", remedy)
    if len(found.datasets) > 1:
        told = f"{len(found.datasets)} kinds of data"
        yield describe("--fix", told, "one", "Give those of each kind in a call of their own.")


def _page_faults(page: Path, *, overwrite: bool) -> list[str]:
    if page.suffix.lower() not in (".html", ".htm"):
        found, remedy = f"a name that ends in {page.suffix!r}", "Name a page: report.html."
        return [describe(f"--html {page}", found, ".html", remedy)]
    return [] if overwrite and not page.is_dir() else existing_faults(page)


def _size_findings(paths: list[str]) -> list[Finding]:
    """Files on this machine that are larger than its memory."""
    files = [file for path in map(Path, paths) for file in ([path] if path.is_file() else [])]
    below = [file for path in map(Path, paths) for file in visible(path.rglob("*"), path).read]
    files += [file for file in below if file.is_file()]
    num_bytes = sum(file.stat().st_size for file in files)
    return list(check_size(num_bytes, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))


def _split_findings(
    asked: _Asked, training: Sequence[Dataset], validation: str | None
) -> Iterator[Finding]:
    if validation is None:
        return
    is_path = "://" in validation or Path(validation).exists()
    other = (
        open_what_opens(validation, allow_external_links=asked.links)
        if is_path
        else open_what_opens(
            asked.path,
            mask=validation,
            layout=asked.layout,
            allow_external_links=asked.links,
        )
    )
    yield from as_findings(other.faults)
    yield from shared_with(training, other.datasets)


@app.command()
def plant(
    fault: Annotated[
        str | None, typer.Argument(metavar="FAULT", help="The rule that should find it.")
    ] = None,
    source: Annotated[
        Path | None, typer.Argument(metavar="IN", help="An HDF5 file, or a folder of them.")
    ] = None,
    out: Annotated[
        Path | None, typer.Argument(metavar="OUT", help="What to make; it must not exist yet.")
    ] = None,
    is_list: Annotated[
        bool, typer.Option("--list", help="Print every fault that can be planted, and end.")
    ] = False,
    episode: Annotated[
        str | None,
        typer.Option(metavar="N|NAME", help="Where to plant: a number from 0, or demo_3."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is left to chance.")] = 0,
    strength: Annotated[
        float | None, typer.Option(help="How strong, in the fault's own unit (see --list).")
    ] = None,
    layout: LayoutName = None,
) -> None:
    """Copy a dataset and plant one fault in the copy, to see what `validate` says about it.

    The fault bears the name of the rule that should find it. IN is only read; OUT is the same file,
    or folder, but for the fault, and says in its attribute `provenance` what was planted.
    """
    if is_list:
        _print_list()
        return
    if fault is None or source is None or out is None:
        given = [str(each) for each in (fault, source, out) if each is not None]
        remedy = "Name all three, or ask for --list."
        raise UserError(describe("plant", f"{given}", "FAULT, IN and OUT", remedy))
    planted = plant_fault(
        fault, source, out, episode=episode, seed=seed, strength=strength, layout=layout
    )
    for each in planted:
        sys.stdout.write(f"planted [{fault}] {each.episode or 'dataset'}: {each.change}\n")
    deep = " --deep" if FAULTS[fault].is_deep else ""
    sys.stdout.write(f"written to {out}; see what is found: robot-data validate {out}{deep}\n")


def _print_list() -> None:
    words = {"one": "one episode", "from": "from one episode on", "all": "all episodes"}
    for rule, fault in FAULTS.items():
        strength = fault.strength
        told = "" if strength is None else f" --strength {strength.default:g}: {strength.meaning}."
        sys.stdout.write(f"{rule} ({words[fault.scope]}): {fault.change}{told}\n")
