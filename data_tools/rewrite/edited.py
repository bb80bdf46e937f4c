"""EditedDataset: another dataset with rows left out, actions, sentences or cameras changed.

Nothing is written and nothing is read before it is asked for; `convert` writes one to a file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from data_tools.columns import fingerprint
from data_tools.conventions import CameraSpec, Conventions
from data_tools.episode import Dataset, Episode, EpisodeView, Observation, StoresJpeg
from data_tools.errors import UserError, describe, nearest, raise_faults, shown
from data_tools.storage.frames.images import UndecodableFrameError

MAX_SIDE: Final = 8192

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Change = Callable[[npt.NDArray[np.floating], Floats], npt.NDArray[np.floating]]


@dataclass(frozen=True)
class Edit:
    """What is different in one episode; by default nothing.

    Attributes:
        rows: the steps to keep, in order; None keeps all.
        instruction: the new sentence; None keeps the old one.
        state: float32[t, s] -> float32[t, s] of the rows kept; None keeps them.
        changes: of the actions, one after the other, each (float[t, a], float32[t, s] of all steps)
            -> float[t, a], before rows are left out.
        align: k: the observation of step t is paired with the action of step t + k.
    """

    rows: Rows | None = None
    instruction: str | None = None
    state: Callable[[Floats], Floats] | None = None
    changes: tuple[Change, ...] = ()
    align: int = 0


class EditedDataset:
    """A `Dataset` of edited episodes.

    Args:
        dataset: what is edited.
        edits: one for each episode to keep: its index, and what is different.
        conventions: what the edited episodes declare; cameras it lacks are left out, and frames of
            another size are resized (Lanczos, as a camera's driver would).
    """

    def __init__(
        self, dataset: Dataset, edits: Sequence[tuple[int, Edit]], conventions: Conventions
    ) -> None:
        self.conventions = conventions
        self.inspected = dataset.inspected
        self.columns = dataset.columns
        self._dataset = dataset
        self._edits = tuple(edits)

    def __len__(self) -> int:
        return len(self._edits)

    def __getitem__(self, index: int) -> "EditedEpisode":
        which, edit = self._edits[index]
        return EditedEpisode(self._dataset[which], edit, self.conventions)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hex over instructions, states, actions and conventions; reads no image."""
        return fingerprint(self.conventions, (self[index] for index in range(len(self))))


class EditedEpisode(EpisodeView):
    """An episode that differs from another as its edit says."""

    def __init__(self, episode: Episode, edit: Edit, conventions: Conventions) -> None:
        super().__init__(episode)
        self._edit = edit
        self._conventions = conventions
        rows = np.arange(episode.num_steps) if edit.rows is None else edit.rows
        has_action = (rows + edit.align >= 0) & (rows + edit.align < episode.num_steps)
        self._rows: Rows = rows[has_action]

    @property
    def num_steps(self) -> int:
        """Number of rows that are kept and have an action."""
        return len(self._rows)

    @property
    def instruction(self) -> str:
        """The task as a sentence."""
        return self._edit.instruction or self._episode.instruction

    def times(self) -> npt.NDArray[np.float64] | None:
        """float64[t], seconds since the start at the rows kept; None where nothing records them."""
        times = self._episode.times()
        return None if times is None else times[self._rows]

    def column(self, name: str) -> Floats:
        """float32[t] or float32[t, n]; its rows go with the observations."""
        return self._episode.column(name)[self._rows]

    def starts(self) -> Rows:
        """int64[n], steps at which a training window may start."""
        return np.flatnonzero(np.isin(self._rows, self._episode.starts()))

    def state(self) -> Floats:
        """float32[t, s], the state at every step."""
        state = self._episode.state()[self._rows]
        return state if self._edit.state is None else self._edit.state(state)

    def actions(self) -> Floats:
        """float32[t, a], the action taken at every step."""
        actions: npt.NDArray[np.floating] = self._episode.actions()
        for change in self._edit.changes:
            actions = change(actions, self._episode.state())
        return actions.astype(np.float32)[self._rows + self._edit.align]

    def image(self, camera: str, step: int) -> npt.NDArray[np.uint8]:
        """uint8[y, x, 3], RGB, upright, of the declared size."""
        spec = self._conventions.camera(camera)
        frame = self._episode.image(camera, int(self._rows[step]))
        if frame.shape[:2] == (spec.height, spec.width):
            return frame
        size = (spec.width, spec.height)
        return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))

    def jpeg(self, camera: str, step: int) -> bytes | None:
        """The stored JPEG of a frame; None when there is none or another size is asked for."""
        spec = self._conventions.camera(camera)
        stored = self._episode.stored_frames(camera).camera
        is_same_size = (stored.height, stored.width) == (spec.height, spec.width)
        if not is_same_size or not isinstance(self._episode, StoresJpeg):
            return None
        return self._episode.jpeg(camera, int(self._rows[step]))

    def observation(self, step: int, cameras: Sequence[str]) -> Observation:
        """The observation just before action `step`, with these cameras only."""
        images = {camera: self.image(camera, step) for camera in cameras}
        return Observation(images, self.state()[step].copy(), self.instruction)


