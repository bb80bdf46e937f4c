"""policy-ft recipe: runs to begin with, which travel with the package."""

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from data_tools.view.tables import print_table
from policy_ft.errors import UserError, describe, nearest

app = typer.Typer()

ASSETS = Path(__file__).parents[1] / "assets"
RECIPES = ASSETS / "recipes"
BASE = "policy_ft/assets/tabletop_base"


@app.command()
def recipe(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Of the recipe; without it all are listed.")
    ] = None,
) -> None:
    """List the recipes, or print one: policy-ft recipe pi0_droid > run.yaml."""
    if name is None:
        table = Table(Column("recipe", no_wrap=True), "purpose", "hardware")
        for path in sorted(RECIPES.glob("*.yaml")):
            text = path.read_text(encoding="utf-8")
            table.add_row(path.stem, _said(text, "Purpose"), _said(text, "Hardware"))
        print_table(table)
        return
    typer.echo(read_recipe(name), nl=False)


def read_recipe(name: str) -> str:
    """The YAML text of a recipe, the shipped base named by where this package has it.

    Args:
        name: of its file, without the suffix.

    Raises:
        UserError: there is no such recipe.
    """
    names = sorted(path.stem for path in RECIPES.glob("*.yaml"))
    if name not in names:
        remedy = f"Choose one; `policy-ft recipe` tells what they are for. {nearest(name, names)}"
        raise UserError(describe("recipe", repr(name), f"one of {names}", remedy.strip()))
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    text = text.replace(f"configs/{name}.yaml", "run.yaml")
    return text.replace(BASE, str(ASSETS / "tabletop_base"))


def _said(text: str, word: str) -> str:
    """What the first comment says under a word, on one line."""
    comment = re.match(r"(?:#[^\n]*\n)+", text)
    lines = " ".join(line.lstrip("# ") for line in (comment[0] if comment else "").splitlines())
    found = re.search(rf"{word}: (.*?)(?= (?:Purpose|Command|Hardware|Expected|Needs): |$)", lines)
    return found[1] if found else ""
