"""policy-ft show: a config with the origin of every value, or what is inside a checkpoint."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from data_tools.commands.program import import_stoppably
from data_tools.view.tables import print_table
from policy_ft.commands.options import EmbodimentName, Overrides, TokenizerPath, require_none
from policy_ft.config.config_file import read_config, resolved_with_origin, validate_config

app = typer.Typer()

CONFIG_SUFFIXES = (".yaml", ".yml")


@app.command()
def show(
    path: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG|CHECKPOINT", help="YAML file, checkpoint directory or hub id."
        ),
    ],
    overrides: Overrides = [],  # noqa: B006 - typer reads the default and never changes it
    only_hash: Annotated[
        bool, typer.Option("--hash", help="Print only the SHA-256 over all weights in name order.")
    ] = False,
    embodiment: EmbodimentName = None,
    tokenizer: TokenizerPath = None,
) -> None:
    """Show a config with the origin of every value, or what is inside a checkpoint."""
    if path.endswith(CONFIG_SUFFIXES) or Path(path).is_file():
        given = {"--hash": only_hash, "--embodiment": embodiment, "--tokenizer": tokenizer}
        require_none(given, path, "a checkpoint")
        _show_config(path, overrides)
        return
    require_none({"--set": overrides}, path, "a config file")
    # torch takes seconds, which a config need not wait for
    inside = import_stoppably("policy_ft.commands.inside")
    inside.show_inside(path, only_hash, embodiment, tokenizer)


def _show_config(path: str, overrides: Sequence[str]) -> None:
    source = read_config(path, overrides)
    names, places = Column("setting", no_wrap=True), Column("origin", no_wrap=True)
    table = Table(names, "value", places, title=path, title_justify="left")
    for key, value, origin in resolved_with_origin(validate_config(source), source):
        # the title says where the file is
        table.add_row(key, json.dumps(value), origin.removeprefix(f"{Path(path).parent}/"))
    print_table(table)
