"""The command line of policy_ft: names, mistakes and exit codes; the commands lie in commands/."""

import sys
from typing import Annotated, Any, ClassVar

import typer

from data_tools.commands.late_commands import CommandTable, LateGroup
from policy_ft.errors import UserError

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
RESUME_HINTS = {
    "train": "; the run goes on with `policy-ft train ... --resume`",
    "eval": "; with --output, the evaluation goes on with the same command",
}


class Commands(LateGroup):
    """Prints a user's mistake as sentences and exits with 2; --traceback raises it instead."""

    table: ClassVar[CommandTable] = {
        "quickstart": (
            "policy_ft.commands.demonstrate",
            "Collect demonstrations of a new task, fine-tune the shipped policy, evaluate, report.",
        ),
        "train": ("policy_ft.commands.train", "Train as a config says."),
        "check": (
            "policy_ft.commands.train",
            "Refuse what can be refused before training, all faults at once.",
        ),
        "plan": (
            "policy_ft.commands.plan",
            "Count the memory that a run needs, before there is a GPU or a checkpoint.",
        ),
        "recipe": (
            "policy_ft.commands.recipe",
            "List the recipes, or print one: policy-ft recipe pi0_droid > run.yaml.",
        ),
        "eval": (
            "policy_ft.commands.evaluate",
            "Run a checkpoint in an environment and report success with its 95 % Wilson interval.",
        ),
        "show": (
            "policy_ft.commands.show",
            "Show a config with the origin of every value, or what is inside a checkpoint.",
        ),
        "convert": (
            "policy_ft.commands.checkpoints",
            "Write a checkpoint in the format of policy_ft, openpi or LeRobot, bit for bit.",
        ),
        "merge": (
            "policy_ft.commands.checkpoints",
            "Write the weights between two checkpoints of one policy, or the mean of several.",
        ),
        "push": (
            "policy_ft.commands.checkpoints",
            "Upload a checkpoint directory to the hub, to a private repository if it is a new one.",
        ),
        "pull": (
            "policy_ft.commands.checkpoints",
            "Download a checkpoint from the hub to a directory; never pickled files.",
        ),
    }

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            if ctx.params["traceback"]:
                raise
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(EXIT_USER_ERROR) from None
        except KeyboardInterrupt:
            print(f"stopped{RESUME_HINTS.get(ctx.invoked_subcommand, '')}", file=sys.stderr)
            raise typer.Exit(EXIT_INTERRUPTED) from None


app = typer.Typer(
    cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)


@app.callback()
def common(
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where in the code a mistake was noticed.")
    ] = False,
) -> None:
    """Fine-tune a vision-language-action policy and measure whether it got better."""


def main() -> None:
    """Run the command line."""
    app()
