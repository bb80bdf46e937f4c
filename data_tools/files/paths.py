"""The data files that a path, a folder, a glob or a list of these names."""

import glob
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from data_tools.errors import describe, raise_faults
from data_tools.files.remote import RemotePath, path_of

HDF5_SUFFIXES = (".hdf5", ".h5")


def expand(places: Sequence[str | Path]) -> list[Path]:
    """The HDF5 files these places name, in natural order; a missing file stays, to be told later.

    A folder means the files in it and, when it has none of its own, those anywhere below it, as in
    DROID's `success/<date>/<time>/trajectory.h5`. Links to folders are not followed. The same goes
    for URLs of stores that can list their files.

    Raises:
        UserError: a place has no HDF5 file, or one is named twice.
    """
    files: list[Path] = []
    faults: list[str] = []
    for place in map(path_of, places):
        if isinstance(place, RemotePath):
            is_file = place.suffix in HDF5_SUFFIXES or place.query
            matches = [place] if is_file and not place.is_pattern else place.files(HDF5_SUFFIXES)
        elif os.path.isdir(place):  # no error for a name too long, as below
            matches = _in_folder(place)
        elif glob.has_magic(str(place)) and not os.path.exists(place):
            matches = [Path(match) for match in glob.glob(str(place), recursive=True)]
        else:
            matches = [place]
        if not matches:
            expected = f"HDF5 files ({' or '.join(HDF5_SUFFIXES)})"
            faults.append(describe(str(place), "no matching file", expected, "Correct the path."))
        files += sorted(matches, key=lambda path: natural_key(str(path)))
    counts = Counter(os.path.realpath(path) for path in files)
    repeated = sorted(path for path, count in counts.items() if count > 1)
    if repeated:
        found, remedy = f"{repeated} more than once", "Give each file once."
        faults.append(describe("paths", found, "each file once", remedy))
    if not places:
        expected = "at least one file, folder or glob"
        faults.append(describe("paths", "an empty list", expected, "Give one."))
    raise_faults(faults)
    return files


def _in_folder(folder: Path) -> list[Path]:
    own = [path for path in folder.iterdir() if path.suffix in HDF5_SUFFIXES]
    if own:
        return own
    return [
        Path(above) / name
        for above, _, names in os.walk(folder)
        for name in names
        if name.endswith(HDF5_SUFFIXES)
    ]


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sorting key that puts demo_2 before demo_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
