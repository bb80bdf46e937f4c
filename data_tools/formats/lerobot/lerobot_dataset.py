"""open_lerobot: the episodes of a LeRobot folder, v2.0, v2.1 or v3.0, read as they are."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_tools.columns import fingerprint, missing_column
from data_tools.conventions import Conventions
from data_tools.episode import Inspected, Observation, StoredFrames
from data_tools.errors import Faults, UserError, describe, raise_faults
from data_tools.finding import Finding, told_under
from data_tools.formats.lerobot.declared import Declared, declare
from data_tools.formats.lerobot.index import EpisodePlace, file_faults, read_index
from data_tools.formats.lerobot.info import Info, read_info
from data_tools.formats.lerobot.lerobot_store import Store
from data_tools.formats.lerobot.meta_files import left_out
from data_tools.formats.lerobot.sources import Sources
from data_tools.rules import WRONG_DECLARATION


def open_lerobot(
    path: str | Path, *, tolerance_s: float | None = None, left_out: list[str] | None = None
) -> "LeRobotDataset":
    """The episodes of a LeRobot dataset folder, v2.0, v2.1 or v3.0, without the lerobot package.

    The index, the footers of the Parquet files and the names of the videos that are to be read are
    looked at now and checked against one another; numbers and frames when asked for. What info.json
    does not tell is declared in the folder's `conventions.yaml` (see `declare`). Only what is used
    has to be there: columns that are read, and videos of cameras that the sidecar does not leave
    out.

    Args:
        path: the folder that holds `meta`.
        tolerance_s: how far a step's time may lie from its frame's, in seconds; as the sidecar says
            when None, and LeRobot's own 1e-4 when that is silent.
        left_out: takes the faults of single episodes, which are then left out; None refuses the
            folder for them.

    Raises:
        UserError: the folder is of another version or broken, or its index contradicts its files;
            or the steps of an episode have several tasks and the sidecar does not allow it. All
            faults at once.
    """
    folder = Path(path)
    info = told_under(WRONG_DECLARATION, partial(read_info, folder))
    faults = Faults()
    declaring = partial(declare, folder, info, tolerance_s)
    declared = faults.of(lambda: told_under(WRONG_DECLARATION, declaring))
    cameras = {} if declared is None else declared.sources.cameras
    videos = [name for name in cameras.values() if info.features[name].dtype == "video"]
    index = faults.of(lambda: read_index(folder, info, videos))
    if declared is None or index is None:
        raise UserError(faults.listed)
    faults.extend(index.faults)
    places = index.places
    columns = (*declared.sources.numbers, *(set(cameras.values()) - set(videos)))
    told, broken = file_faults(places, columns, cameras)
    faults.extend(told)
    whole = [
        place
        for place in places
        if not broken & {place.path, *(video.path for video in place.videos.values())}
    ]
    store = Store(folder, info, declared, index.tasks)
    whole = _with_their_tasks(folder, whole, store, declared.sources, faults)
    if left_out is None or not whole:
        raise_faults(faults.listed)
    else:
        left_out += faults.listed
    return LeRobotDataset(info, declared, whole, store)


def _with_their_tasks(
    folder: Path,
    places: Sequence[EpisodePlace],
    store: Store,
    sources: Sources,
    faults: Faults,
) -> list[EpisodePlace]:
    """The episodes, each with the tasks that its steps have; an index may list more of them.

    Episodes of which that cannot be told are left out, and the faults added.
    """
    known, several = list[EpisodePlace](), list[int]()
    for place in places:
        tasks: tuple[str, ...] | None = place.tasks
        if len(place.tasks) != 1 or sources.instruction is not None:
            tasks = faults.of(partial(store.tasks, place))
        if tasks is not None:
            own = tuple(dict.fromkeys(tasks))
            if len(own) > 1 and not sources.several_tasks:
                several.append(place.index)
            else:
                known.append(replace(place, tasks=own))
    if several:
        found = f"several tasks in {len(several)} of {len(places)} episodes, first {several[:3]}"
        remedy = (
            "Write `layout: {several_tasks: true}` into conventions.yaml to give each step its own "
            "instruction, or `layout: {instruction: {text: ...}}` for one sentence in all."
        )
        expected, rule = "one task an episode", WRONG_DECLARATION.name
        faults.extend([describe(str(folder), found, expected, remedy, rule)])
    return known


class LeRobotDataset:
    """Episodes of a LeRobot folder: a `Dataset`. Picklable; each process opens what it reads.

    Attributes:
        conventions: what the episodes deliver: as declared, with every camera RGB and upright.
        inspected: what was learned about the folder when it was opened.
        info: its info.json.
    """

    def __init__(
        self,
        info: Info,
        declared: Declared,
        places: Sequence[EpisodePlace],
        store: Store,
    ) -> None:
        self.conventions = declared.conventions.as_delivered()
        self._stored_cameras = declared.conventions.cameras
        layout = f"lerobot_{info.codebase_version}"
        folder = store.folder
        warnings = (*declared.warnings, *left_out(folder))
        origins = {place: (origin,) for place, origin in declared.origins.items()}
        self.inspected = Inspected(
            (layout,), (declared.evidence,), warnings, files=(str(folder),), origins=origins
        )
        self.info = info
        self._declared = declared
        self._places = places
        self._store = store

    def by_frame_number(self) -> "LeRobotDataset":
        """The same episodes, with the frame of each step's number and frame_index / fps as time."""
        sources = self._declared.sources.model_copy(update={"clock": "frame_index"})
        declared = replace(self._declared, sources=sources)
        store = self._store.declared_as(declared)
        return LeRobotDataset(self.info, declared, self._places, store)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that the sidecar declares, which every episode has."""
        return tuple(self._declared.sources.columns)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> "LeRobotEpisode":
        return LeRobotEpisode(self._places[index], self.conventions, self._store)

    def holding(self) -> AbstractContextManager[None]:
        """Within it numbers that were read stay in memory, all of them."""
        return self._store.holding()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hex over instructions, states, actions and conventions; reads no image.

        How frames are turned counts where they are not stored as they are delivered, and the clock
        where the sidecar names one.
        """
        episodes = (self[index] for index in range(len(self)))
        clock = self._declared.sources.clock or ""
        return fingerprint(self.conventions, episodes, [self._stored_cameras], clock)


