"""robot-data view, salvage and bench: commands that look, rescue and measure."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from data_tools.commands.options import (
    AsJson,
    Cameras,
    ExternalLinks,
    LayoutName,
    Mask,
    Paths,
    Tolerance,
)
from data_tools.declaration import faults_in_file
from data_tools.doctor.bench import BenchResult, Sampling
from data_tools.doctor.bench import bench as measure
from data_tools.errors import UserError, describe
from data_tools.finding import Finding
from data_tools.formats.reader import open_dataset
from data_tools.rewrite.salvage import Salvaged
from data_tools.rewrite.salvage import salvage as rescue
from data_tools.view.folder import ImageKind, View
from data_tools.view.sheets import select_cameras
from data_tools.view.tables import numbers, print_table

app = typer.Typer()


@app.command()
def view(
    path: Paths,
    out: Annotated[
        Path,
        typer.Option(
            help="A folder for all pictures, or one file: .png or .jpg (see --image), .html (a "
            "page to scrub through episodes) or .mp4 (one episode)."
        ),
    ],
    episodes: Annotated[
        str | None,
        typer.Option(help="Places and ranges, e.g. 0,3,5-8; some spread evenly by default."),
    ] = None,
    cameras: Cameras = None,
    image: Annotated[
        ImageKind,
        typer.Option(
            help="For an image file: contact (episodes x frames), declaration (one frame in every "
            "colour order and orientation, to see which is right) or plots (state and actions)."
        ),
    ] = "contact",
    frames: Annotated[
        int, typer.Option(min=1, max=16, help="Frames of each episode on the contact sheet.")
    ] = 8,
    findings: Annotated[
        Path | None,
        typer.Option(help="Output of `robot-data validate --json`, to be shown on the page."),
    ] = None,
    max_mb: Annotated[
        float, typer.Option(min=0.2, help="Largest size of the page; fewer frames fit less.")
    ] = 12.0,
    overwrite: Annotated[bool, typer.Option(help="Replace existing files.")] = False,
    mask: Mask = None,
    layout: LayoutName = None,
    links: ExternalLinks = False,
    tolerance_s: Tolerance = None,
) -> None:
    """Make contact sheets, plots, a video and a page of a dataset."""
    listed = None if findings is None else read_findings(findings)
    dataset = open_dataset(
        path,
        mask=mask,
        layout=layout,
        allow_undeclared=True,
        allow_external_links=links,
        tolerance_s=tolerance_s,
    )
    title = ", ".join(Path(each).name or each for each in path)
    with _progress("drawing") as advance:
        shown = View(dataset, title, episodes, cameras, frames, listed, int(max_mb * 1e6), advance)
        written = shown.write(out, image, overwrite=overwrite)
    for each in written:
        sys.stdout.write(f"wrote {each} ({each.stat().st_size / 1e6:.1f} MB)\n")


@app.command()
def salvage(
    file: Annotated[Path, typer.Argument(help="A truncated or damaged HDF5 file; never changed.")],
    out: Annotated[Path, typer.Argument(help="New file for the episodes that are whole.")],
    as_json: AsJson = False,
) -> None:
    """Copy the whole episodes of a damaged file, and say what was lost.

    Exit code 0: nothing was lost. 1: something was, and what was whole is in the new file. 2:
    nothing is whole, or the file cannot be read at all.
    """
    with _progress("reading") as advance:
        result = rescue(file, out, advance)
    if as_json:
        sys.stdout.write(json.dumps(_salvage_json(result), indent=2) + "\n")
    else:
        _print_salvaged(result)
    if result.written is None:
        raise typer.Exit(2)
    if not result.is_complete:
        raise typer.Exit(1)


@app.command()
def bench(
    path: Paths,
    cameras: Cameras = None,
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Measure one process, then this many.")
    ] = 1,
    horizon: Annotated[
        int, typer.Option(min=1, max=10_000, help="Actions of a sample, in steps.")
    ] = 50,
    seconds: Annotated[
        float, typer.Option(min=0.05, max=600, help="Length of each measurement.")
    ] = 3.0,
    seed: Annotated[int, typer.Option(min=0, help="Which random samples are read.")] = 0,
    mask: Mask = None,
    layout: LayoutName = None,
    links: ExternalLinks = False,
    tolerance_s: Tolerance = None,
    as_json: AsJson = False,
) -> None:
    """Measure how many training samples a second the files give, and say what would help."""
    dataset = open_dataset(
        path,
        mask=mask,
        layout=layout,
        allow_undeclared=True,
        allow_external_links=links,
        tolerance_s=tolerance_s,
    )
    names = tuple(select_cameras(cameras, dataset.conventions))
    with _progress("measuring") as advance:
        result = measure(
            dataset, Sampling(names, horizon, seconds, seed), sorted({1, workers}), advance
        )
    if as_json:
        sys.stdout.write(result.model_dump_json(indent=2) + "\n")
    else:
        _print_bench(result)


def read_findings(path: Path) -> list[Finding]:
    """The findings in a file that `robot-data validate --json` printed.

    Raises:
        UserError: the file is missing or holds something else.
    """
    remedy = "Give what `robot-data validate PATH --json` printed."
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        listed = told["findings"] if isinstance(told, dict) else told
        renamed = [
            {"where" if key == "episode" else key: value for key, value in each.items()}
            for each in listed
        ]
        return TypeAdapter(list[Finding]).validate_python(renamed)
    except OSError as error:
        raise UserError(describe(str(path), f"{error.strerror}", "a file", remedy)) from error
    except ValidationError as error:
        raise UserError(faults_in_file(error, list[Finding], path, remedy)) from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        found = f"no findings ({' '.join(str(error).split())[:120]})"
        raise UserError(describe(str(path), found, "a list of findings", remedy)) from error


@contextmanager
def _progress(verb: str) -> Iterator[Callable[[str], None]]:
    """A line on the terminal that tells what was done last, gone when the work is."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(verb)
        yield lambda done: progress.update(task, description=escape(f"{verb}: {done}"))


