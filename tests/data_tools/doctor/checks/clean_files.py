"""Clean sets of the benchmarks as files, each simulated and filmed once in a session."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from benchmarks.clean_sets.sets import SETS


@cache
def clean_file(name: str) -> Path:
    """The file of the clean set of this name."""
    (chosen,) = (each for each in SETS if each.name == name)
    return chosen.write(Path(mkdtemp(prefix="clean_set_")) / "demos.hdf5")
