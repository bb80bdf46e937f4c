"""The record of a robot, and reading it from a YAML file: a preset beside this one, or a user's."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, Field, StrictBool, ValidationError, ValidationInfo, field_validator

from data_tools.conventions import ActionReference, Conventions
from data_tools.formats.mapping.mapping import ColumnMap, map_faults
from policy_ft.config.base import Settings
from policy_ft.config.config_file import ConfigDocument, read_config
from policy_ft.config.transforms import Slots, TransformsConfig
from policy_ft.errors import UserError, describe, nearest, validation_faults
from policy_ft.transforms.checks import delta_faults

_DIRECTORY: Final = Path(__file__).parent
PRESETS: Final = tuple(sorted(path.stem for path in _DIRECTORY.glob("*.yaml")))


Maps = tuple[ColumnMap, ...]


class Embodiment(Settings):
    """A robot: what its numbers mean, and how a pretrained model is to see them.

    Each part is checked against the conventions, which come first, as it is read, so that all
    faults are told at once.
    """

    name: str = Field(min_length=1, description="What messages call it.")
    description: str = Field(description="Which robot, which recording set-up, from which source.")
    conventions: Conventions = Field(
        description="Cameras in the order of the slots they fill, state and action columns, rate."
    )
    cameras: Slots = Field(
        description="As in transforms.cameras: the camera of each slot, null for none.",
    )
    state_maps: Maps = Field((), description="As in transforms.state_maps.")
    action_maps: Maps = Field((), description="As in transforms.action_maps.")
    double_delta: StrictBool = Field(False, description="As in transforms.double_delta.")
    delta_actions: tuple[str, ...] = Field(
        (), validate_default=True, description="As in transforms.delta_actions."
    )
    prompt_says_state: StrictBool = Field(
        True,
        description="Whether pi0.5 reads the state in its prompt (discrete_state_input in openpi), "
        "where the checkpoint does not say. If not, it is not told the state at all.",
    )
    asset_ids: tuple[str, ...] = Field(
        (),
        description="Names under which a checkpoint may keep the statistics of this robot, the "
        "best first: folders below assets/ in openpi, data sets in LeRobot (smolvla_base: so100).",
    )

    @field_validator("cameras")
    @classmethod
    def _are_declared(cls, cameras: Slots, info: ValidationInfo) -> Slots:
        named = tuple(name for name in cameras if name is not None)
        declared = _declared(info)
        if declared is not None and declared.camera_names != named:
            remedy = "Name the same cameras in the same order, with null for an empty slot."
            expected = f"the cameras of conventions, {list(declared.camera_names)}"
            _refuse([describe("cameras", f"{list(named)}", expected, remedy)])
        return cameras

    @field_validator("state_maps", "action_maps")
    @classmethod
    def _map_columns(cls, maps: Maps, info: ValidationInfo) -> Maps:
        declared = _declared(info)
        if declared is not None:
            part = declared.state if info.field_name == "state_maps" else declared.action
            _refuse(map_faults(str(info.field_name), maps, part.names))
        return maps

    @field_validator("delta_actions")
    @classmethod
    def _can_be_relative(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        declared, double = _declared(info), bool(info.data.get("double_delta"))
        if double and not names:
            found, expected = "no column with double_delta: true", "columns that are relative"
            remedy = "Name them, or remove double_delta, which does nothing without."
            _refuse([describe("delta_actions", found, expected, remedy)])
        if declared is not None:
            config = TransformsConfig(cameras=("",), delta_actions=names, double_delta=double)
            _refuse(delta_faults(config, declared, "delta_actions"))
        return names

    @property
    def transforms(self) -> dict[str, Any]:
        """The settings of TransformsConfig that the robot decides."""
        names = ("cameras", "state_maps", "action_maps", "delta_actions", "double_delta")
        return {name: getattr(self, name) for name in names}


def load_embodiment(name_or_path: str) -> Embodiment:
    """The preset of that name, or the embodiment that a YAML file declares.

    Args:
        name_or_path: one of PRESETS, or a path that ends in .yaml or .yml.

    Raises:
        UserError: there is no such preset or file, or the file declares what cannot be; every fault
            with its line.
    """
    if not name_or_path.endswith((".yaml", ".yml")):
        if name_or_path not in PRESETS:
            hint = nearest(name_or_path, PRESETS)
            remedy = "Name a preset, or the YAML file of your own (docs/embodiments.md)"
            remedy += f"; {hint}" if hint else "."
            expected = f"one of {list(PRESETS)}, or a path ending in .yaml"
            raise UserError(describe("embodiment", repr(name_or_path), expected, remedy))
        return load_embodiment(str(_DIRECTORY / f"{name_or_path}.yaml"))
    source = read_config(name_or_path)
    try:
        return Embodiment.model_validate(source.values)
    except ValidationError as error:
        faults = validation_faults(error, Embodiment, source.place)
        raise UserError([*faults, *_other_faults(source, faults)]) from None


def _other_faults(source: ConfigDocument, known: Sequence[str]) -> list[str]:
    """What is wrong beside damaged conventions, as far as the names in them tell."""
    try:
        names = _Names.model_validate(source.values.get("conventions"))
    except ValidationError:
        return []  # the known faults tell of it
    try:
        Embodiment.model_validate({**source.values, "conventions": names.alone()})
    except ValidationError as error:
        faults = validation_faults(error, Embodiment, source.place)
        return [fault for fault in faults if fault not in known]
    return []


class _Named(BaseModel):
    """A camera's name, whatever else is said of it."""

    name: str


class _Columns(BaseModel):
    """The names of columns and what they are relative to, whatever else is said of them."""

    names: tuple[str, ...]
    references: tuple[ActionReference, ...] = ()


class _Names(BaseModel):
    """The names in conventions that may be wrong in all else."""

    cameras: tuple[_Named, ...]
    state: _Columns
    action: _Columns

    def alone(self) -> dict[str, Any]:
        """A declaration of the same cameras and columns that says nothing else of them."""
        states, actions, given = self.state.names, self.action.names, self.action.references
        zeros = (0,) * len(actions)
        return {
            "cameras": [{"name": camera.name, "height": 1, "width": 1} for camera in self.cameras],
            "state": {"names": states, "units": states},
            "action": {
                "names": actions,
                "units": actions,
                "references": given if len(given) == len(actions) else ("unknown",) * len(actions),
                "low": zeros,
                "high": zeros,
            },
            "control_hz": None,
        }


def _declared(info: ValidationInfo) -> Conventions | None:
    """The conventions, None while they are themselves at fault."""
    return info.data.get("conventions")


def _refuse(faults: Iterable[str]) -> None:
    """What each fault says after its place, which the file's line and the key replace."""
    listed = [fault.partition(": ")[2] for fault in faults]
    if listed:
        raise ValueError("\n".join(listed))
