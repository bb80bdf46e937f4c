"""`python -m data_tools` and the program `robot-data`."""

from data_tools.commands.program import run_program


def main() -> None:
    """Run the command line."""
    run_program("data_tools.cli")


if __name__ == "__main__":
    main()
