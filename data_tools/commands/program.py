"""Programs that end with one line on Ctrl-C, also in the seconds that their imports take."""

import importlib
import os
import signal
from types import FrameType, ModuleType


def run_program(module: str) -> None:
    """Import a command line and run its `main`."""
    import_stoppably(module).main()


def import_stoppably(module: str) -> ModuleType:
    """The module, imported; Ctrl-C ends the process at once while that lasts."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:
        # an exception raised in the middle of an import may be swallowed there
        signal.signal(signal.SIGINT, _stop)
    try:
        return importlib.import_module(module)
    finally:
        signal.signal(signal.SIGINT, usual)


def _stop(number: int, frame: FrameType | None) -> None:
    os.write(2, b"stopped\n")  # sys.stderr may be in the middle of a line
    os._exit(130)
