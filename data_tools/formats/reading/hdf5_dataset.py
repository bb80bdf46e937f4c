"""Hdf5Dataset: episodes in HDF5 files, read through the records a walk over them made."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property

import numpy as np
import numpy.typing as npt

from data_tools.columns import fingerprint, in_all_steps, missing_column
from data_tools.conventions import Conventions
from data_tools.episode import Inspected, Observation, StoredFrames
from data_tools.errors import UserError, describe
from data_tools.formats.reading.hdf5_store import Store
from data_tools.formats.reading.records import ArraySource, EpisodeRecord, EpisodeRecords
from data_tools.storage.frames.images import JPEG_START, UndecodableFrameError
from data_tools.storage.hdf5.opening import Stamp
from data_tools.storage.hdf5.soundness import UNREADABLE

LEAVE_OUT = "Leave the episode out or record it again."


class Hdf5Dataset:
    """Episodes of HDF5 files: a `Dataset`. Picklable; each process opens the files it reads.

    Attributes:
        conventions: what the episodes deliver: the declared ones, with every camera RGB and
            upright, because frames are turned when they are read.
        inspected: what was learned about the files when they were opened.

    Args:
        records: where each episode is.
        conventions: as above.
        inspected: as above.
        stamps: path -> size and time of each file when it was looked at; one that has changed since
            is refused.
    """

    def __init__(
        self,
        records: EpisodeRecords,
        conventions: Conventions,
        inspected: Inspected,
        stamps: Mapping[str, Stamp],
    ) -> None:
        self.conventions = conventions
        self.inspected = inspected
        self._records = records
        self._store = Store(stamps)

    @property
    def records(self) -> Sequence[EpisodeRecord]:
        """Where each episode's numbers and frames are."""
        return self._records

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that episodes have, which may not be all of them."""
        return self._records.columns

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> "Hdf5Episode":
        return Hdf5Episode(self._records[index], self.conventions, self._store)

    def holding(self) -> AbstractContextManager[None]:
        """Within it numbers that were read stay in memory, all of them."""
        return self._store.holding()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hex over instructions, states, actions and conventions; reads no image.

        How frames are turned counts where they are not stored as they are delivered.
        """
        episodes = (self[index] for index in range(len(self)))
        cameras = ([image.camera for image in each.images.values()] for each in self._records)
        return fingerprint(self.conventions, episodes, cameras)


