"""EpisodeRecord: where one episode's numbers and frames are, all that the reader needs to know."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from data_tools.conventions import CameraSpec
from data_tools.finding import Finding
from data_tools.storage.hdf5.frame_encoding import Encoding


@dataclass(frozen=True)
class ColumnSource:
    """Columns of one dataset.

    Attributes:
        dataset: its path in the file.
        columns: the columns taken, all when empty.
        scale: factor of each column taken, 1 when empty.
        index: path of the row numbers that `dataset` gives; '' when it gives every row.
        fill: path of the dataset that gives the other rows.
    """

    dataset: str
    columns: tuple[int, ...] = ()
    scale: tuple[float, ...] = ()
    index: str = ""
    fill: str = ""


@dataclass(frozen=True)
class ArraySource:
    """Datasets side by side; row `first` belongs to step 0."""

    parts: tuple[ColumnSource, ...]
    first: int = 0


@dataclass(frozen=True)
class ImageSource:
    """Where a camera's frames are, and how they are stored.

    Attributes:
        dataset: path of the dataset in the file, or of the video file.
        encoding: pixels [t, y, x, c] or [t, c, y, x]; bytes of a JPEG or PNG in zero-padded rows or
            of any length; or a video.
        is_chunk_per_frame: whether each frame is one chunk without filters, readable as its bytes.
        camera: the declaration of what is stored.
        first: the row of step 0.
    """

    dataset: str
    encoding: Encoding
    is_chunk_per_frame: bool
    camera: CameraSpec
    first: int = 0


@dataclass(frozen=True)
class EpisodeRecord:
    """Where one episode is, with its small facts already read. Picklable, holds no file.

    Attributes:
        path: the file.
        group: the episode's place in it, e.g. 'data/demo_3'; '' when the file is the episode.
        num_steps: number of actions.
        actions: where the actions are.
        state: where the state is.
        images: camera name -> where its frames are.
        times: where the clock is, with the seconds of its unit; None when there is none.
        simulator: where the simulator's own states are; None when there are none.
        kept: the rows that are steps, counted from `first`; None when every row is.
        columns: name -> where a column with a row a step is.
        values: name -> the number of a column that is one for all steps.
    """

    path: str
    group: str
    num_steps: int
    instruction: str
    is_success: bool | None
    attributes: Mapping[str, object]
    actions: ArraySource
    state: ArraySource
    images: Mapping[str, ImageSource]
    times: tuple[ArraySource, float] | None = None
    simulator: ArraySource | None = None
    kept: npt.NDArray[np.int64] | None = None
    columns: Mapping[str, ArraySource] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """File and group, for messages: 'demos/pick.hdf5:data/demo_3'."""
        return f"{self.path}:{self.group}" if self.group else self.path


@dataclass
class Scan:
    """What a walk over files found: episodes, faults that forbid reading, warnings that do not.

    Attributes:
        rules: what was done to rows, a sentence each, with the number of rows it was done to.
    """

    episodes: list[EpisodeRecord] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    rules: Counter[str] = field(default_factory=Counter)
