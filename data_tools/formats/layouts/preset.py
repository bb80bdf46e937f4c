"""Preset: a layout that a project writes, how to recognize it, and what its numbers mean.

One YAML file a layout lies in `presets/`. It is data: a new kind of file needs a new YAML file, and
code only where nobody keeps things in that way yet. A preset states what every file with its marks
bears out, or what marks of one file show; what it leaves open a person is asked for.
"""

from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml
from pydantic import Field, JsonValue

from data_tools.conventions import ActionReference, CameraSpec, GripperSpec
from data_tools.declaration import Declaration
from data_tools.formats.layouts.evidence import Exists, Test
from data_tools.formats.layouts.layout import Layout


class CameraTemplate(Declaration):
    """What a layout says about cameras whose size the file tells."""

    color_order: Literal["rgb", "bgr", "unknown"] = Field(
        "unknown", description="Order of the channels stored."
    )
    orientation: Literal["upright", "flipped_vertical", "rotated_180", "unknown"] = Field(
        "unknown", description="How the stored image relates to the scene."
    )
    source: str = Field("unknown", description="What makes the pixels.")

    def filled(self, name: str, height: int, width: int) -> dict[str, object]:
        """The declaration of a camera of this size; channels of unknown order stay as they are."""
        said = self.model_dump()
        if self.color_order == "unknown":
            del said["color_order"]
        return CameraSpec(name=name, height=height, width=width, **said).model_dump()


class ActionTemplate(Declaration):
    """What a layout says about actions of a certain width; one value stands for all columns."""

    names: tuple[str, ...] = Field((), description="Names of the columns; any width when empty.")
    units: str | tuple[str, ...] = Field("unknown", description="Units of the columns.")
    references: ActionReference | tuple[ActionReference, ...] = Field(
        "unknown", description="What each column is relative to."
    )
    low: float | tuple[float, ...] = Field(float("-inf"), description="Smallest legal values.")
    high: float | tuple[float, ...] = Field(float("inf"), description="Largest legal values.")
    frame: str = Field("unknown", description="Frame of positions and rotations.")
    rotation: str = Field("unknown", description="Form of the rotation columns.")
    grippers: tuple[GripperSpec, ...] | None = Field(
        None, description="The gripper columns and signs; null where that is open."
    )


class ConventionsTemplate(Declaration):
    """What a layout says about its numbers, with the sizes left to the file."""

    control_hz: float | None = Field(None, description="Control steps per second.")
    camera: CameraTemplate = Field(CameraTemplate(), description="Every camera not named below.")
    cameras: dict[str, CameraTemplate] = Field({}, description="Cameras that differ, by name.")
    state_frame: str = Field("unknown", description="Frame of the state's positions.")
    action: tuple[ActionTemplate, ...] = Field(
        (), description="One for each width that occurs; the one with as many names is taken."
    )

    def with_more(self, more: "ConventionsTemplate") -> "ConventionsTemplate":
        """These, with what others say in addition."""
        said = {name: getattr(more, name) for name in more.model_fields_set}
        if "camera" in said:
            camera = more.camera.model_dump(exclude_unset=True)
            said["camera"] = self.camera.model_copy(update=camera)
        return self.model_copy(update=said)


class Shown(Declaration):
    """What the numbers of a file mean that shows more than the marks of its layout."""

    evidence: tuple[Test, ...] = Field(min_length=1, description="What must hold, all together.")
    conventions: ConventionsTemplate = Field(description="What that tells.")


class Preset(Declaration):
    """A kind of file that a project writes."""

    name: str = Field(description="Name of the layout: what a sidecar's `layout` says.")
    title: str = Field(description="One line for the table of layouts.")
    project: str = Field(description="Where it comes from: repositories or a paper.")
    evidence: tuple[Test, ...] = Field(min_length=1, description="What must hold, all together.")
    special_case_of: tuple[str, ...] = Field(
        (), description="Layouts whose evidence such a file shows, too."
    )
    layout: Layout = Field(Layout(), description="Where the parts are.")
    conventions: ConventionsTemplate = Field(
        ConventionsTemplate(), description="What the numbers mean."
    )
    shown: tuple[Shown, ...] = Field(
        (), description="What only some files of the kind tell, and by which marks of theirs."
    )
    declare: dict[str, str] = Field(
        {},
        description="Why a place of the conventions (control_hz, cameras.*.orientation, ...) is "
        "open. Units, forms of rotations, and names that the layout may have wrong, are asked for "
        "only where they are listed here; anything else wherever it is open.",
    )
    usual: dict[str, JsonValue] = Field(
        {},
        description="What the project's own recorder writes, by place: never assumed, and proposed "
        "to the person who is asked, where the columns are as many.",
    )
    refusal: str = Field(
        "", description="What to do instead, when such a file holds nothing to train on."
    )


def nothing_said(layout: Layout) -> Preset:
    """A layout that a person declares, of whose numbers nothing is known but what they say."""
    reason = "no source in the layout says it"
    return Preset(
        name=layout.name,
        title="declared in a sidecar",
        project="",
        evidence=(Exists(exists="/"),),
        layout=layout,
        declare={"state.units": reason, "action.units": reason},
    )


@cache
def presets() -> dict[str, Preset]:
    """Every layout we know, by name, in the order of their names."""
    folder = files(__package__).joinpath("presets")
    texts = {f.name: f.read_text("utf-8") for f in folder.iterdir() if f.name.endswith(".yaml")}
    loaded = [_preset(name, yaml.safe_load(texts[name])) for name in sorted(texts)]
    return {preset.name: preset for preset in loaded}


def _preset(file_name: str, content: dict[str, Any]) -> Preset:
    """One preset; its layout bears its name."""
    name = file_name.removesuffix(".yaml")
    layout = {**content.get("layout", {}), "name": name}
    return Preset.model_validate({**content, "name": name, "layout": layout})
