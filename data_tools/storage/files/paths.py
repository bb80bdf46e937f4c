"""The data files that a path, a folder, a glob or a list of these names."""

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from data_tools.errors import Faults, UserError, describe, raise_faults
from data_tools.finding import Finding
from data_tools.rules import HIDDEN_FILES
from data_tools.storage.files.remote import RemotePath, path_of

HDF5_SUFFIXES = (".hdf5", ".h5")


class DataFiles(NamedTuple):
    """HDF5 files to read, and those that are left out because they are hidden."""

    read: list[Path]
    hidden: list[Path]


def expand(places: Sequence[str | Path]) -> DataFiles:
    """The HDF5 files these places name, in natural order; a missing file stays, to be told later.

    A folder means the files in it and, when it has none of its own, those anywhere below it, as in
    DROID's `success/<date>/<time>/trajectory.h5`. Links to folders are not followed, and hidden
    files are left out. The same goes for URLs of stores that can list their files.

    Raises:
        UserError: a place has no HDF5 file, or one is named twice.
    """
    files: list[Path] = []
    hidden: list[Path] = []
    faults: list[str] = []
    for place in map(path_of, places):
        matches, dotted = visible(_matches(place), _above(place))
        hidden += dotted
        if not matches:
            expected = f"HDF5 files ({' or '.join(HDF5_SUFFIXES)})"
            if not isinstance(place, RemotePath) and os.path.isdir(place):
                expected += ", or a folder with LeRobot's meta/info.json, which names its version"
            found, remedy = "no matching file", "Correct the path."
            if not isinstance(place, RemotePath) and os.path.isfile(place / "meta/info.json"):
                found = "no such file, and a meta/info.json that names no version of LeRobot's"
                remedy = "Convert it to one of these: no other kind of dataset is read."
            if dotted:
                found = f"only hidden files ({len(dotted)}, such as {dotted[0].name!r})"
                remedy = "Rename what is a recording, or name it itself."
            faults.append(describe(str(place), found, expected, remedy))
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
    return DataFiles(files, hidden)


def first_refused(places: Sequence[str | Path], error: UserError) -> Path | None:
    """The first file at these places that an error tells of; None for none."""
    told = str(error)
    files = Faults().of(lambda: expand(places).read) or []  # what expand refuses is in the error
    return next((file for file in files if str(file) in told), None)


def visible(paths: Iterable[Path], place: Path) -> DataFiles:
    """Of what was found at a place, what to read, and what lies hidden there.

    Hidden is what has a name that starts with a point, or lies in such a folder: what macOS, a
    browser of files or an interrupted copy left. What is named itself is not hidden.
    """
    read: list[Path] = []
    hidden: list[Path] = []
    for path in paths:
        names = path.relative_to(place).parts if path.is_relative_to(place) else ()
        (hidden if any(name.startswith(".") for name in names) else read).append(path)
    return DataFiles(read, hidden)


def _above(place: Path) -> Path:
    """A place itself, or the folder in which what a URL's pattern fits is looked for."""
    while isinstance(place, RemotePath) and place.is_pattern:
        place = place.parent  # a store's pattern fits hidden names, too
    return place


def _matches(place: Path) -> list[Path]:
    if isinstance(place, RemotePath):
        is_file = place.suffix in HDF5_SUFFIXES or place.query
        return [place] if is_file and not place.is_pattern else place.files(HDF5_SUFFIXES)
    if os.path.isdir(place):  # no error for a name too long, as below
        return _in_folder(place)
    if glob.has_magic(str(place)) and not os.path.exists(place):
        return [Path(match) for match in glob.glob(str(place), recursive=True)]
    return [place]


def _in_folder(folder: Path) -> list[Path]:
    own = [path for path in folder.iterdir() if path.suffix in HDF5_SUFFIXES]
    if visible(own, folder).read:
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


def hidden_files(place: str | Path, hidden: Sequence[Path]) -> tuple[Finding, ...]:
    """A warning, one for all of them, where hidden files lie at a place that is read."""
    if not hidden:
        return ()
    first = min(hidden, key=lambda path: natural_key(str(path)))
    value = f"hidden files that are not read ({len(hidden)}, first {first})"
    return (HIDDEN_FILES.found(str(place), value),)
