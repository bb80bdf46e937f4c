"""The record of a robot, and reading it from a YAML file: a preset beside this one, or a user's."""

from pathlib import Path
from typing import Any, Final, Self

from pydantic import Field, StrictBool, ValidationError, model_validator

from data_tools.columns import ColumnMap, map_faults
from data_tools.conventions import Conventions
from policy_ft.config.base import Settings
from policy_ft.config.loader import read_config
from policy_ft.config.transforms import TransformsConfig
from policy_ft.errors import UserError, describe, nearest, validation_faults
from policy_ft.transforms.checks import delta_faults

_DIRECTORY: Final = Path(__file__).parent
PRESETS: Final = tuple(sorted(path.stem for path in _DIRECTORY.glob("*.yaml")))


class Embodiment(Settings):
    """A robot: what its numbers mean, and how a pretrained model is to see them."""

    name: str = Field(min_length=1, description="What messages call it.")
    description: str = Field(description="Which robot, which recording set-up, from which source.")
    conventions: Conventions = Field(
        description="Cameras in the order of the slots they fill, state and action columns, rate."
    )
    cameras: tuple[str | None, ...] = Field(
        min_length=1,
        description="As in transforms.cameras: the camera of each slot, null for none.",
    )
    state_maps: tuple[ColumnMap, ...] = Field((), description="As in transforms.state_maps.")
    action_maps: tuple[ColumnMap, ...] = Field((), description="As in transforms.action_maps.")
    delta_actions: tuple[str, ...] = Field((), description="As in transforms.delta_actions.")
    double_delta: StrictBool = Field(False, description="As in transforms.double_delta.")
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

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        config = TransformsConfig(**self.transforms)
        faults = [
            *map_faults("state_maps", self.state_maps, self.conventions.state.names),
            *map_faults("action_maps", self.action_maps, self.conventions.action.names),
            *delta_faults(config, self.conventions),
        ]
        if self.conventions.camera_names != config.camera_names:
            found = f"{list(config.camera_names)}"
            expected = f"the cameras of conventions, {list(self.conventions.camera_names)}"
            remedy = "Name the same cameras in the same order, with null for an empty slot."
            faults.append(describe("cameras", found, expected, remedy))
        if faults:
            raise ValueError("\n".join(faults))
        return self

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
        raise UserError(validation_faults(error, Embodiment, source.place)) from None
