"""Writes docs/data-checks.md from the rules: `python -m data_tools.checks.page PATH`."""

import sys
from pathlib import Path

from data_tools.checks.table import page

if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="ascii")