class LeRobotEpisode:
    """One episode of a LeRobot folder: an `Episode`."""

    def __init__(self, place: EpisodePlace, conventions: Conventions, store: Store) -> None:
        self._place = place
        self._conventions = conventions
        self._store = store

    @property
    def name(self) -> str:
        """Where the episode is: 'datasets/pick:episode_3'."""
        return self._store.name(self._place)

    @property
    def num_steps(self) -> int:
        """T, the number of actions."""
        return self._place.length

    @property
    def instruction(self) -> str:
        """The task as a sentence; that of the first step where steps differ."""
        if len(self._place.tasks) == 1:
            return self._place.tasks[0]
        return self._store.rows(self._place).tasks[0]

    @property
    def is_success(self) -> bool | None:
        """Whether the folder says so of the episode, or of any step (next.success); else None."""
        success = self._place.attributes.get("success")
        if isinstance(success, bool):
            return success
        return self._store.rows(self._place).is_success

    @property
    def attributes(self) -> Mapping[str, object]:
        """Whatever else the index records about the episode."""
        return {key: value for key, value in self._place.attributes.items() if key != "success"}

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that the sidecar declares."""
        return self._store.column_names

    def state(self) -> npt.NDArray[np.float32]:
        """float32[t, s], read-only: the state at every step."""
        return self._store.rows(self._place).state

    def actions(self) -> npt.NDArray[np.float32]:
        """float32[t, a], read-only: the action taken at every step."""
        return self._store.rows(self._place).actions

    def times(self) -> npt.NDArray[np.float64]:
        """float64[t], seconds of each step since the first one, as recorded."""
        times = self._store.rows(self._place).times
        return times - times[0]

    def column(self, name: str) -> npt.NDArray[np.float32]:
        """float32[t] or float32[t, n], read-only.

        Raises:
            UserError: the sidecar declares no such column, or has no number for this episode.
        """
        if name not in self.columns:
            raise missing_column(self.name, name, self.columns)
        return self._store.column(self._place, name)

    def starts(self) -> npt.NDArray[np.int64]:
        """int64[t], every step: a training window may start anywhere."""
        return np.arange(self.num_steps)

    def image(self, camera: str, step: int) -> npt.NDArray[np.uint8]:
        """uint8[y, x, 3], RGB, upright; decodes no other frame but those the codec needs.

        Raises:
            KeyError: no camera of that name.
            IndexError: the step is not one of the episode's.
            UserError: there is no whole image of the declared size there.
        """
        spec = self._conventions.camera(camera)
        if not 0 <= step < self.num_steps:
            raise IndexError(
                f"{self.name}: step {step}; the episode has steps 0 to {self.num_steps - 1}"
            )
        frame = self._store.frame(self._place, camera, step)
        if frame.shape != (spec.height, spec.width, 3):
            expected = f"{[spec.height, spec.width, 3]} as meta/info.json declares"
            where, found = f"{self.name}, {camera!r}, step {step}", f"shape {list(frame.shape)}"
            remedy = "Correct the shape of the feature, or resize the frames."
            raise UserError(describe(where, found, expected, remedy))
        return frame

    def stored_frames(self, camera: str) -> StoredFrames:
        """How the frames of this camera lie on disk; KeyError when there is no such camera."""
        return self._store.stored_frames(self._place, camera)

    def frame_doubts(self) -> Mapping[str, Finding]:
        """Camera -> why nobody can say which frames of its video belong to which steps."""
        return self._store.frame_doubts(self._place)

    def observation(self, step: int, cameras: Sequence[str]) -> Observation:
        """The observation just before action `step`, with these cameras and that step's task."""
        images = {camera: self.image(camera, step) for camera in cameras}
        instruction = self.instruction
        if len(self._place.tasks) > 1:
            instruction = self._store.rows(self._place).tasks[step]
        return Observation(images=images, state=self.state()[step].copy(), instruction=instruction)
