"""policy-ft train and check: a run that a config describes."""

import shlex
from typing import Annotated

import typer

from policy_ft import assemble
from policy_ft.commands.options import ConfigFile, Overrides
from policy_ft.config.config_file import data_alone, load_config, read_config, validate_config
from policy_ft.errors import Faults, raise_faults

app = typer.Typer()


@app.command()
def train(
    config: ConfigFile,
    overrides: Overrides = [],  # noqa: B006 - typer reads the default and never changes it
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint in output_dir.")
    ] = False,
) -> None:
    """Train as a config says."""
    words = ["policy-ft", "train", str(config)]
    words += [word for override in overrides for word in ("--set", override)]
    command = shlex.join([*words, "--resume"] if resume else words)
    result = assemble.train(load_config(config, overrides), resume=resume, command=command)
    print(f"last checkpoint: {result.last_checkpoint}\nbest checkpoint: {result.best_checkpoint}")


@app.command()
def check(
    config: ConfigFile,
    overrides: Overrides = [],  # noqa: B006
    resume: Annotated[
        bool, typer.Option("--resume", help="Check that the run in output_dir can go on.")
    ] = False,
) -> None:
    """Refuse what can be refused before training, all faults at once."""
    source, faults = read_config(config, overrides), Faults()
    run = faults.of(lambda: validate_config(source))
    if run is not None:
        faults.extend(assemble.check(run, resume=resume, tell=print))
    elif (data := data_alone(source)) is not None:
        faults.extend(assemble.check_data(*data))
    raise_faults(faults.listed)
    print(f"{config}: ready to train")
