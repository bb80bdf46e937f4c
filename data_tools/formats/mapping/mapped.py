"""A mapping worked out: what a dataset declares once its cameras and columns are the target's.

MappedDataset: a dataset as another declares its cameras and columns; a view, no copy.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from data_tools.conventions import ActionSpec, CameraSpec, Conventions, GripperSpec, StateSpec
from data_tools.episode import (
    Dataset,
    Episode,
    EpisodeView,
    Inspected,
    Observation,
    StoredFrames,
    holding_numbers,
)
from data_tools.errors import raise_faults
from data_tools.formats.mapping.mapping import (
    AlohaGripperMap,
    ColumnChoice,
    ConventionsMapping,
    LinearMap,
    map_columns,
    unusable,
)
from data_tools.storage.frames.images import resize_center_pad


@dataclass(frozen=True)
class Columns:
    """One part of a mapping, worked out: column i is values[..., places[i]], then the maps.

    Attributes:
        names: the target's, in order.
        places: of each in the dataset's own columns.
        maps: of some of them, by the target's name.
    """

    names: tuple[str, ...]
    places: tuple[int, ...]
    maps: tuple[LinearMap | AlohaGripperMap, ...]


@dataclass(frozen=True)
class Mapped:
    """A mapping, worked out for one dataset and one target.

    Attributes:
        conventions: what the mapped dataset declares; cameras it lacks are left out.
        cameras: the target's name of each camera that is there -> the dataset's own.
        state: the state's columns.
        action: the action's columns.
    """

    conventions: Conventions
    cameras: Mapping[str, str]
    state: Columns
    action: Columns


def mapped(source: Conventions, target: Conventions, mapping: ConventionsMapping) -> Mapped:
    """The mapping, worked out.

    A gripper that both declare with other values is mapped linearly, open to open and closed to
    closed, unless the mapping has a map of its column. Cameras take the target's size, and those
    that the mapping names its `source` too: whoever names a camera accepts how it sees.

    Args:
        source: of the dataset.
        target: of what it is to become.
        mapping: what a person says about the two.

    Raises:
        UserError: a camera or column is not there, is used for nothing, or is mapped twice; all
            faults at once, each beginning with its key in the mapping.
    """
    cameras = _cameras(source, target, mapping.cameras)
    raise_faults(unusable(source, target, mapping))
    state = _columns(source.state.names, target.state.names, mapping.state, ())
    signs = _gripper_maps(source.action, target.action, mapping.action)
    action = _columns(source.action.names, target.action.names, mapping.action, signs)
    conventions = Conventions(
        cameras=tuple(
            _as_target(source.camera(own), target.camera(name), is_named=name in mapping.cameras)
            for name, own in cameras.items()
        ),
        state=_mapped_state(source.state, target.state, state),
        action=_mapped_action(source.action, target.action, action),
        control_hz=source.control_hz,
    )
    return Mapped(conventions, cameras, state, action)


def _cameras(
    source: Conventions, target: Conventions, named: Mapping[str, str | None]
) -> dict[str, str]:
    """The target's name -> the own name of every camera that is there."""
    own = {camera.name: named.get(camera.name, camera.name) for camera in target.cameras}
    return {name: each for name, each in own.items() if each in source.camera_names}


def _columns(
    own: Sequence[str],
    target: tuple[str, ...],
    choice: ColumnChoice,
    signs: tuple[LinearMap, ...],
) -> Columns:
    places = tuple(own.index(choice.rename.get(name, name)) for name in target)
    return Columns(target, places, (*choice.maps, *signs))


def _gripper_maps(
    source: ActionSpec, target: ActionSpec, choice: ColumnChoice
) -> tuple[LinearMap, ...]:
    """A map for every gripper whose declared values differ, but for columns with a map already."""
    declared = {gripper.column: gripper for gripper in source.grippers}
    explicit = {each.column for each in choice.maps}
    maps = []
    for wanted in target.grippers:
        have = declared.get(choice.rename.get(wanted.column, wanted.column))
        if have is None or wanted.column in explicit or have.open_value == have.closed_value:
            continue
        scale = (wanted.open_value - wanted.closed_value) / (have.open_value - have.closed_value)
        offset = wanted.closed_value - scale * have.closed_value
        if scale != 0 and (scale, offset) != (1, 0):
            column = wanted.column
            maps.append(LinearMap(kind="linear", column=column, scale=scale, offset=offset))
    return tuple(maps)


def _as_target(own: CameraSpec, target: CameraSpec, *, is_named: bool) -> CameraSpec:
    taken = ("name", "height", "width", *(("source",) if is_named else ()))
    return own.model_copy(update={field: getattr(target, field) for field in taken})


def _mapped_state(source: StateSpec, target: StateSpec, columns: Columns) -> StateSpec:
    return StateSpec(
        names=columns.names,
        units=_mapped_units(source.units, target.units, columns),
        frame=source.frame,
    )


def _mapped_action(source: ActionSpec, target: ActionSpec, columns: Columns) -> ActionSpec:
    maps = {each.column: each for each in columns.maps}
    limits = [
        _mapped_range(
            (source.low[place], source.high[place]), (low, high), maps.get(name, _IDENTITY)
        )
        for name, place, low, high in zip(
            columns.names, columns.places, target.low, target.high, strict=True
        )
    ]
    return ActionSpec(
        names=columns.names,
        units=_mapped_units(source.units, target.units, columns),
        references=tuple(source.references[place] for place in columns.places),
        low=tuple(low for low, _ in limits),
        high=tuple(high for _, high in limits),
        frame=source.frame,
        rotation=source.rotation,
        grippers=tuple(_mapped_grippers(source, target, columns, maps)),
    )


