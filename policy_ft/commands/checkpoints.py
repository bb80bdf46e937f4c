"""The commands that move checkpoints between formats and places."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from policy_ft.commands.options import Checkpoint, EmbodimentName, TokenizerPath, require_none
from policy_ft.errors import UserError, describe
from policy_ft.formats import hub
from policy_ft.formats.conversion.convert import convert as convert_checkpoint
from policy_ft.formats.conversion.cut import cut_adapter
from policy_ft.formats.conversion.interpolation import EVERYTHING
from policy_ft.formats.conversion.interpolation import merge as merge_checkpoints
from policy_ft.formats.locating import locate

app = typer.Typer()

RepoId = Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the hub.")]


@app.command()
def convert(
    checkpoint: Checkpoint,
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="To be made.")],
    to: Annotated[
        Literal["native", "openpi", "lerobot", "adapter"],
        typer.Option(help="The format to write; adapter: only what differs from the base."),
    ],
    dtype: Annotated[
        Literal["stored", "float32", "bfloat16"],
        typer.Option(help="Of the weights; stored keeps each tensor's own."),
    ] = "stored",
    embodiment: EmbodimentName = None,
    tokenizer: TokenizerPath = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Make adapters part of the weights they stand beside.")
    ] = False,
    base: Annotated[
        Path | None,
        typer.Option(help="What an adapter stands on; else where its run began."),
    ] = None,
) -> None:
    """Write a checkpoint in the format of policy_ft, openpi or LeRobot, bit for bit."""
    if to == "adapter":
        given = {"--embodiment": embodiment, "--tokenizer": tokenizer, "--merge": merge}
        require_none(given, "--to adapter", "another format")
        cut = cut_adapter(checkpoint, directory, base)
        size = f"{cut.num_tensors} tensors, {100 * cut.share:.2g} % of the whole"
        print(f"wrote {cut.directory}: {size}")
        return
    converted = convert_checkpoint(
        checkpoint,
        to,
        directory,
        dtype=dtype,
        embodiment=embodiment,
        tokenizer=tokenizer,
        merge=merge,
        base=base,
    )
    for remark in converted.remarks:
        print(f"note: {remark}")
    print(f"wrote {converted.directory}\nweights SHA-256 {converted.weights_sha256}")


@app.command()
def merge(
    checkpoints: Annotated[
        list[Path], typer.Argument(metavar="CHECKPOINT...", help="Of one policy, two or more.")
    ],
    output: Annotated[Path, typer.Option(metavar="DIRECTORY", help="To be made.")],
    alpha: Annotated[
        list[str],
        typer.Option(
            metavar="[GROUP=]SHARE",
            help="Share of the second checkpoint, 0 to 1; of a group or pattern alone with its "
            "name, e.g. language=0.3. Without: the mean of all.",
        ),
    ] = [],  # noqa: B006 - typer reads the default and never changes it
) -> None:
    """Write the weights between two checkpoints of one policy, or the mean of several."""
    merged = merge_checkpoints(checkpoints, output, _alphas(alpha) if alpha else None)
    print(f"wrote {merged.directory}\nweights SHA-256 {merged.weights_sha256}")


def _alphas(texts: Sequence[str]) -> dict[str, float]:
    """Pattern -> share, what has no pattern last."""
    alphas: dict[str, float] = {}
    for text in texts:
        pattern, is_named, share = text.rpartition("=")
        try:
            alphas[pattern if is_named else EVERYTHING] = float(share)
        except ValueError:
            expected, remedy = "GROUP=SHARE or SHARE, a number", "Write e.g. --alpha language=0.3."
            raise UserError(describe("--alpha", repr(text), expected, remedy)) from None
    return dict(sorted(alphas.items(), key=lambda item: item[0] == EVERYTHING))


@app.command()
def push(
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="A checkpoint.")],
    repo_id: RepoId,
    is_public: Annotated[
        bool, typer.Option("--public", help="Make a new repository public.")
    ] = False,
) -> None:
    """Upload a checkpoint directory to the hub, to a private repository if it is a new one."""
    print(hub.push(locate(directory).directory, repo_id, is_private=not is_public))


@app.command()
def pull(
    repo_id: RepoId,
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="To be made.")],
    only: Annotated[
        list[str],
        typer.Option(metavar="PATTERN", help="Files to download; else all of a checkpoint's."),
    ] = [],  # noqa: B006 - typer reads the default and never changes it
) -> None:
    """Download a checkpoint from the hub to a directory; never pickled files."""
    print(f"wrote {hub.pull(repo_id, directory, only or hub.READ_FILES)}")
