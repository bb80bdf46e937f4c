"""Statistics that lie beside the data: do they still fit it?

A training that reads them scales the robot's motions by numbers of other data, and shows nothing.
LeRobot's stats.json is of the columns as they are stored, so each must fit. openpi's
norm_stats.json and OpenVLA's dataset_statistics.json are of transformed numbers (padded, signs of
joints turned, a gripper in other units, of the training split alone): there most columns of the
state must fit.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from data_tools.doctor.checks.recording import Extent, FloatArray, Spread
from data_tools.doctor.checks.roles import Part
from data_tools.finding import DATASET, Rule, Told, not_checked
from data_tools.storage.files.paths import HDF5_SUFFIXES

FILES: Final = ("stats.json", "norm_stats.json", "dataset_statistics.json")
FOLDERS: Final = (".", "meta")
MAX_BYTES: Final = 64 << 20
_NAMES: Final[Mapping[str, Part]] = {
    **dict.fromkeys(("observation.state", "state", "proprio"), "state"),
    **dict.fromkeys(("action", "actions"), "action"),
}
# LeRobot's own name: of the columns as they are stored.
_EXACT: Final = ("observation.state", "action")
_DEPTH: Final = 3
# How far a mean may be off [deviations], and by what factor a deviation, where both may be of a
# split of the data.
MAX_OFF: Final = 0.5
MAX_FACTOR: Final = 1.5
MIN_FITTING: Final = 0.5
# A column that moves less than this is scaled by nobody.
STILL: Final = 1e-6

STALE_STATISTICS = Rule(
    name="stale_statistics",
    severity="warning",
    sentence="Statistics that lie beside the data are not those of the data.",
    threshold=f"means within {MAX_OFF:g} deviations, deviations within a factor {MAX_FACTOR:g}",
    remedy="Compute them anew (robot-data stats), or delete the file: the data was changed since, "
    "or it is of other data.",
)
RULES = (STALE_STATISTICS,)


class _Told(NamedTuple):
    """What a file says of the state or the actions."""

    name: str
    part: Part
    mean: FloatArray
    std: FloatArray
    num_steps: int | None


def check_statistics(
    files: Sequence[str], extents: Mapping[Part, Sequence[Extent]], *, is_whole: bool
) -> Iterator[Told]:
    """Statistics beside the files, or in a LeRobot folder's `meta`, that are of other data.

    Args:
        files: that were opened, or a LeRobot folder.
        extents: of the state and the actions of the episodes.
        is_whole: whether these are all the episodes.
    """
    paths = _beside(files)
    if not paths:
        why = f"none of {', '.join(FILES)} lies beside the data"
        yield not_checked(DATASET, why, STALE_STATISTICS)
    for path in paths:
        if not is_whole or not extents["state"]:
            why = "not all numbers of the data are known"
            yield not_checked(str(path), why, STALE_STATISTICS)
            continue
        if not _is_of_all(path, files):
            why = "it lies beside other data, too, which was not opened"
            yield not_checked(str(path), why, STALE_STATISTICS)
            continue
        yield from _check_file(
            path,
            {part: Spread.of([*each]) for part, each in extents.items()},
            sum(each.num_steps for each in extents["state"]),
        )


def _beside(files: Sequence[str]) -> list[Path]:
    places = [Path(file) for file in files if "://" not in file]
    folders = dict.fromkeys(place if place.is_dir() else place.parent for place in places)
    paths = [folder / below / name for folder in folders for below in FOLDERS for name in FILES]
    return [path for path in paths if path.is_file() and path.stat().st_size <= MAX_BYTES]


def _is_of_all(path: Path, files: Sequence[str]) -> bool:
    """Whether every recording that lies beside the file was opened."""
    opened = {Path(file).resolve() for file in files}
    folder = path.parent.parent if path.parent.name == "meta" else path.parent
    if folder.resolve() in opened:
        return True
    there = [each for each in folder.iterdir() if each.suffix in HDF5_SUFFIXES]
    return all(each.resolve() in opened for each in there if not each.name.startswith("."))


def _check_file(path: Path, spreads: Mapping[Part, Spread], num_steps: int) -> Iterator[Told]:
    try:
        told = [*_statistics(json.loads(path.read_text(encoding="utf-8")))]
    except (OSError, ValueError, RecursionError) as error:
        yield not_checked(
            str(path), f"it cannot be read as JSON of numbers ({type(error).__name__})", *RULES
        )
        return
    fitting = [each for each in told if len(each.mean) >= len(spreads[each.part].mean)]
    if not fitting:
        yield not_checked(str(path), "it names no statistics of as many columns", *RULES)
    for each in fitting:
        is_exact = each.name in _EXACT
        misfits = _misfits(each, spreads[each.part], is_exact=is_exact)
        if is_exact and each.num_steps not in (None, num_steps):
            value = f"{each.name!r} of {each.num_steps} steps, and {num_steps} in the data"
            yield STALE_STATISTICS.found(str(path), value)
            continue
        columns = len(spreads[each.part].mean)
        is_stored = is_exact and len(each.mean) == columns
        is_mostly_off = each.part == "state" and len(misfits) > MIN_FITTING * columns
        if misfits and (is_stored or is_mostly_off):
            yield STALE_STATISTICS.found(str(path), _worst(each, spreads[each.part], misfits))


def _misfits(told: _Told, spread: Spread, *, is_exact: bool) -> list[int]:
    """Columns of which mean or deviation is another; where they may be turned, but for the sign."""
    mean, std = (each[: len(spread.mean)] for each in (told.mean, told.std))
    scale = np.maximum(spread.std, STILL)
    off = np.abs(mean - spread.mean)
    if not is_exact:
        off = np.minimum(off, np.abs(mean + spread.mean))
    factor = np.maximum(std, STILL) / scale
    is_off = (off > MAX_OFF * scale) | (np.abs(np.log(factor)) > np.log(MAX_FACTOR))
    return np.flatnonzero(is_off & (spread.high - spread.low > STILL)).tolist()


def _worst(told: _Told, spread: Spread, misfits: Sequence[int]) -> str:
    column = max(misfits, key=lambda each: abs(told.mean[each] - spread.mean[each]))
    return (
        f"{told.name!r}, column {column}: mean {told.mean[column]:.4g} +- {told.std[column]:.4g}, "
        f"and {spread.mean[column]:.4g} +- {spread.std[column]:.4g} in the data "
        f"({len(misfits)} of {len(spread.mean)} columns differ)"
    )


def _statistics(content: Any, name: str = "", depth: int = 0) -> Iterator[_Told]:
    """Every mean with its deviation that is said of the state or the actions."""
    if not isinstance(content, dict) or depth > _DEPTH:
        return
    if name in _NAMES and "mean" in content and "std" in content:
        mean, std = (np.asarray(content[key], dtype=np.float64) for key in ("mean", "std"))
        if mean.ndim == 1 and mean.shape == std.shape:
            yield _Told(name, _NAMES[name], mean, std, _count(content.get("count")))
        return
    for key, value in content.items():
        yield from _statistics(value, str(key), depth + 1)


def _count(told: Any) -> int | None:
    """The steps that LeRobot says a statistic is of, as [n]."""
    match told:
        case [int(count)]:
            return count
    return None
