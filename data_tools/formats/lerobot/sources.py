"""Sources: which features of a LeRobot folder are what, by their names or by a sidecar's word."""

from pathlib import Path
from typing import Final, Literal

from pydantic import Field, field_validator

from data_tools.declaration import Declaration, Number
from data_tools.errors import describe, nearest, raise_faults
from data_tools.formats.layouts.places import (
    EVERY_COLUMN,
    ColumnPlace,
    FixedText,
    InDataset,
    InJsonFile,
    require_names,
)
from data_tools.formats.lerobot.info import Info

SIDECAR: Final = "conventions.yaml"
CAMERA_PREFIXES: Final = ("observation.images.", "observation.")
STATE_FEATURES: Final = ("observation.state", "state")
ACTION_FEATURES: Final = ("action", "actions")
TASK_FEATURE: Final = "task_index"


class Sources(Declaration):
    """Which features of info.json are the state, the action and the cameras.

    What is not named is found by LeRobot's names (observation.state, action) or openpi's (state,
    actions); every image or video feature with three channels is a camera.
    """

    state: tuple[str, ...] = Field(
        (),
        description="Features joined column by column into the state, in order; "
        "`observation.state` or `state` when none is named.",
    )
    action: str = Field(
        "", description="Feature of the actions; `action` or `actions` when not named."
    )
    images: dict[str, str] | None = Field(
        None,
        description="Camera name to its feature, for all cameras to read: others are left out, and "
        "their videos need not be there; `{}` reads none. Without it every feature of images with "
        "three channels is a camera.",
    )
    columns: dict[str, ColumnPlace] = Field(
        {},
        description="What else is said of each step, by name, as `weight`: a feature, or one "
        "number for all steps of an episode: written here, one for each episode (`episodes: {0: "
        "1}`, by its number), or an attribute of the folder's index of episodes.",
    )
    task: str = Field(
        TASK_FEATURE,
        description="Feature that numbers the sentence of each step in the list of tasks, e.g. "
        "`annotation.human.action.task_description`.",
    )
    instruction: FixedText | None = Field(
        None, description="`{text: ...}`: one sentence for every step, whatever the tasks say."
    )
    several_tasks: bool = Field(
        False,
        description="Whether an episode may have several tasks; each step then has its own "
        "instruction, and the episode that of its first step.",
    )
    clock: Literal["timestamp", "frame_index"] | None = Field(
        None,
        description="What says which frame of a video a step has seen. `frame_index`: the one of "
        "the step's number, at frame_index / fps, whatever times are recorded; the videos must "
        "hold one frame a step. `timestamp`: the one nearest to the recorded time. Without a word "
        "the two must lead to the same frame.",
    )
    tolerance_s: Number = Field(
        1e-4,
        gt=0,
        allow_inf_nan=False,
        description="How far a recorded time may lie from its frame, in seconds; LeRobot's own "
        "default. `--tolerance-s` and `data.tolerance_s` go before it.",
    )

    @property
    def cameras(self) -> dict[str, str]:
        """Camera -> its feature, of those that are named."""
        return self.images or {}

    @property
    def column_features(self) -> dict[str, str]:
        """Column -> its feature, of those that have a row a step."""
        return {name: place for name, place in self.columns.items() if isinstance(place, str)}

    @property
    def numbers(self) -> tuple[str, ...]:
        """The features of numbers that must be there, of sources that are filled in."""
        task = () if self.task == TASK_FEATURE else (self.task,)
        clock = ("timestamp",) if self.clock == "timestamp" else ()
        return (*self.state, self.action, *self.column_features.values(), *task, *clock)

    @field_validator("columns")
    @classmethod
    def _of_a_folder(cls, columns: dict[str, ColumnPlace]) -> dict[str, ColumnPlace]:
        require_names(columns)
        for name, place in columns.items():
            if name == EVERY_COLUMN or isinstance(place, InDataset | InJsonFile):
                raise ValueError(
                    f"found {name}: {place!r}; expected a feature, a number, or a mapping with one "
                    "of the keys episodes, attribute. Name one of these."
                )
        return columns