def _mapped_units(own: Sequence[str], target: Sequence[str], columns: Columns) -> tuple[str, ...]:
    mapped_names = {each.column for each in columns.maps}
    return tuple(
        unit if name in mapped_names else own[place]
        for name, place, unit in zip(columns.names, columns.places, target, strict=True)
    )


def _mapped_grippers(
    source: ActionSpec,
    target: ActionSpec,
    columns: Columns,
    maps: Mapping[str, LinearMap | AlohaGripperMap],
) -> Iterator[GripperSpec]:
    """In the target's order, those it does not know last."""
    declared = {gripper.column: gripper for gripper in source.grippers}
    own = {
        name: source.names[place] for name, place in zip(columns.names, columns.places, strict=True)
    }
    wanted = {gripper.column: gripper for gripper in target.grippers}
    for name in (*wanted, *(name for name in columns.names if name not in wanted)):
        if own[name] not in declared:
            continue
        have, map_ = declared[own[name]], maps.get(name, _IDENTITY)
        goal = wanted.get(name, have)
        yield GripperSpec(
            column=name,
            open_value=_snapped(_through(map_, have.open_value), goal.open_value),
            closed_value=_snapped(_through(map_, have.closed_value), goal.closed_value),
        )


_IDENTITY = LinearMap(kind="linear", column="any", scale=1.0)


def _mapped_range(
    own: tuple[float, float], target: tuple[float, float], map_: LinearMap | AlohaGripperMap
) -> tuple[float, float]:
    low, high = sorted(_through(map_, limit) for limit in own)
    return _snapped(low, target[0]), _snapped(high, target[1])


def _through(map_: LinearMap | AlohaGripperMap, value: float) -> float:
    """The mapped value; an infinite one keeps or turns its sign with the map's direction."""
    if math.isinf(value):
        ends = map_.to_model(np.array([0.0, 1.0]))
        return math.copysign(value, value * (ends[1] - ends[0]))
    return float(map_.to_model(np.array(value)))


def _snapped(value: float, target: float) -> float:
    """The target's value where the difference is rounding."""
    is_same = math.isfinite(target) and math.isclose(value, target, rel_tol=1e-9, abs_tol=1e-12)
    return target if is_same else value


class MappedDataset:
    """A `Dataset` whose cameras and columns are named, ordered, sized and signed as the target's.

    Its fingerprint is of the data, the mapping and the target.

    Args:
        dataset: what is mapped.
        target: the declaration to follow.
        mapping: what a person says about the two.

    Raises:
        UserError: as `data_tools.formats.mapping.mapped.mapped`.
    """

    def __init__(self, dataset: Dataset, target: Conventions, mapping: ConventionsMapping) -> None:
        self._dataset = dataset
        self._mapping = mapping
        self._mapped = mapped(dataset.conventions, target, mapping)

    @property
    def conventions(self) -> Conventions:
        """What the mapped episodes deliver; cameras they lack are left out."""
        return self._mapped.conventions

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that episodes have."""
        return self._dataset.columns

    @property
    def inspected(self) -> Inspected:
        """What was learned about the files when they were opened."""
        return self._dataset.inspected

    def holding(self) -> AbstractContextManager[object]:
        """Within it numbers that were read stay in memory, all of them."""
        return holding_numbers(self._dataset)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hex over the fingerprint of the data, the mapping and what it delivers.

        Signs and sizes follow the target without a word in the mapping.
        """
        digest = hashlib.sha256(self._dataset.fingerprint.encode())
        digest.update(self._mapping.model_dump_json().encode())
        digest.update(self.conventions.model_dump_json().encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> "MappedEpisode":
        return MappedEpisode(self._dataset[index], self._mapped)


class MappedEpisode(EpisodeView):
    """An episode as the target declares it."""

    def __init__(self, episode: Episode, how: Mapped) -> None:
        super().__init__(episode)
        self._how = how

    def state(self) -> npt.NDArray[np.float32]:
        """float32[t, s], the state at every step, columns as the target's."""
        return _mapped_columns(self._episode.state(), self._how.state)

    def actions(self) -> npt.NDArray[np.float32]:
        """float32[t, a], the action taken at every step, columns as the target's."""
        return _mapped_columns(self._episode.actions(), self._how.action)

    def image(self, camera: str, step: int) -> npt.NDArray[np.uint8]:
        """uint8[y, x, 3], RGB, upright, of the target's size: whole, on black; decodes one frame.

        Raises:
            KeyError: the target has no such camera, or the dataset lacks it.
        """
        spec = self._how.conventions.camera(camera)
        frame = self._episode.image(self._how.cameras[camera], step)
        return resize_center_pad(frame, spec.height, spec.width)

    def stored_frames(self, camera: str) -> StoredFrames:
        """How the frames of this camera lie on disk, before they are mapped."""
        self._how.conventions.camera(camera)
        return self._episode.stored_frames(self._how.cameras[camera])

    def observation(self, step: int, cameras: Sequence[str]) -> Observation:
        """The observation just before action `step`, with these cameras only."""
        seen = self._episode.observation(step, ())  # whose instruction may be the step's own
        images = {camera: self.image(camera, step) for camera in cameras}
        return replace(seen, images=images, state=_mapped_columns(seen.state, self._how.state))


def _mapped_columns(values: npt.NDArray[np.float32], columns: Columns) -> npt.NDArray[np.float32]:
    chosen = values[..., list(columns.places)]
    return map_columns(chosen, columns.maps, columns.names).astype(np.float32)
