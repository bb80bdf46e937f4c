"""Keep-files: at which steps of a dataset a training window may start; no data are changed.

A dataset whose training windows start only where a keep-file allows.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError, model_validator

from data_tools.columns import WEIGHT, in_all_steps, value_faults
from data_tools.conventions import Conventions
from data_tools.declaration import Declaration, Number, faults_in_file
from data_tools.episode import (
    Dataset,
    Episode,
    EpisodeView,
    Inspected,
    StoresJpeg,
    holding_numbers,
)
from data_tools.errors import UserError, describe, raise_faults

FORMAT: Final = "policy_ft keep ranges 1"

Ranges = tuple[tuple[int, int], ...]


class KeepRanges(Declaration):
    """The steps to keep of each episode, as ranges [start, stop); an episode not named has none."""

    format: Literal["policy_ft keep ranges 1"] = Field(description="Which kind of file this is.")
    fingerprint: str = Field(description="Fingerprint of the dataset the ranges were made for.")
    rule: str = Field(description="How the steps were chosen, for a reader.")
    episodes: dict[str, Ranges] = Field(description="Relative name of an episode to its ranges.")
    weights: dict[str, Number | tuple[Number, ...]] = Field(
        {},
        description="Relative name of an episode to how much it counts in training: one number, or "
        "one for each of its steps, kept or not. The data's own weights then play no part, and an "
        "episode without any counts 1.",
    )

    @model_validator(mode="after")
    def _rising(self) -> Self:
        for name, ranges in self.episodes.items():
            ends = [end for each in ranges for end in each]
            is_empty = any(start >= stop for start, stop in ranges)
            if ends != sorted(ends) or is_empty or min(ends, default=0) < 0:
                raise ValueError(
                    f"episodes[{name!r}]: found {list(ranges)}; expected rising ranges "
                    "[start, stop) that do not overlap. Make the file again with the command that "
                    "made it (robot-data filter or split)."
                )
        return self


def relative_names(names: Sequence[str]) -> list[str]:
    """Names of episodes without the folder their files share: 'pick.hdf5:data/demo_3'.

    A file has one name whether it was given by an absolute or a relative path.

    Args:
        names: of all episodes of one dataset, e.g. 'demos/pick.hdf5:data/demo_3'.
    """
    places = [name.rpartition(":") if ":" in name else (name, "", "") for name in names]
    folders = [os.path.dirname(os.path.abspath(path)) for path, _, _ in places]
    folder = os.path.commonpath(folders or ["."])
    return [
        f"{Path(os.path.relpath(path, folder)).as_posix()}{colon}{group}"
        for path, colon, group in places
    ]


def keep_steps(
    dataset: Dataset,
    is_kept: Sequence[npt.NDArray[np.bool_]],
    rule: str,
    weights: Sequence[float | npt.NDArray[np.floating]] = (),
) -> KeepRanges:
    """The keep-file of these steps.

    Args:
        dataset: what the steps belong to.
        is_kept: bool[t] for each episode, true where a window may start.
        rule: how they were chosen.
        weights: how much each episode counts in training, or float[t], each of its steps; empty
            leaves that to the data.
    """
    names = relative_names([dataset[index].name for index in range(len(dataset))])
    ranges = {name: ranges_of(kept) for name, kept in zip(names, is_kept, strict=True)}
    weighed = {
        name: float(each) if np.ndim(each) == 0 else tuple(np.asarray(each, float).tolist())
        for name, each in zip(names, weights, strict=bool(len(weights)))
    }
    return KeepRanges(
        format=FORMAT,
        fingerprint=dataset.fingerprint,
        rule=rule,
        episodes=ranges,
        weights=weighed,
    )


def ranges_of(is_kept: npt.NDArray[np.bool_]) -> Ranges:
    """Ranges [start, stop) of the true values: [F, T, T, F, T] gives (1, 3), (4, 5)."""
    edges = np.flatnonzero(np.diff(np.r_[False, is_kept, False].astype(np.int8)))
    return tuple((int(start), int(stop)) for start, stop in edges.reshape(-1, 2))


def steps_of(ranges: Ranges) -> npt.NDArray[np.int64]:
    """int64[n]: the steps in these ranges, the inverse of `ranges_of`."""
    parts = [np.arange(start, stop, dtype=np.int64) for start, stop in ranges]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def read_keep(path: Path) -> KeepRanges:
    """The keep-file at this path; UserError when it is missing or says something impossible."""
    try:
        return KeepRanges.model_validate_json(path.read_bytes())
    except OSError as error:
        remedy = "Correct the path, or make it with robot-data filter or split."
        raise UserError(describe(str(path), str(error.strerror), "a keep-file", remedy)) from error
    except ValidationError as error:
        remedy = "Make the file again with robot-data filter or split."
        raise UserError(faults_in_file(error, KeepRanges, path, remedy)) from error


def renamed(keep: KeepRanges, fingerprint: str, names: Sequence[str]) -> KeepRanges:
    """The same ranges under the names that the episodes have now.

    Where the fingerprint is the dataset's, its episodes are the same in the same order, whatever
    their file or folder is called.

    Args:
        keep: as it was made.
        fingerprint: of the dataset.
        names: relative names of its episodes, in order.
    """
    if keep.fingerprint != fingerprint or len(keep.episodes) != len(names):
        return keep
    new = dict(zip(keep.episodes, names, strict=True))
    episodes = {new[name]: ranges for name, ranges in keep.episodes.items()}
    weights = {new.get(name, name): each for name, each in keep.weights.items()}
    return keep.model_copy(update={"episodes": episodes, "weights": weights})


def require_fits(
    keep: KeepRanges, path: Path, fingerprint: str, lengths: Mapping[str, int]
) -> None:
    """UserError when a keep-file was made for other data.

    Args:
        keep: the keep-file's content.
        path: how messages call it.
        fingerprint: of the dataset it is used with.
        lengths: relative name of each of its episodes to the number of steps.
    """
    remedy = "Make the keep-file again for this dataset, with robot-data filter or split."
    faults = []
    if keep.fingerprint != fingerprint:
        found, expected = f"fingerprint {keep.fingerprint[:12]}", f"{fingerprint[:12]} of the data"
        faults.append(describe(str(path), found, expected, remedy))
    for name, ranges in keep.episodes.items():
        if name not in lengths:
            expected = f"one of the {len(lengths)} episodes, such as {next(iter(lengths), '')!r}"
            faults.append(describe(str(path), f"the episode {name!r}", expected, remedy))
        elif ranges and ranges[-1][1] > lengths[name]:
            found, expected = f"steps to {ranges[-1][1]}", f"at most {lengths[name]}"
            faults.append(describe(f"{path}, {name}", found, expected, remedy))
    raise_faults([*faults, *_weight_faults(keep, path, lengths)])


def _weight_faults(keep: KeepRanges, path: Path, lengths: Mapping[str, int]) -> Iterator[str]:
    """Weights of what is no episode, of too many or too few steps, below 0, or not finite."""
    for name, given in keep.weights.items():
        where = f"{path}, weights, {name}"
        if name not in lengths:
            expected = f"one of the {len(lengths)} episodes, such as {next(iter(lengths), '')!r}"
            yield describe(where, f"the episode {name!r}", expected, "Correct the name.")
            continue
        values = weights_of(given, lengths[name])
        yield from value_faults(where, WEIGHT, values, lengths[name])


def weights_of(given: float | tuple[float, ...], num_steps: int) -> npt.NDArray[np.float32]:
    """float32[n]: the weights that a keep-file gives for an episode; n is num_steps if it fits."""
    if isinstance(given, float):
        return in_all_steps(given, num_steps)
    with np.errstate(over="ignore"):  # infinite then, which is told
        return np.array(given, dtype=np.float32)


class KeptDataset:
    """The episodes of a dataset that have a start left: a `Dataset`.

    Its fingerprint is of the data and the starts: other starts make another training set.

    Args:
        dataset: all episodes.
        starts: int64[n] for each of them, rising.
        weights: float32[t] for each of them, in place of the data's own column 'weight'; None
            leaves that to the data.
    """

    def __init__(
        self,
        dataset: Dataset,
        starts: Sequence[npt.NDArray[np.int64]],
        weights: Sequence[npt.NDArray[np.float32]] | None = None,
    ) -> None:
        self._dataset = dataset
        self._starts = starts
        self._weights = weights
        self._indices = [index for index, steps in enumerate(starts) if len(steps)]

    @property
    def conventions(self) -> Conventions:
        """What the data declares about its cameras, state and actions."""
        return self._dataset.conventions

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that episodes have."""
        return _with_weight(self._dataset.columns, is_there=self._weights is not None)

    @property
    def inspected(self) -> Inspected:
        """What was learned about the files when they were opened."""
        return self._dataset.inspected

    def holding(self) -> AbstractContextManager[object]:
        """Within it numbers that were read stay in memory, all of them."""
        return holding_numbers(self._dataset)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hex over the fingerprint of the data and the starts."""
        digest = hashlib.sha256(self._dataset.fingerprint.encode())
        for steps in self._starts:
            digest.update(len(steps).to_bytes(8, "little"))
            digest.update(np.ascontiguousarray(steps, dtype="<i8").tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> "KeptEpisode":
        place = self._indices[index]
        weights = None if self._weights is None else self._weights[place]
        return KeptEpisode(self._dataset[place], self._starts[place], weights)


def _with_weight(columns: tuple[str, ...], *, is_there: bool) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*columns, WEIGHT))) if is_there else columns


class KeptEpisode(EpisodeView):
    """A whole episode of which only some steps may start a window."""

    def __init__(
        self,
        episode: Episode,
        starts: npt.NDArray[np.int64],
        weights: npt.NDArray[np.float32] | None = None,
    ) -> None:
        super().__init__(episode)
        self._starts = starts
        self._weights = weights

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what is said of each step, by the data or the keep-file."""
        return _with_weight(self._episode.columns, is_there=self._weights is not None)

    def column(self, name: str) -> npt.NDArray[np.float32]:
        """float32[t] or float32[t, n]; the weights are the keep-file's, where it has any."""
        if name == WEIGHT and self._weights is not None:
            return self._weights
        return self._episode.column(name)

    def starts(self) -> npt.NDArray[np.int64]:
        """int64[n], the steps that the keep-file allows."""
        return self._starts

    def jpeg(self, camera: str, step: int) -> bytes | None:
        """The stored JPEG whose decoding is `image(camera, step)`; None when there is none."""
        episode = self._episode
        return episode.jpeg(camera, step) if isinstance(episode, StoresJpeg) else None
