"""`eval-envs`: list, check, collect, play and expert."""

import sys
from typing import ClassVar

import gymnasium
import typer

import eval_envs
from data_tools.commands.late_commands import CommandTable, LateGroup
from data_tools.errors import UserError

COMMANDS = "eval_envs.commands.environments"


class Commands(LateGroup):
    """The commands of `eval-envs`."""

    table: ClassVar[CommandTable] = {
        "list": (COMMANDS, "The environments of this package, their tasks and what they declare."),
        "check": (COMMANDS, "Whether an environment keeps the contract, all faults at once."),
        "collect": (COMMANDS, "Write demonstrations of the scripted expert."),
        "play": (
            COMMANDS,
            "Film the scripted expert: both cameras as a policy sees them, episode after episode.",
        ),
        "expert": (
            COMMANDS,
            "Success rate of the scripted expert with its 95 % Wilson interval, and the steps it "
            "takes.",
        ),
    }


app = typer.Typer(
    cls=Commands, help=eval_envs.__doc__, no_args_is_help=True, pretty_exceptions_enable=False
)
app.callback()(lambda: None)


def main() -> None:
    """Run the command line; a user's mistake is one message and exit code 2."""
    try:
        app()
    except (UserError, gymnasium.error.Error) as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
