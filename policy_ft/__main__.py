"""`python -m policy_ft` and the program `policy-ft`."""

import importlib
import os
import signal
from types import FrameType


def main() -> None:
    """Run the command line; Ctrl-C ends it with one line, also in the seconds its imports take."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:
        # an exception raised in the middle of an import may be swallowed there
        signal.signal(signal.SIGINT, _stop)
    cli = importlib.import_module("policy_ft.cli")
    signal.signal(signal.SIGINT, usual)
    cli.main()


def _stop(number: int, frame: FrameType | None) -> None:
    os.write(2, b"stopped\n")  # sys.stderr may be in the middle of a line
    os._exit(130)


if __name__ == "__main__":
    main()
