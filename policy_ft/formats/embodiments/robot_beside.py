"""embodiment.yaml beside converted weights: the robot, as far as the format's files do not say it.

Only this package writes and reads the file.
"""

from pathlib import Path
from typing import Any, Final

from policy_ft.formats.embodiments import Embodiment, load_embodiment

EMBODIMENT_FILE: Final = "embodiment.yaml"


def embodiment_beside(directory: Path) -> Embodiment | None:
    """The robot that was written beside a converted checkpoint; UserError if it is no robot."""
    path = directory / EMBODIMENT_FILE
    return load_embodiment(str(path)) if path.is_file() else None


def asset_ids_beside(directory: Path, embodiment: Embodiment) -> tuple[str, ...]:
    """Under which names a converted checkpoint has the statistics of a robot that says none.

    Empty unless the robot written beside it has the very columns, and they are mapped alike.
    """
    own = embodiment_beside(directory)
    return own.asset_ids if own is not None and is_seen_alike(own, embodiment) else ()


def is_seen_alike(one: Embodiment, other: Embodiment) -> bool:
    """Whether a model sees the same numbers of two robots, so that statistics of one fit both."""
    return _numbers(one) == _numbers(other)


def _numbers(robot: Embodiment) -> tuple[Any, ...]:
    state, action = robot.conventions.state, robot.conventions.action
    columns = (state.names, state.units, action.names, action.units, action.references)
    return (*columns, *(value for key, value in robot.transforms.items() if key != "cameras"))
