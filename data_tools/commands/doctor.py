"""robot-data validate: the doctor on the command line."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from data_tools.checks.collection import check_size
from data_tools.checks.repair import repair
from data_tools.checks.report import Report, as_json, dataset_facts, print_report, render_html
from data_tools.commands.options import AsJson, LayoutName, Mask, Paths, progress
from data_tools.doctor import validate as find_faults
from data_tools.doctor import validate_split
from data_tools.episode import Dataset
from data_tools.errors import describe, raise_faults
from data_tools.files.disk import finished_file
from data_tools.finding import Finding
from data_tools.reader import open_dataset
from data_tools.rewrite.unfinished import existing_faults

app = typer.Typer()


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
    validation: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|KEY",
            help="Also check what these share with the episodes: data, or a filter key.",
        ),
    ] = None,
) -> None:
    """Check numbers, sentences and images; exit code 1 when anything was found."""
    if html is not None:
        raise_faults(_page_faults(html, overwrite=overwrite))
    dataset = open_dataset(path, mask=mask, layout=layout, allow_undeclared=True)
    ignored = tuple(ignore or ())
    with progress("checking, episodes") as advance:
        count = len(dataset)
        findings = find_faults(
            dataset, deep=deep, ignore=ignored, progress=lambda done: advance(done, count)
        )
        more = [*_size_findings(path), *_split_findings(path, dataset, validation, layout)]
    findings += [finding for finding in more if finding.rule not in ignored]
    repairs: list[object] = []
    if fix is not None:
        with progress("repairing, episodes") as advance:
            repairs = list(repair(dataset, fix, findings, sources=path, advance=advance))
    report = Report(tuple(path), dataset_facts(dataset), tuple(findings), ignored)
    if html is not None:
        with finished_file(html) as partial:
            partial.write_text(render_html(report), encoding="utf-8")
    if as_json_:
        told = as_json(findings)
        if fix is not None:
            told["repairs"] = [vars(each) for each in repairs]
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
    else:
        _print(report, fix, repairs)
    if findings:
        raise typer.Exit(1)


def _print(report: Report, fix: Path | None, repairs: list[object]) -> None:
    console = Console()
    print_report(report, console)
    if fix is not None:
        for each in repairs:
            console.print(str(each), markup=False, soft_wrap=True)
        made = f"written to {fix}" if repairs else f"nothing to repair, {fix} was not made"
        console.print(f"{len(repairs)} repairs, {made}", markup=False, soft_wrap=True)


def _page_faults(page: Path, *, overwrite: bool) -> list[str]:
    if page.suffix.lower() not in (".html", ".htm"):
        found, remedy = f"a name that ends in {page.suffix!r}", "Name a page: report.html."
        return [describe(f"--html {page}", found, ".html", remedy)]
    return [] if overwrite and not page.is_dir() else existing_faults(page)


def _size_findings(paths: list[str]) -> list[Finding]:
    """Files on this machine that are larger than its memory."""
    files = [file for path in map(Path, paths) for file in ([path] if path.is_file() else [])]
    files += [file for path in map(Path, paths) for file in path.rglob("*") if file.is_file()]
    num_bytes = sum(file.stat().st_size for file in files)
    return list(check_size(num_bytes, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))


def _split_findings(
    paths: list[str], training: Dataset, validation: str | None, layout: str | None
) -> list[Finding]:
    if validation is None:
        return []
    is_path = "://" in validation or Path(validation).exists()
    other = (
        open_dataset(validation, allow_undeclared=True)
        if is_path
        else open_dataset(paths, mask=validation, layout=layout, allow_undeclared=True)
    )
    return validate_split(training, other)
