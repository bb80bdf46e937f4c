"""`python -m policy_ft` and the program `policy-ft`."""

from data_tools.commands.program import run_program


def main() -> None:
    """Run the command line."""
    run_program("policy_ft.cli")


if __name__ == "__main__":
    main()
