"""Layout: where the parts of episodes lie in a file. EpisodeRecord: where one episode's are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from data_tools.conventions import CameraSpec, Declaration
from data_tools.finding import Finding

OBSERVATIONS = "obs"


class FixedText(Declaration):
    """The same instruction for every episode of the file."""

    text: str = Field(min_length=1, description="The task as a sentence.")


class TextAttribute(Declaration):
    """An instruction kept in an attribute of the episode's group, or of the group above it."""

    attribute: str = Field(
        min_length=1, description="Name of the attribute that holds the task as a sentence."
    )


class Layout(Declaration):
    """Where the parts of an episode lie in a `data/demo_N` file; by default as we write them.

    A key without a slash is a dataset below the episode's `obs`; a key with one is a path from the
    episode's group.
    """

    name: str = Field("declared", description="Name of the layout, for reports.")
    root: str = Field("data", description="Group that holds one group an episode.")
    actions: str = Field(
        "actions", description="Dataset of the actions, a path from the episode's group."
    )
    state: tuple[str, ...] = Field(
        ("state",),
        min_length=1,
        description="Datasets joined column by column into the state, in order.",
    )
    images: dict[str, str] = Field(
        {},
        description="Camera name to the dataset of its frames; '<camera>_image' when not named.",
    )
    instruction: FixedText | TextAttribute = Field(
        TextAttribute(attribute="language_instruction"), description="Where the task's sentence is."
    )
    success_attribute: str = Field(
        "success", description="Attribute of the episode that says whether it succeeded."
    )

    @property
    def state_paths(self) -> tuple[str, ...]:
        """Paths of the state datasets from the episode's group."""
        return tuple(_below_observations(key) for key in self.state)

    def image_path(self, camera: str) -> str:
        """Path of the dataset of this camera's frames from the episode's group."""
        return _below_observations(self.images.get(camera, f"{camera}_image"))


@dataclass(frozen=True)
class ImageSource:
    """The dataset that holds a camera's frames, and how they are stored.

    Attributes:
        dataset: its path in the file.
        encoding: pixels, or a JPEG a row.
        is_chunk_per_frame: whether each frame is one chunk without filters, readable as its bytes.
        camera: the declaration of what is stored.
    """

    dataset: str
    encoding: Literal["raw", "jpeg"]
    is_chunk_per_frame: bool
    camera: CameraSpec


@dataclass(frozen=True)
class EpisodeRecord:
    """Where one episode is, with its small facts already read. Picklable, holds no file.

    Attributes:
        path: the file.
        group: the episode's group in it, e.g. 'data/demo_3'.
        num_steps: number of actions.
        actions: path of the action dataset in the file.
        state: paths of the datasets joined into the state.
        images: camera name -> where its frames are.
    """

    path: str
    group: str
    num_steps: int
    instruction: str
    is_success: bool | None
    attributes: Mapping[str, object]
    actions: str
    state: tuple[str, ...]
    images: Mapping[str, ImageSource]

    @property
    def name(self) -> str:
        """File and group, for messages: 'demos/pick.hdf5:data/demo_3'."""
        return f"{self.path}:{self.group}"


@dataclass
class Scan:
    """What a walk over files found: episodes, faults that forbid reading, warnings that do not."""

    episodes: list[EpisodeRecord] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)

    def extend(self, other: "Scan") -> None:
        """Add what another walk found."""
        self.episodes += other.episodes
        self.faults += other.faults
        self.warnings += other.warnings


def _below_observations(key: str) -> str:
    return key if "/" in key else f"{OBSERVATIONS}/{key}"
