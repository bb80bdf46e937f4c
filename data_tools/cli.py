"""robot-data: look at, check, measure and rewrite robot demonstrations on disk."""

import sys
from typing import ClassVar

import typer

from data_tools.commands.late_commands import CommandTable, LateGroup
from data_tools.errors import UserError

LOOK, DOCTOR, REWRITE, CHOOSE, VIEW = (
    f"data_tools.commands.{room}"
    for room in (
        "look_commands",
        "doctor_commands",
        "rewrite_commands",
        "choose_commands",
        "view_commands",
    )
)


class Commands(LateGroup):
    """The commands of `robot-data`."""

    table: ClassVar[CommandTable] = {
        "inspect": (
            LOOK,
            "Say what the files hold: layout, episodes, cameras, columns and sentences.",
        ),
        "stats": (LOOK, "Print exact statistics of every state and action column."),
        "validate": (
            DOCTOR,
            "Check numbers, sentences and images; exit code 1 for findings, 2 when nothing opens.",
        ),
        "plant": (
            DOCTOR,
            "Copy a dataset and plant one fault in the copy, to see what `validate` says about it.",
        ),
        "repack": (
            REWRITE,
            "Store any HDF5 file for random access: one frame a chunk; the tree stays as it is.",
        ),
        "convert": (REWRITE, "Write the episodes in another format."),
        "split": (
            CHOOSE,
            "Choose episodes to validate on: a share of each task, and no scene on both sides.",
        ),
        "merge": (REWRITE, "Join files of data/demo_N episodes that declare the same into one."),
        "filter": (
            CHOOSE,
            "Choose the steps to train on; writes a keep-file, which the reader takes, unless "
            "--apply.",
        ),
        "relabel": (
            REWRITE,
            "Write the episodes with other sentences, gripper values or action references.",
        ),
        "view": (VIEW, "Make contact sheets, plots, a video and a page of a dataset."),
        "salvage": (VIEW, "Copy the whole episodes of a damaged file, and say what was lost."),
        "bench": (
            VIEW,
            "Measure how many training samples a second the files give, and say what would help.",
        ),
    }


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    help="Look at, check, measure and rewrite robot data.",
)
app.callback()(lambda: None)


def main() -> None:
    """Run the command line: 0 is good, 1 means findings, 2 means a fault of what was given."""
    try:
        app()
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from error
