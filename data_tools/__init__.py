"""Robot data on disk: conventions, episodes, reading, writing, statistics and checks. No torch.

dataset = open_dataset("demos/pick.hdf5")
episode = dataset[0]
frame = episode.image("front", 0)

The public names load on first use, so that a program can be stopped while they do.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_tools.conventions import ActionSpec, CameraSpec, Conventions, GripperSpec, StateSpec
    from data_tools.episode import Dataset, Episode, Observation
    from data_tools.errors import UserError
    from data_tools.formats.reader import open_dataset
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

_HOMES = ("conventions", "episode", "errors", "formats.reader", "writer")


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name in __all__:
        for home in _HOMES:
            module = import_module(f"data_tools.{home}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module 'data_tools' has no attribute {name!r}; it has {__all__}")
