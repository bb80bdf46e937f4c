"""A dataset whose training windows start only where a keep-file allows."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from data_tools.conventions import Conventions
from data_tools.episode import Dataset, Episode, Inspected, Observation, StoredFrames
from data_tools.rewrite.edited import StoresJpeg


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


class KeptEpisode:
    """A whole episode of which only some steps may start a window: an `Episode`."""

    def __init__(self, episode: Episode, starts: npt.NDArray[np.int64]) -> None:
        self._episode = episode
        self._starts = starts

    @property
    def name(self) -> str:
        """Where the episode is."""
        return self._episode.name

    @property
    def num_steps(self) -> int:
        """T, the number of actions, starts or not."""
        return self._episode.num_steps

    @property
    def instruction(self) -> str:
        """The task as a sentence."""
        return self._episode.instruction

    @property
    def is_success(self) -> bool | None:
        """Whether the episode reached its goal; None when nobody recorded it."""
        return self._episode.is_success

    @property
    def attributes(self) -> Mapping[str, object]:
        """Everything else recorded about the episode."""
        return self._episode.attributes

    def state(self) -> npt.NDArray[np.float32]:
        """float32[t, s], the state at every step."""
        return self._episode.state()

    def actions(self) -> npt.NDArray[np.float32]:
        """float32[t, a], the action taken at every step."""
        return self._episode.actions()

    def times(self) -> npt.NDArray[np.float64] | None:
        """float64[t], seconds of each step since the first; None where nothing recorded them."""
        return self._episode.times()

    def starts(self) -> npt.NDArray[np.int64]:
        """int64[n], the steps that the keep-file allows."""
        return self._starts

    def image(self, camera: str, step: int) -> npt.NDArray[np.uint8]:
        """uint8[y, x, 3], RGB, upright; decodes this one frame and no other."""
        return self._episode.image(camera, step)

    def jpeg(self, camera: str, step: int) -> bytes | None:
        """The stored JPEG whose decoding is `image(camera, step)`; None when there is none."""
        episode = self._episode
        return episode.jpeg(camera, step) if isinstance(episode, StoresJpeg) else None

    def stored_frames(self, camera: str) -> StoredFrames:
        """How the frames of this camera lie on disk; KeyError when there is no such camera."""
        return self._episode.stored_frames(camera)

    def observation(self, step: int, cameras: Sequence[str]) -> Observation:
        """The observation just before action `step`, with these cameras only."""
        return self._episode.observation(step, cameras)
