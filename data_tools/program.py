"""Programs that end with one line on Ctrl-C, also in the seconds that their imports take."""

import importlib
import os
import signal
from types import FrameType


def run_program(module: str) -> None:
    """Import a command line and run its `main`."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:
        # an exception raised in the middle of an import may be swallowed there
        signal.signal(signal.SIGINT, _stop)
    program = importlib.import_module(module)
    signal.signal(signal.SIGINT, usual)
    program.main()


def _stop(number: int, frame: FrameType | None) -> None:
    os.write(2, b"stopped\n")  # sys.stderr may be in the middle of a line
    os._exit(130)
