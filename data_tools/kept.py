"""A dataset whose training windows start only where a keep-file allows."""

import hashlib
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from data_tools.conventions import Conventions
from data_tools.episode import Dataset, Episode, EpisodeView, Inspected, StoresJpeg


class KeptDataset:
    """The episodes of a dataset that have a start left: a `Dataset`.

    Its fingerprint is of the data and the starts: other starts make another training set.

    Args:
        dataset: all episodes.
        starts: int64[n] for each of them, rising.
    """

    def __init__(self, dataset: Dataset, starts: Sequence[npt.NDArray[np.int64]]) -> None:
        self._dataset = dataset
        self._starts = starts
        self._indices = [index for index, steps in enumerate(starts) if len(steps)]

    @property
    def conventions(self) -> Conventions:
        """What the data declares about its cameras, state and actions."""
        return self._dataset.conventions

    @property
    def inspected(self) -> Inspected:
        """What was learned about the files when they were opened."""
        return self._dataset.inspected

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
        return KeptEpisode(self._dataset[place], self._starts[place])


class KeptEpisode(EpisodeView):
    """A whole episode of which only some steps may start a window."""

    def __init__(self, episode: Episode, starts: npt.NDArray[np.int64]) -> None:
        super().__init__(episode)
        self._starts = starts

    def starts(self) -> npt.NDArray[np.int64]:
        """int64[n], the steps that the keep-file allows."""
        return self._starts

    def jpeg(self, camera: str, step: int) -> bytes | None:
        """The stored JPEG whose decoding is `image(camera, step)`; None when there is none."""
        episode = self._episode
        return episode.jpeg(camera, step) if isinstance(episode, StoresJpeg) else None
