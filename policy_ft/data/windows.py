"""Windows: the observation at step t with the actions of steps t to t + h - 1."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from data_tools.episode import Dataset
from policy_ft.errors import UserError, describe
from policy_ft.transforms import Transforms


class WindowDataset:
    """Every window of some episodes, encoded; one window for each step.

    Picklable when the episodes are. Images are decoded at step t alone.
    Windows are numbered episode by episode: with episodes of 3 and 2 steps, sample 3 is step 0 of
    the second one. A window that reaches beyond the end of its episode repeats the last action
    there, and its action_mask is False there.

    Args:
        episodes: all demonstrations.
        indices: the episodes to use, e.g. the training split.
        transforms: encodes each window; its shape decides h.
    """

    def __init__(self, episodes: Dataset, indices: Sequence[int], transforms: Transforms) -> None:
        self.episodes = episodes
        self.indices = np.asarray(indices, dtype=np.int64)
        self.transforms = transforms
        lengths = np.array(
            [episodes[int(index)].num_steps for index in self.indices], dtype=np.int64
        )
        if not lengths.sum():
            raise UserError(
                describe(
                    "training data",
                    f"{len(lengths)} episodes with no step",
                    "at least one step",
                    "Record demonstrations, or name other files in data.path.",
                )
            )
        self._ends = np.cumsum(lengths)
        self._lengths = lengths

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, sample_id: int) -> dict[str, npt.NDArray[Any]]:
        """The encoded window: Transforms.encode's arrays and sample_id int64[].

        Raises:
            IndexError: no such window.
            UserError: the recorded values cannot be encoded; names the episode and the step.
        """
        place, step = self._place(sample_id)
        episode = self.episodes[int(self.indices[place])]
        observation = episode.observation(step, self.transforms.config.camera_names)
        actions = episode.actions()[step : step + self.transforms.shape.action_horizon]
        sample = self.transforms.encode(observation, actions, where=f"{episode.name}, step {step}")
        return {**sample, "sample_id": np.array(sample_id, dtype=np.int64)}

    def locate(self, sample_id: int) -> tuple[str, int]:
        """The name of a window's episode and the step of its observation."""
        place, step = self._place(sample_id)
        return self.episodes[int(self.indices[place])].name, step

    def _place(self, sample_id: int) -> tuple[int, int]:
        if not 0 <= sample_id < len(self):
            raise IndexError(f"sample {sample_id}; there are {len(self)} windows")
        place = int(np.searchsorted(self._ends, sample_id, side="right"))
        return place, int(sample_id - (self._ends[place] - self._lengths[place]))