def filled_in(folder: Path, info: Info, said: Sources) -> Sources:
    """The sources with every name filled in.

    Raises:
        UserError: a feature that is named is not there, or is no vector or image; or nothing says
            which is meant; every fault is named.
    """
    sidecar = folder / SIDECAR
    vectors = [name for name, each in info.features.items() if not each.is_camera]
    images = [name for name, each in info.features.items() if each.is_camera]
    named = [*said.state, *([said.action] if said.action else [])]
    named += said.column_features.values()
    named += [said.task] if said.task != TASK_FEATURE else []
    faults = [_no_feature(sidecar, name, vectors) for name in named if name not in vectors]
    faults += [
        _no_feature(sidecar, name, images) for name in said.cameras.values() if name not in images
    ]
    state = said.state or _only(folder, "state", STATE_FEATURES, vectors, faults)
    actions: tuple[str, ...] = (said.action,) if said.action else ()
    actions = actions or _only(folder, "action", ACTION_FEATURES, vectors, faults)
    for name in (*state, *actions, *said.column_features.values()):
        if name in vectors and info.features[name].width is None:
            feature = info.features[name]
            found = f"dtype {feature.dtype!r} and shape {str(feature.shape)[:80]}"
            remedy = f"Choose another feature in {sidecar}: layout."
            where = f"{folder}, feature {name!r}"
            faults.append(describe(where, found, "a vector of numbers: shape [n]", remedy))
    cameras = _cameras(folder, info, faults) if said.images is None else said.images
    for camera, name in said.cameras.items():
        if name in images and info.features[name].image_size is None:
            feature = info.features[name]
            found = f"shape {str(feature.shape)[:80]}, names {str(feature.names)[:80]}"
            expected = "rows, columns and three channels"
            remedy = f"Leave the camera {camera!r} out of {sidecar}: layout."
            faults.append(describe(f"{folder}, feature {name!r}", found, expected, remedy))
    raise_faults(faults)
    return said.model_copy(update={"state": state, "action": actions[0], "images": cameras})


def images_line(cameras: dict[str, str]) -> str:
    """What to write into the sidecar to read these cameras and no others."""
    pairs = ", ".join(f"{camera}: {feature}" for camera, feature in cameras.items())
    return f"`layout: {{images: {{{pairs}}}}}`"


def _cameras(folder: Path, info: Info, faults: list[str]) -> dict[str, str]:
    """The features that are colour images, by a camera's name; depth maps are not cameras."""
    found = [
        name
        for name, each in info.features.items()
        if each.is_camera and each.image_size is not None and not each.is_depth
    ]
    cameras = {_camera_name(name): name for name in found}
    if len(cameras) != len(found):
        line = images_line({name.replace(".", "_"): name for name in found})
        remedy = f"Name them in {folder / SIDECAR}, as in {line}."
        where = f"{folder}, features"
        faults.append(describe(where, f"{found}, alike as cameras", "one name a camera", remedy))
    return cameras


def _only(
    folder: Path, part: str, usual: tuple[str, ...], features: list[str], faults: list[str]
) -> tuple[str, ...]:
    """The one feature of a usual name; a fault and nothing when there is none, or more."""
    found = tuple(name for name in usual if name in features)
    if len(found) != 1:
        places = "[NAME, ...]" if part == "state" else "NAME"
        remedy = f"Name it in {folder / SIDECAR}: `layout: {{{part}: {places}}}`."
        expected = f"one of {list(usual)} to be the {part}"
        faults.append(describe(f"{folder}, features", f"{features}", expected, remedy))
    return found[:1]


def _no_feature(sidecar: Path, name: str, features: list[str]) -> str:
    hint = nearest(name, features)
    remedy = f"Correct layout{f'; {hint}' if hint else '.'}"
    return describe(str(sidecar), f"the feature {name!r}", f"one of {features}", remedy)


def _camera_name(feature: str) -> str:
    for prefix in CAMERA_PREFIXES:
        if feature.startswith(prefix):
            return feature.removeprefix(prefix)
    return feature