class Hdf5Episode:
    """One demonstration in a file: an `Episode`."""

    def __init__(self, record: EpisodeRecord, conventions: Conventions, store: Store) -> None:
        self._record = record
        self._conventions = conventions
        self._store = store

    @property
    def name(self) -> str:
        """Where the episode is: 'demos/pick.hdf5:data/demo_3'."""
        return self._record.name

    @property
    def num_steps(self) -> int:
        """T, the number of actions."""
        return self._record.num_steps

    @property
    def instruction(self) -> str:
        """The task as a sentence."""
        return self._record.instruction

    @property
    def is_success(self) -> bool | None:
        """Whether the episode reached its goal; None when nobody recorded it."""
        return self._record.is_success

    @property
    def attributes(self) -> Mapping[str, object]:
        """Everything else recorded about the episode: source, task, seed, ..."""
        return self._record.attributes

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what is said of each step beside state and action."""
        return (*self._record.columns, *self._record.values)

    def state(self) -> npt.NDArray[np.float32]:
        """float32[t, s], read-only: the state at every step.

        Raises:
            UserError: the file's storage is damaged.
        """
        return self._low_dim(self._record.state)

    def actions(self) -> npt.NDArray[np.float32]:
        """float32[t, a], read-only: the action taken at every step.

        Raises:
            UserError: the file's storage is damaged.
        """
        return self._low_dim(self._record.actions)

    def times(self) -> npt.NDArray[np.float64] | None:
        """float64[t], seconds of each step since the first; None where the file has no clock."""
        if self._record.times is None:
            return None
        try:
            return self._store.times(self._record, *self._record.times)
        except UNREADABLE as error:
            raise UserError(self._damaged(self._record.times[0], error)) from error

    def simulator_states(self) -> npt.NDArray[np.float32] | None:
        """float32[t, n], the simulator's own state when each action was taken; None without one.

        Raises:
            UserError: the file's storage is damaged.
        """
        source = self._record.simulator
        return None if source is None else self._low_dim(source)

    def column(self, name: str) -> npt.NDArray[np.float32]:
        """float32[t] or float32[t, n], read-only; its rows go with the observations.

        Raises:
            UserError: there is no column of that name, or the file's storage is damaged.
        """
        value = self._record.values.get(name)
        if value is not None:
            return in_all_steps(value, self.num_steps)
        source = self._record.columns.get(name)
        if source is None:
            raise missing_column(self.name, name, self.columns)
        values = self._low_dim(source)
        return values[:, 0] if values.shape[1] == 1 else values

    def starts(self) -> npt.NDArray[np.int64]:
        """int64[t]: a training window may start at every step."""
        return np.arange(self.num_steps)

    def image(self, camera: str, step: int) -> npt.NDArray[np.uint8]:
        """uint8[y, x, 3], RGB, upright; decodes this one frame and no other.

        Raises:
            KeyError: no camera of that name.
            IndexError: the step is not one of the episode's.
            UserError: the bytes are not a whole image of the declared size.
        """
        spec = self._conventions.camera(camera)
        self._require_step(step)
        source = self._record.images[camera]
        where = f"{self._record.path}:{source.dataset}, step {step}"
        try:
            frame = self._store.frame(self._record, source, step)
        except (UndecodableFrameError, *UNREADABLE) as error:
            raise UserError(describe(where, str(error), "a whole image", LEAVE_OUT)) from error
        if frame.shape != (spec.height, spec.width, 3):
            expected = f"{[spec.height, spec.width, 3]} as the conventions declare"
            remedy = "Correct the camera's declared size, or resize the frames."
            raise UserError(
                describe(where, f"an image of shape {list(frame.shape)}", expected, remedy)
            )
        return frame

    def jpeg(self, camera: str, step: int) -> bytes | None:
        """The stored JPEG whose decoding is `image(camera, step)`; None when there is none.

        Raises:
            KeyError: no camera of that name.
            IndexError: the step is not one of the episode's.
        """
        self._conventions.camera(camera)
        self._require_step(step)
        source = self._record.images[camera]
        stored = source.camera
        if source.encoding not in ("rows", "variable") or (
            (stored.color_order, stored.orientation) != ("rgb", "upright")
        ):
            return None
        data = self._store.encoded(self._record, source, step)
        return data.rstrip(b"\0") if data.startswith(JPEG_START) else None

    def stored_frames(self, camera: str) -> StoredFrames:
        """How the frames of this camera lie on disk; KeyError when there is no such camera."""
        self._conventions.camera(camera)
        source = self._record.images[camera]
        if source.encoding == "video":
            return StoredFrames(source.camera, "video", source.dataset, "")
        encoding = "raw"
        if source.encoding in ("rows", "variable"):
            data = self._store.encoded(self._record, source, 0)
            encoding = "jpeg" if data.startswith(JPEG_START) else "png"
        return StoredFrames(source.camera, encoding, self._record.path, source.dataset)

    def observation(self, step: int, cameras: Sequence[str]) -> Observation:
        """The observation just before action `step`, with these cameras only."""
        images = {camera: self.image(camera, step) for camera in cameras}
        return Observation(
            images=images, state=self.state()[step].copy(), instruction=self.instruction
        )

    def _low_dim(self, source: ArraySource) -> npt.NDArray[np.float32]:
        try:
            return self._store.low_dim(self._record, source)
        except UNREADABLE as error:
            raise UserError(self._damaged(source, error)) from error

    def _damaged(self, source: ArraySource, error: Exception) -> str:
        places = ", ".join(part.dataset for part in source.parts)
        found = f"damaged storage ({' '.join(str(error).split())[:200]})"
        remedy = "Take what is left with robot-data salvage, or leave the episode out."
        return describe(f"{self._record.path}:{places}", found, "stored numbers", remedy)

    def _require_step(self, step: int) -> None:
        if not 0 <= step < self.num_steps:
            raise IndexError(
                f"{self.name}: step {step}; the episode has steps 0 to {self.num_steps - 1}"
            )
