"""Columns: what data says of each step beside state and action; and a name for all its numbers."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from data_tools.conventions import CameraSpec, Conventions
from data_tools.episode import Dataset, Episode
from data_tools.errors import Faults, UserError, describe, nearest, raise_faults

WEIGHT: Final = "weight"
"""The column that says how much each step counts in training: 0 not at all, 2 twice as much as 1.
Only the ratios matter."""

NAME_PATTERN: Final = r"[A-Za-z_][A-Za-z0-9_]*"


def missing_column(where: str, name: str, known: Iterable[str]) -> UserError:
    """What an episode raises that has no column of a name.

    Args:
        where: how messages call the episode.
        name: the column that was asked for.
        known: the columns that the episode has.
    """
    listed = [*known]
    hint = nearest(name, listed)
    line = f"`layout: {{columns: {{{name}: ...}}}}`"
    remedy = f"Declare where it is in the sidecar, {line} (docs/bring-your-own-hdf5.md)"
    remedy += f"; {hint}" if hint else "."
    return UserError(describe(where, f"the columns {listed}", f"{name!r} too", remedy))


def column_where(episode: Episode, name: str) -> str:
    """How messages call a column of an episode."""
    return f"{episode.name}, column {name!r}"


def column_faults(dataset: Dataset, names: Sequence[str]) -> list[str]:
    """Why these columns cannot be used: of every episode, at the first step; empty when they can.

    Each episode must have them, a row a step, finite. A weight is one number a step, at least 0,
    and above 0 somewhere. Reads no state, action or image.

    Args:
        dataset: the episodes.
        names: of the columns.
    """
    faults, has_weight = Faults(), False
    for index in range(len(dataset)):
        episode = dataset[index]
        for name in names:
            values = faults.of(partial(episode.column, name))
            if values is None:
                continue
            where = column_where(episode, name)
            faults.extend(value_faults(where, name, values, episode.num_steps))
            has_weight |= name == WEIGHT and bool((values > 0).any())
    if WEIGHT in names and not has_weight and not faults.listed:
        found, expected = f"0 at every step of {len(dataset)} episodes", "a weight above 0"
        remedy = "Correct the column: nothing would be trained on."
        faults.extend([describe(f"column {WEIGHT!r}", found, expected, remedy)])
    return faults.listed


def value_faults(
    where: str, name: str, values: npt.NDArray[np.floating], num_steps: int
) -> Iterator[str]:
    """What is wrong with the numbers of one column of an episode, at the first step of each kind.

    Args:
        where: how messages call the column.
        name: of the column.
        values: float[t] or float[t, n].
        num_steps: t, of the episode.
    """
    if len(values) != num_steps:
        found, expected = f"{len(values)} rows", f"{num_steps}, one a step"
        yield describe(where, found, expected, "Trim the column, or record it again.")
        return
    if name == WEIGHT and values.ndim != 1:
        found = f"{values.shape[1]} numbers a step"
        yield describe(where, found, "one", "Name one column of them, or another dataset.")
        return
    by_step = values.reshape(len(values), -1)
    for is_bad, expected in (
        (~np.isfinite(by_step).all(axis=1), "finite numbers"),
        ((by_step < 0).any(axis=1) & (name == WEIGHT), "weights of at least 0"),
    ):
        if is_bad.any():
            step = int(np.argmax(is_bad))
            shown = by_step[step][0] if by_step.shape[1] == 1 else by_step[step].tolist()
            found = f"{shown} ({int(is_bad.sum())} such steps)"
            yield describe(f"{where}, step {step}", found, expected, "Correct the values.")


def fingerprint_with(dataset: Dataset, names: Iterable[str]) -> str:
    """SHA-256 in hex over the fingerprint of a dataset and columns of it; without any, the former.

    Args:
        dataset: the episodes.
        names: of the columns, in any order; an episode may lack some.
    """
    columns = sorted({*names})
    if not columns:
        return dataset.fingerprint
    digest = hashlib.sha256(dataset.fingerprint.encode())
    for name in columns:
        digest.update(f"\n{name}\n".encode())
        for index in range(len(dataset)):
            episode = dataset[index]
            if name not in episode.columns:
                digest.update(b"none")
                continue
            values = np.ascontiguousarray(episode.column(name), dtype="<f4")
            digest.update(repr(values.shape).encode())
            digest.update(values.tobytes())
    return digest.hexdigest()


def in_all_steps(value: float, num_steps: int) -> npt.NDArray[np.float32]:
    """float32[num_steps]: the column of an episode whose steps all have one number."""
    with np.errstate(over="ignore"):  # infinite then, which `value_faults` tells
        return np.full(num_steps, value, dtype=np.float32)


def widths(dataset: Dataset) -> dict[str, int]:
    """Name -> numbers a step, of the columns that every episode has, where the widths are one.

    Args:
        dataset: the episodes.

    Raises:
        UserError: an episode lacks a column that another has, or has it of another width.
    """
    found: dict[str, int] = {}
    faults = Faults()
    for index in range(len(dataset)):
        episode = dataset[index]
        for name in dataset.columns:
            values = faults.of(partial(episode.column, name))
            if values is None:
                continue
            width = 1 if values.ndim == 1 else values.shape[1]
            if found.setdefault(name, width) != width:
                where = column_where(episode, name)
                expected = f"{found[name]}, as in {dataset[0].name}"
                remedy = "Correct the column, or leave it out of the sidecar."
                faults.extend([describe(where, f"{width} numbers a step", expected, remedy)])
    raise_faults(faults.listed)
    return found


def columns_of_all(datasets: Iterable[Dataset]) -> tuple[str, ...]:
    """The columns that episodes of any of these datasets have, each once, in order."""
    return tuple(dict.fromkeys(name for dataset in datasets for name in dataset.columns))


def fingerprint(
    conventions: Conventions,
    episodes: Iterable[Episode],
    stored: Iterable[Sequence[CameraSpec]] = (),
    pairing: str = "",
) -> str:
    """SHA-256 in hex over the conventions and each episode's instruction, states and actions.

    Episodes count in their order. Paths, file layout, attributes and pixels do not enter: a moved
    or repacked dataset keeps its fingerprint, and no frame is read. How frames are turned enters
    where they are: another declaration of it makes other pictures of the same pixels. So does what
    pairs them with steps.

    Args:
        conventions: what the episodes deliver.
        episodes: in their order.
        stored: cameras of each episode as they lie on disk, where they may differ from that.
        pairing: how a person wants frames to be found for steps; '' where nobody said.
    """
    digest = hashlib.sha256()
    _add(digest, conventions.model_dump_json().encode())
    for episode in episodes:
        _add(digest, episode.instruction.encode())
        for array in (episode.state(), episode.actions()):
            _add(digest, repr(array.shape).encode())
            _add(digest, np.ascontiguousarray(array, dtype="<f4").tobytes())
    delivered = {camera.name: _view(camera) for camera in conventions.cameras}
    for index, cameras in enumerate(stored):
        for camera in cameras:
            if _view(camera) != delivered[camera.name]:
                _add(digest, f"{index} {camera.name} {_view(camera)}".encode())
    if pairing:
        _add(digest, pairing.encode())
    return digest.hexdigest()


def _view(camera: CameraSpec) -> tuple[str, str]:
    return camera.color_order, camera.orientation


def _add(digest: "hashlib._Hash", data: bytes) -> None:
    # The length goes first, so that no two sequences of parts give the same stream of bytes.
    digest.update(len(data).to_bytes(8, "little"))
    digest.update(data)
