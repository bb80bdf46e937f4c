"""The undamaged data that the fuzz starts from: every layout and every kind of LeRobot folder."""

import json
from pathlib import Path

from data_tools.formats.layouts.sidecar import FOLDER_SIDECAR
from data_tools.storage.files.paths import HDF5_SUFFIXES
from tests.data_tools.formats.lerobot.conftest import info_of, write_v21, write_v30
from tests.data_tools.layout_cases import CASES, Case, written

LEROBOT_KINDS = tuple(f"{v}_{mode}" for v in ("v2.1", "v3.0") for mode in ("image", "video"))
LAYOUTS = tuple(case.layout for case in CASES)
PLACE = "place.txt"  # in the folder of each: the name of what to open


def write_originals(folder: Path) -> None:
    """A folder of this name for every layout and every kind of LeRobot folder."""
    for case in CASES:
        _write_layout(case, folder / case.layout)
    for kind in LEROBOT_KINDS:
        version, _, mode = kind.partition("_")
        demos = folder / kind / "demos"
        (demos / "meta").mkdir(parents=True)
        (demos / "meta/info.json").write_text(json.dumps(info_of(version, mode)))
        {"v2.1": write_v21, "v3.0": write_v30}[version](demos, mode)
        (folder / kind / PLACE).write_text(demos.name)


def place_of(folder: Path) -> Path:
    """What to open in a folder of `write_originals`."""
    return folder / (folder / PLACE).read_text()


def hdf5_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in HDF5_SUFFIXES)


def other_files(folder: Path) -> list[Path]:
    """Every file beside the HDF5 files but our own sidecar, which a person writes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    ours = (FOLDER_SIDECAR, PLACE)
    return [f for f in files if f.suffix not in HDF5_SUFFIXES and f.name not in ours]


def _write_layout(case: Case, folder: Path) -> None:
    path = written(case, folder)
    (folder / PLACE).write_text(str(path.relative_to(folder)))
    if case.sidecar:
        (path.parent if path.is_file() else path).joinpath(FOLDER_SIDECAR).write_text(case.sidecar)
