"""A dataset whose training windows start only where a keep-file allows."""

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property

import numpy as np
import numpy.typing as npt

from data_tools.columns import WEIGHT
from data_tools.conventions import Conventions
from data_tools.episode import (
    Dataset,
    Episode,
    EpisodeView,
    Inspected,
    StoresJpeg,
    holding_numbers,
)


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
