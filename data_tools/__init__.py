"""Robot data on disk: conventions, episodes, reading, writing, statistics and checks. No torch.

dataset = open_dataset("demos/pick.hdf5")
episode = dataset[0]
frame = episode.image("front", 0)
"""

from data_tools.conventions import ActionSpec, CameraSpec, Conventions, GripperSpec, StateSpec
from data_tools.episode import Dataset, Episode, Observation
from data_tools.errors import UserError
from data_tools.reader import open_dataset
from data_tools.writer import EpisodeWriter

__all__ = [
    "ActionSpec",
    "CameraSpec",
    "Conventions",
    "Dataset",
    "Episode",
    "EpisodeWriter",
    "GripperSpec",
    "Observation",
    "StateSpec",
    "UserError",
    "open_dataset",
]
