"""Every fault that can be planted, and why the other rules have none."""

from collections.abc import Mapping
from typing import Final

from data_tools.doctor.planting import (
    beginning_faults,
    clock_faults,
    column_faults,
    episode_faults,
    gripper_faults,
    motion_faults,
    number_faults,
    picture_faults,
)
from data_tools.doctor.planting.bed import Fault

_ROOMS: Final = (
    *(number_faults, column_faults, motion_faults, gripper_faults, clock_faults),
    *(picture_faults, episode_faults, beginning_faults),
)

FAULTS: Final[Mapping[str, Fault]] = {fault.rule: fault for room in _ROOMS for fault in room.FAULTS}

_OPENING: Final = (
    "it is told while data is opened, and a copy that does not open cannot be read back"
)
_DECLARED: Final = "it is a fault of a declaration, not of the data"
_LEROBOT: Final = "it is a fault of LeRobot folders, which are not planted in"
NOT_PLANTED: Final[Mapping[str, str]] = {
    "empty_place": _DECLARED,
    "corrected_conventions": _DECLARED,
    "undeclared": _DECLARED,
    "trimmed_rows": _OPENING,
    "unreadable_camera": _OPENING,
    "camera_not_read": _OPENING,
    "column_not_read": _OPENING,
    **dict.fromkeys(
        (
            *("lengths", "contradiction", "differing_files", "filter_key", "missing_part"),
            *("no_instruction", "no_steps", "unknown_layout", "unreadable_episode"),
            *("unreadable_fact", "unreadable_file", "wrong_form"),
        ),
        _OPENING,
    ),
    "wrong_declaration": _DECLARED,
    "wrong_clock": _LEROBOT,
    "frame_count": _LEROBOT,
    "unreadable_video": _LEROBOT,
    "names_not_read": _LEROBOT,
    "success_without_reward": "layouts that keep rewards say themselves what a success is",
    "unusable_column": "it needs data with a column beside state and actions",
    "larger_than_memory": "it depends on the machine",
    "split_overlap": "it needs two splits",
    "split_leakage": "it needs two splits",
}
