"""Commands whose modules are imported when one is run, so that a program's `--help` is at once."""

from collections.abc import Mapping
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from data_tools.commands.program import import_stoppably

CommandTable = Mapping[str, tuple[str, str]]


class LateCommand(TyperCommand):
    """A command that lies in a module's `app`, known by name and first sentence until it is run.

    Args:
        name: what a person types.
        module: dotted name of the module whose `app` has the command.
        summary: the first sentence of its help.
    """

    def __init__(self, name: str, module: str, summary: str) -> None:
        super().__init__(name, help=summary)
        self.module = module

    def loaded(self) -> Any:
        """The command itself."""
        program = typer.main.get_command(import_stoppably(self.module).app)
        return program.commands[str(self.name)] if isinstance(program, TyperGroup) else program

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """The command's own context, in which it parses its arguments and runs."""
        return self.loaded().make_context(info_name, args, parent, **extra)


class LateGroup(TyperGroup):
    """A program of late commands; a subclass names them.

    Attributes:
        table: name -> module and first sentence, in the order of the help.
    """

    table: ClassVar[CommandTable] = {}

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, (module, summary) in self.table.items():
            self.add_command(LateCommand(name, module, summary))
