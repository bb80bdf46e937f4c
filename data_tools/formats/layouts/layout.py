"""Layout: where the parts of episodes lie in a file, and which rows of them belong together."""

import math
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    StrictInt,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from data_tools.declaration import Declaration, Number
from data_tools.formats.layouts.places import (
    ColumnPlace,
    InAttribute,
    InJsonFile,
    Place,
    require_names,
    require_pattern,
    require_relative,
)

NUMBER_WORD = "{number}"
# At 50 Hz that is 20 s: no pairing of observations and actions lies further apart.
MAX_ACTION_SHIFT = 1000


def _as_units(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class Source(Declaration):
    """One dataset with one row a step, and which of its columns are used in which unit."""

    dataset: str = Field(
        min_length=1,
        description="Path of the dataset; a last part * stands for every numeric dataset of the "
        "group, ** for those of the groups below it, too.",
    )
    columns: tuple[StrictInt, ...] = Field(
        (), description="The columns to take, in this order; all of them when none is named."
    )
    scale: tuple[Number, ...] = Field(
        (), description="Factor of each column taken; 1 when none is given."
    )
    names: tuple[str, ...] = Field(
        (), description="Names of the columns taken; '<dataset>_<i>' when they do not fit."
    )
    units: Annotated[tuple[str, ...], BeforeValidator(_as_units)] = Field(
        (), description="Units of the columns taken, or one unit for all; 'unknown' when empty."
    )
    index: str = Field(
        "",
        description="Dataset of the row numbers for which `dataset` has values; the other rows are "
        "taken from `fill`.",
    )
    fill: str = Field("", description="Dataset that gives the rows `index` does not name.")
    is_optional: bool = Field(False, description="Whether a file may lack it.")

    @field_validator("columns")
    @classmethod
    def _each_once(cls, columns: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(columns)) < len(columns):
            raise ValueError("each column once")
        return columns

    @field_validator("scale")
    @classmethod
    def _has_an_inverse(cls, scale: tuple[Number, ...]) -> tuple[float, ...]:
        if not all(math.isfinite(factor) and factor for factor in scale):
            raise ValueError("finite factors other than 0")
        return scale


class Video(Declaration):
    """Frames in a video file beside the data."""

    video: str = Field(
        min_length=1,
        description="Path from the data file's folder; words in braces as in a JSON place, and "
        "{value} for what `value` says.",
    )
    value: Place | None = Field(None, description="Where the {value} of the path is.")

    _leads_nowhere_else = field_validator("video")(require_relative)


class Times(Declaration):
    """A clock reading a step."""

    dataset: str = Field(min_length=1, description="Path of the dataset from the episode's group.")
    unit_s: Number = Field(gt=0, description="Seconds in one unit of the clock.")


def _as_sources(value: object) -> object:
    """Let a plain name stand for a source without options, and one source for a list of one."""
    listed = [value] if isinstance(value, str | dict | Source) else value
    if not isinstance(listed, list | tuple):
        return listed
    return [{"dataset": item} if isinstance(item, str) else item for item in listed]


def _as_clock(value: object) -> object:
    if value is None or isinstance(value, dict | Times):
        return value
    raise ValueError(f"a mapping, {{dataset: {value}, unit_s: <seconds in one unit of the clock>}}")


def _lacks(path: str) -> bool:
    """Whether a path does not say where the number of an episode is."""
    return path.count(NUMBER_WORD) != 1 or "*" in path


def _as_tuple(value: object) -> object:
    return value if isinstance(value, list | tuple) else [value]


def _require_one(sources: tuple[Source, ...]) -> tuple[Source, ...]:
    # As min_length=1 would, but silent where one is there and has a fault of its own.
    if not sources:
        raise ValueError("at least one dataset")
    return sources


Sources = Annotated[tuple[Source, ...], BeforeValidator(_as_sources), AfterValidator(_require_one)]


def _frames_kind(value: object) -> str:
    return VIDEO_TAG if isinstance(value, dict | Video) else DATASET_TAG


# As they stand in the places of pydantic's errors, where no key of a person looks so.
VIDEO_TAG, DATASET_TAG = "<video>", "<frames>"
Frames = Annotated[
    Annotated[str, Tag(DATASET_TAG)] | Annotated[Video, Tag(VIDEO_TAG)],
    Discriminator(_frames_kind),
]


class Layout(Declaration):
    """Where the parts of an episode lie; by default as in the `data/demo_N` files we write.

    Paths are given from the episode's group; a key of `state` or `images` without a slash is a
    dataset below the group `observations`.
    """

    name: str = Field("declared", description="Name of the layout, for reports.")
    episodes: Literal["groups", "file", "rows", "numbers"] = Field(
        "groups",
        description="What an episode is: a group below `root`, the whole file, a run of rows whose "
        "ends `ends` tells, or the datasets of one number, as states_0 and actions_0: the paths "
        "then have {number} in its place.",
    )
    root: str = Field("data", description="Group that holds the episodes; '' for the file itself.")
    episode_names: str = Field(
        "", description="Regular expression of the names of episodes; every group when empty."
    )
    ends: tuple[str, ...] = Field(
        (),
        description="Datasets that tell where episodes end, only with episodes: rows. With a value "
        "a row: 1 in each last one, or the episode's number. With a value an episode: the row "
        "after its last, its first row, or its length.",
    )
    observations: str = Field("obs", description="Group below which plain keys are found.")
    actions: Sources = Field(
        (Source(dataset="actions"),),
        description="Datasets joined column by column into the actions, in order.",
    )
    state: Sources = Field(
        (Source(dataset="state"),),
        description="Datasets joined column by column into the state, in order.",
    )
    images: dict[str, Frames] = Field(
        {},
        description="Camera name to the dataset of its frames or its video; '<camera>_image' when "
        "not named. In a path part, * stands for each camera there is: the name '*' then takes "
        "that part's text.",
    )
    raw_sizes: tuple[tuple[StrictInt, StrictInt], ...] = Field(
        (), description="Height and width of frames stored as bare pixels in one row of bytes."
    )
    instruction: Annotated[tuple[Place, ...], BeforeValidator(_as_tuple)] = Field(
        (InAttribute(attribute="language_instruction"),),
        description="Where the task's sentence is: the first of these places that has one.",
    )
    success: Place | None = Field(
        InAttribute(attribute="success"), description="Where it says whether the episode succeeded."
    )
    attributes: dict[str, Place] = Field(
        {}, description="Other facts to keep with the episode, by the name they get."
    )
    rate: Place | None = Field(
        None, description="Where the control rate is, for files that keep it; in hertz."
    )
    times: Annotated[Times | None, BeforeValidator(_as_clock)] = Field(
        None, description="The clock of the steps."
    )
    columns: dict[str, ColumnPlace] = Field(
        {},
        description="What else is said of each step, by name, as `weight`: the path of a dataset "
        "with a row a step, or one number for all steps of an episode: written here, one for each "
        "episode (`episodes: {demo_0: 1}`), or where an attribute, dataset or JSON file has it. "
        "The name '*', with a path that ends in /*, stands for every dataset of a group.",
    )
    simulator_states: str = Field(
        "",
        description="Dataset of the simulator's own state when each action was taken: with it the "
        "pairing of observations and actions is checked exactly.",
    )
    observation_rows: Literal["same", "one_more", "either"] = Field(
        "same",
        description="Rows of state and frames against actions: as many, one more (the last one, "
        "seen after the last action, is dropped), or either.",
    )
    action_shift: StrictInt = Field(
        0,
        ge=0,
        le=MAX_ACTION_SHIFT,
        description="k: the observation in row t is paired with the action in row t + k. 1 where "
        "the observation was stored after its action, or where the next state is the action.",
    )
    surplus_rows: StrictInt = Field(
        0,
        ge=0,
        description="By how many rows the datasets of an episode may differ in length; what is "
        "beyond the shortest is dropped, and told.",
    )
    skip: str = Field("", description="Boolean dataset, true in rows that are left out.")
    allow_external_links: bool = Field(
        False,
        description="Whether data lies in other files that this one links to. Read only where the "
        "caller allows it, too (--allow-external-links).",
    )

    @field_validator("episode_names")
    @classmethod
    def _is_pattern(cls, names: str) -> str:
        require_pattern(names)
        return names

    @field_validator("columns")
    @classmethod
    def _named(cls, columns: dict[str, ColumnPlace]) -> dict[str, ColumnPlace]:
        require_names(columns)
        return columns

    @field_validator("ends")
    @classmethod
    def _of_rows(cls, ends: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        episodes = info.data.get("episodes", "rows")  # absent where it has a fault of its own
        if ends and episodes != "rows":
            raise ValueError(f"none with episodes: {episodes}, for ends are of episodes: rows")
        return ends

    @model_validator(mode="after")
    def _has_numbers(self) -> Self:
        if self.episodes == "numbers":
            images = [place for place in self.images.values() if isinstance(place, str)]
            lacking = [p for p in (*self.action_paths, *self.state_paths, *images) if _lacks(p)]
            if lacking:
                raise ValueError(
                    f"found {lacking} with episodes: numbers; expected {NUMBER_WORD} once in each "
                    "path of actions, state and images, and no star. Write it where the number is."
                )
        return self

    def below_observations(self, key: str) -> str:
        """Path from the episode's group of a key of `state` or `images`."""
        return key if "/" in key or not self.observations else f"{self.observations}/{key}"

    @property
    def action_paths(self) -> tuple[str, ...]:
        """Paths of the action datasets from the episode's group."""
        return tuple(source.dataset for source in self.actions)

    @property
    def state_paths(self) -> tuple[str, ...]:
        """Paths of the state datasets from the episode's group."""
        return tuple(self.below_observations(source.dataset) for source in self.state)

    @property
    def is_self_contained(self) -> bool:
        """Whether all that is known of an episode lies in its file and the file's name."""
        return not (self.allow_external_links or self.file_patterns)

    @property
    def file_patterns(self) -> tuple[str, ...]:
        """Paths from the data file's folder of every other file that is read, with their words."""
        videos = [place for place in self.images.values() if isinstance(place, Video)]
        facts: list[object] = [*self.instruction, self.success, self.rate]
        facts += [*self.attributes.values(), *self.columns.values()]
        facts += [video.value for video in videos]
        files = [place.file for place in facts if isinstance(place, InJsonFile)]
        return (*(video.video for video in videos), *files)

    def image_place(self, camera: str) -> str | Video:
        """Path of the dataset of this camera's frames from the episode's group, or its video."""
        place = self.images.get(camera, f"{camera}_image")
        return place if isinstance(place, Video) else self.below_observations(place)
