"""`python -m eval_envs` and the program `eval-envs`."""

from data_tools.commands.program import run_program


def main() -> None:
    """Run the command line."""
    run_program("eval_envs.cli")


if __name__ == "__main__":
    main()