def _salvage_json(result: Salvaged) -> dict[str, object]:
    return {
        "source": str(result.source),
        "written": None if result.written is None else str(result.written),
        "happened": list(result.happened),
        "episodes": [
            {
                "episode": f"{result.source}:{episode.group}",
                "steps": episode.num_steps,
                "is_whole": episode.is_whole,
                "losses": list(episode.losses),
            }
            for episode in result.episodes
        ],
        "elsewhere": list(result.elsewhere),
        "copied": [str(path) for path in result.copied],
    }


def _print_salvaged(result: Salvaged) -> None:
    whole = sum(episode.is_whole for episode in result.episodes)
    lines = [*result.happened]
    for episode in result.episodes:
        lines += [f"{episode.group or 'the file'}: {loss}" for loss in episode.losses]
    lines += result.elsewhere
    lines.append(f"{whole} of {len(result.episodes)} episodes found are whole")
    if result.written is None:
        lines.append("nothing written: no episode is whole")
    else:
        lines += [f"wrote {result.written}", *(f"wrote {path}" for path in result.copied)]
        lines.append(
            "Numbers and pixels stored without a checksum can have changed without a trace: look "
            f"at them with `robot-data validate {result.written}` and `robot-data view`."
        )
    sys.stdout.write("\n".join(lines) + "\n")


def _print_bench(result: BenchResult) -> None:
    table = Table(*numbers("processes", "samples/s"), title="random access, as training reads")
    for count, rate in result.samples_per_s.items():
        table.add_row(f"{count}", f"{rate:.0f}")
    print_table(table)
    costs = Table(
        *("camera", "encoding", "storage"),
        *numbers("ms a frame", "kB read", "kB unpacked", "decode"),
    )
    for cost in result.cameras:
        costs.add_row(
            escape(cost.camera),
            cost.encoding,
            cost.storage,
            f"{cost.frame_ms:.2f}",
            _kilobytes(cost.bytes_read),
            _kilobytes(cost.bytes_unpacked),
            "-" if cost.decode_share is None else f"{100 * cost.decode_share:.0f} %",
        )
    if result.cameras:
        print_table(costs)
    lines = [
        f"{result.sample_ms:.2f} ms a sample, {100 * result.images_share:.0f} % of it for images, "
        f"{_kilobytes(result.bytes_per_sample)} kB read",
        *(result.advice or ("No advice: no frame costs more than it must.",)),
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def _kilobytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e3:.1f}"
