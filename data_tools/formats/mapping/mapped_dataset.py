"""MappedDataset: a dataset as another declares its cameras and columns; a view, no copy."""

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from data_tools.conventions import Conventions
from data_tools.episode import (
    Dataset,
    Episode,
    EpisodeView,
    Inspected,
    Observation,
    StoredFrames,
    holding_numbers,
)
from data_tools.formats.mapping.mapped_conventions import Columns, Mapped, mapped
from data_tools.formats.mapping.mapping import ConventionsMapping, map_columns
from data_tools.storage.frames.images import resize_center_pad


class MappedDataset:
    """A `Dataset` whose cameras and columns are named, ordered, sized and signed as the target's.

    Its fingerprint is of the data, the mapping and the target.

    Args:
        dataset: what is mapped.
        target: the declaration to follow.
        mapping: what a person says about the two.

    Raises:
        UserError: as `data_tools.formats.mapping.mapped_conventions.mapped`.
    """

    def __init__(self, dataset: Dataset, target: Conventions, mapping: ConventionsMapping) -> None:
        self._dataset = dataset
        self._mapping = mapping
        self._mapped = mapped(dataset.conventions, target, mapping)

    @property
    def conventions(self) -> Conventions:
        """What the mapped episodes deliver; cameras they lack are left out."""
        return self._mapped.conventions

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that episodes have."""
        return self._dataset.columns

    @property
    def inspected(self) -> Inspected:
        """What was learned about the files when they were opened."""
        return self._dataset.inspected

    def holding(self) -> AbstractContextManager[object]:
        """Within it numbers that were read stay in memory, all of them."""
        return holding_numbers(self._dataset)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hex over the fingerprint of the data, the mapping and what it delivers.

        Signs and sizes follow the target without a word in the mapping.
        """
        digest = hashlib.sha256(self._dataset.fingerprint.encode())
        digest.update(self._mapping.model_dump_json().encode())
        digest.update(self.conventions.model_dump_json().encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> "MappedEpisode":
        return MappedEpisode(self._dataset[index], self._mapped)


class MappedEpisode(EpisodeView):
    """An episode as the target declares it."""

    def __init__(self, episode: Episode, how: Mapped) -> None:
        super().__init__(episode)
        self._how = how

    def state(self) -> npt.NDArray[np.float32]:
        """float32[t, s], the state at every step, columns as the target's."""
        return _mapped_columns(self._episode.state(), self._how.state)

    def actions(self) -> npt.NDArray[np.float32]:
        """float32[t, a], the action taken at every step, columns as the target's."""
        return _mapped_columns(self._episode.actions(), self._how.action)

    def image(self, camera: str, step: int) -> npt.NDArray[np.uint8]:
        """uint8[y, x, 3], RGB, upright, of the target's size: whole, on black; decodes one frame.

        Raises:
            KeyError: the target has no such camera, or the dataset lacks it.
        """
        spec = self._how.conventions.camera(camera)
        frame = self._episode.image(self._how.cameras[camera], step)
        return resize_center_pad(frame, spec.height, spec.width)

    def stored_frames(self, camera: str) -> StoredFrames:
        """How the frames of this camera lie on disk, before they are mapped."""
        self._how.conventions.camera(camera)
        return self._episode.stored_frames(self._how.cameras[camera])

    def observation(self, step: int, cameras: Sequence[str]) -> Observation:
        """The observation just before action `step`, with these cameras only."""
        seen = self._episode.observation(step, ())  # whose instruction may be the step's own
        images = {camera: self.image(camera, step) for camera in cameras}
        return replace(seen, images=images, state=_mapped_columns(seen.state, self._how.state))


def _mapped_columns(values: npt.NDArray[np.float32], columns: Columns) -> npt.NDArray[np.float32]:
    chosen = values[..., list(columns.places)]
    return map_columns(chosen, columns.maps, columns.names).astype(np.float32)
