"""`python -m policy_ft` is `policy-ft`."""

import importlib
import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it with one line, also in the seconds its imports take."""
    try:
        importlib.import_module("policy_ft.cli").main()
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
