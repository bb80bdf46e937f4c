"""Windows: the observation at step t with the actions of steps t to t + h - 1."""

from collections.abc import Collection, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from data_tools.columns import WEIGHT
from data_tools.episode import Dataset
from policy_ft.data.shuffle import Shuffled
from policy_ft.errors import UserError, describe
from policy_ft.transforms import Transforms

COLUMN: Final = "columns."
"""Before a column's name among the arrays of a sample or a batch."""


class WindowDataset:
    """Every window of some episodes, encoded; one for each step that `Episode.starts` allows.

    Picklable when the episodes are. Images are decoded at step t alone.
    Windows are numbered episode by episode: with episodes of 3 and 2 steps, sample 3 is step 0 of
    the second one. The actions of a window run on through steps that start none. A window that
    reaches beyond the end of its episode repeats the last action there, and its action_mask is
    False there.

    Args:
        episodes: all demonstrations.
        indices: the episodes to use, e.g. the training split.
        transforms: encodes each window; its shape decides h.
        absent: cameras of the transforms that the episodes lack; their slots are masked.
        columns: of the episodes, whose value at its start each window brings along. With the column
            'weight' no window starts at a step of weight 0, which would cost time and teach
            nothing.

    Raises:
        UserError: no step is left to start at, or an episode lacks a column.
    """

    def __init__(
        self,
        episodes: Dataset,
        indices: Sequence[int],
        transforms: Transforms,
        absent: Collection[str] = (),
        columns: Sequence[str] = (),
    ) -> None:
        self.episodes = episodes
        self.indices = np.asarray(indices, dtype=np.int64)
        self.transforms = transforms
        self.absent = frozenset(absent)
        self.columns = tuple(columns)
        self._cameras = [name for name in transforms.config.camera_names if name not in self.absent]
        # Place of an episode -> its starts, for those of which not every step is one.
        self._starts: dict[int, npt.NDArray[np.int64]] = {}
        self._counts = np.zeros(len(self.indices), dtype=np.int64)
        for place, index in enumerate(self.indices.tolist()):
            episode = episodes[index]
            starts = episode.starts()
            if WEIGHT in self.columns:
                starts = starts[episode.column(WEIGHT)[starts] > 0]
            self._counts[place] = len(starts)
            if len(starts) != episode.num_steps:
                self._starts[place] = starts
        if not self._counts.sum():
            weightless = " of a weight above 0" if WEIGHT in self.columns else ""
            raise UserError(
                describe(
                    "training data",
                    f"{len(self._counts)} episodes with no step to start at{weightless}",
                    "at least one",
                    "Record demonstrations, or name other files in data.path.",
                )
            )
        self._ends = np.cumsum(self._counts)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, sample_id: int) -> dict[str, npt.NDArray[Any]]:
        """The encoded window: Transforms.encode's arrays, sample_id int64[] and its columns.

        A column 'weight' is 'columns.weight', float32[], or float32[n] of one with n numbers.

        Raises:
            IndexError: no such window.
            UserError: the recorded values cannot be encoded; names the episode and the step.
        """
        place, step = self._place(sample_id)
        episode = self.episodes[int(self.indices[place])]
        observation = episode.observation(step, self._cameras)
        actions = episode.actions()[step : step + self.transforms.shape.action_horizon]
        sample = self.transforms.encode(
            observation, actions, where=episode.name, step=step, absent=self.absent
        )
        columns = {COLUMN + name: np.asarray(episode.column(name)[step]) for name in self.columns}
        return {**sample, "sample_id": np.array(sample_id, dtype=np.int64), **columns}

    @property
    def instructions(self) -> frozenset[str]:
        """What the episodes are asked to do."""
        return frozenset(self.episodes[index].instruction for index in self.indices.tolist())

    def order(self, seed: int) -> Shuffled:
        """Every window once an epoch, shuffled."""
        return Shuffled((len(self),), (1.0,), seed)

    def locate(self, sample_id: int) -> tuple[str, int]:
        """The name of a window's episode and the step of its observation."""
        place, step = self._place(sample_id)
        return self.episodes[int(self.indices[place])].name, step

    def instruction(self, sample_id: int) -> str:
        """What a window's episode is asked to do."""
        return self.episodes[int(self.indices[self._place(sample_id)[0]])].instruction

    def _place(self, sample_id: int) -> tuple[int, int]:
        if not 0 <= sample_id < len(self):
            raise IndexError(f"sample {sample_id}; there are {len(self)} windows")
        place = int(np.searchsorted(self._ends, sample_id, side="right"))
        rank = int(sample_id - (self._ends[place] - self._counts[place]))
        starts = self._starts.get(place)
        return place, rank if starts is None else int(starts[rank])


class MixedWindows:
    """The windows of several sources, each encoded its own way, numbered source by source.

    Args:
        parts: of each source, for one model.
        shares: of each source in the samples of a run; together 1.
    """

    def __init__(self, parts: Sequence[WindowDataset], shares: Sequence[float]) -> None:
        self.parts = tuple(parts)
        self.transforms = parts[0].transforms
        self._shares = tuple(shares)
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, sample_id: int) -> dict[str, npt.NDArray[Any]]:
        """The encoded window, its sample_id counted through all sources.

        Raises:
            IndexError: no such window.
            UserError: the recorded values cannot be encoded; names the episode and the step.
        """
        part, own_id = self._part(sample_id)
        return {**part[own_id], "sample_id": np.array(sample_id, dtype=np.int64)}

    @property
    def instructions(self) -> frozenset[str]:
        """What the episodes of all sources are asked to do."""
        return frozenset().union(*(part.instructions for part in self.parts))

    def order(self, seed: int) -> Shuffled:
        """Each source's windows once in its own epochs, shuffled and mixed by the shares."""
        return Shuffled(tuple(len(part) for part in self.parts), self._shares, seed)

    def locate(self, sample_id: int) -> tuple[str, int]:
        """The name of a window's episode and the step of its observation."""
        part, own_id = self._part(sample_id)
        return part.locate(own_id)

    def instruction(self, sample_id: int) -> str:
        """What a window's episode is asked to do."""
        part, own_id = self._part(sample_id)
        return part.instruction(own_id)

    def _part(self, sample_id: int) -> tuple[WindowDataset, int]:
        if not 0 <= sample_id < len(self):
            raise IndexError(f"sample {sample_id}; there are {len(self)} windows")
        place = int(np.searchsorted(self._ends, sample_id, side="right"))
        part = self.parts[place]
        return part, int(sample_id - (self._ends[place] - len(part)))
