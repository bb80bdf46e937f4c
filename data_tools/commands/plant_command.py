"""robot-data plant: a copy with one known fault, to see what the doctor sees."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from data_tools.commands.options import LayoutName
from data_tools.doctor.planting.plant import FAULTS
from data_tools.doctor.planting.plant import plant as plant_fault
from data_tools.errors import UserError, describe

app = typer.Typer()


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