def with_cameras(conventions: Conventions, names: Sequence[str]) -> Conventions:
    """The declaration with these cameras only, in this order; UserError unless each is one."""
    known = conventions.camera_names
    faults = []
    for name in names:
        if name not in known or names.count(name) > 1:
            hint = nearest(name, known)
            remedy = f"Name each once{f'; {hint}' if hint else '.'}"
            faults.append(describe("cameras", repr(name), f"some of {list(known)}", remedy))
    raise_faults(faults)
    return conventions.model_copy(
        update={"cameras": tuple(conventions.camera(name) for name in names)}
    )


def height_and_width(size: str) -> tuple[int, int]:
    """(224, 320) of '320x224'; UserError for anything else, and for more than any camera has."""
    width, _, height = size.partition("x")
    sides = [int(side) if side.isdecimal() and len(side) < 6 else 0 for side in (height, width)]
    if not all(0 < side <= MAX_SIDE for side in sides):
        remedy = "Write width and height, as in 224x224."
        expected = f"WIDTHxHEIGHT, each of 1 to {MAX_SIDE} pixels"
        raise UserError(describe("--size", shown(size), expected, remedy))
    return sides[0], sides[1]


def with_size(conventions: Conventions, height: int, width: int) -> Conventions:
    """The declaration with every camera of this size, in pixels."""

    def resized(camera: CameraSpec) -> CameraSpec:
        return CameraSpec(**{**camera.model_dump(), "height": height, "width": width})

    return conventions.model_copy(update={"cameras": tuple(map(resized, conventions.cameras))})


def stored_cameras(dataset: Dataset) -> dict[str, list[str]]:
    """Each camera's declarations as its frames are stored, as sorted JSON; episodes may differ.

    What is delivered is RGB and upright whatever they say, so the dataset's own conventions and its
    fingerprint do not tell.

    Raises:
        UserError: the first frame of an episode cannot be read.
    """
    found: dict[str, set[str]] = {name: set() for name in dataset.conventions.camera_names}
    for index in range(len(dataset)):
        episode = dataset[index]
        for camera, declared in found.items():
            try:
                declared.add(episode.stored_frames(camera).camera.model_dump_json())
            except (OSError, RuntimeError, UndecodableFrameError) as error:
                where, remedy = f"{episode.name}, camera {camera!r}", "Leave the episode out."
                raise UserError(describe(where, str(error), "readable frames", remedy)) from error
    return {camera: sorted(declared) for camera, declared in found.items()}


def all_with(dataset: Dataset, edit: Edit) -> list[tuple[int, Edit]]:
    """The same edit for every episode."""
    return [(index, edit) for index in range(len(dataset))]
