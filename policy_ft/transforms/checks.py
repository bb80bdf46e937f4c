"""What can be wrong with an observation, with actions, or with the parts of a Transforms."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from data_tools.conventions import CameraSpec, Conventions
from data_tools.finite import nonfinite_columns, nonfinite_faults
from data_tools.formats.mapping.mapping import map_faults
from data_tools.stats import NormalizationStats
from policy_ft.config.transforms import TransformsConfig
from policy_ft.errors import describe, nearest, raise_faults, size_setting
from policy_ft.transforms.held import scaling_faults
from policy_ft.transforms.records import ModelShape, Statistics

Array = npt.NDArray[Any]

NO_IMAGES: Final = (
    "Without images a policy of its own can be trained on states alone: policy.kind new with "
    "transforms.cameras [] and model.vision {kind: none}, as in configs/state_only.yaml."
)


def image_faults(
    images: Mapping[str, Array],
    conventions: Conventions,
    where: str,
    absent: Collection[str] = (),
) -> list[str]:
    """Cameras that are missing and not absent, extra, or not uint8[y, x, 3] of the declared size.

    Args:
        images: camera name -> image.
        conventions: of the policy.
        where: how messages call the observation.
        absent: declared cameras that nobody expects.
    """
    faults = []
    for camera in conventions.cameras:
        if camera.name in absent:
            continue
        if camera.name not in images:
            hint = nearest(camera.name, images)
            remedy = "Send an image of this camera, or train a policy without it"
            remedy += f"; {hint}" if hint else "."
            found, expected = f"the cameras {sorted(images)}", f"a camera {camera.name!r} too"
            faults.append(describe(where, found, expected, remedy))
        else:
            faults += _misshaped(images[camera.name], camera, where)
    extra = sorted(set(images) - set(conventions.camera_names))
    if extra:
        expected = f"{list(conventions.camera_names)} only"
        remedy = "Leave the extra cameras out, or train a policy with them."
        faults.append(describe(where, f"the extra cameras {extra}", expected, remedy))
    return faults


def _misshaped(image: Array, camera: CameraSpec, where: str) -> Iterator[str]:
    expected = (camera.height, camera.width, 3)
    if image.dtype != np.uint8 or image.shape != expected:
        yield describe(
            f"{where}, camera {camera.name!r}",
            f"{image.dtype}{list(image.shape)}",
            f"uint8{list(expected)}: rows, columns, RGB",
            "Send the image as declared: not scaled to floats, not resized, not transposed.",
        )


def state_faults(state: Array, conventions: Conventions, where: str) -> list[str]:
    """A state of another width, or with numbers that are not finite."""
    names = conventions.state.names
    if state.shape != (len(names),):
        found = f"an array {list(state.shape)}"
        remedy = "Send exactly these columns, in this order and in the robot's own units."
        return [describe(f"{where}, state", found, f"[{len(names)}], {list(names)}", remedy)]
    return nonfinite_faults(f"{where}, state", state[None], names, None)


def action_faults(
    actions: Array, conventions: Conventions, horizon: int, where: str, first_step: int = 0
) -> list[str]:
    """Actions of another width or number, or with numbers that are not finite.

    Args:
        actions: float[h', A].
        conventions: of the policy.
        horizon: most steps of a chunk.
        where: how messages call the episode, or the observation of a chunk that is of none.
        first_step: the step of the first action.
    """
    names = conventions.action.names
    if actions.ndim != 2 or actions.shape[1] != len(names):
        found = f"an array {list(actions.shape)}"
        remedy = "Correct the action columns, or train a policy with this action width."
        return [describe(f"{where}, actions", found, f"[h, {len(names)}], {list(names)}", remedy)]
    if not 1 <= len(actions) <= horizon:
        found, expected = f"{len(actions)} steps", f"1 to {horizon} (action_horizon)"
        remedy = "Cut the actions to the horizon."
        return [describe(f"{where}, actions", found, expected, remedy)]
    return nonfinite_faults(f"{where}, actions", actions, names, first_step)


def nonfinite_numbers(chunk: Array, names: Sequence[str]) -> str:
    """What of float[h, A] is not finite, in words; '' where all is.

    Args:
        chunk: actions, one row a step.
        names: of the columns.
    """
    bad = nonfinite_columns(chunk)
    if not bad:
        return ""
    column, step, _ = bad[0]
    count = sum(number for _, _, number in bad)
    listed = [names[each] for each, _, _ in bad]
    more = f" (one of {count} such numbers, in {listed})" if count > 1 else ""
    return f"{chunk[step, column]} at step {step} of column {listed[0]!r}{more}"


def part_faults(
    config: TransformsConfig, conventions: Conventions, shape: ModelShape, statistics: Statistics
) -> list[str]:
    """Every way in which the parts of a Transforms do not fit one another."""
    states, actions = conventions.state.names, conventions.action.names
    faults = [
        *_camera_faults(config, conventions, shape),
        *_width_faults("state", len(states), shape.state_dim, statistics.state),
        *_width_faults("action", len(actions), shape.action_dim, statistics.actions),
        *map_faults("transforms.state_maps", config.state_maps, states),
        *map_faults("transforms.action_maps", config.action_maps, actions),
        *delta_faults(config, conventions),
    ]
    # of columns that belong together
    return faults or scaling_faults(config, conventions, statistics)


def absent_cameras(cameras: Sequence[str], known: Sequence[str], where: str) -> Iterator[str]:
    """Cameras that nobody declares; one fault where none is declared at all.

    Args:
        cameras: names that are wanted.
        known: names that are declared.
        where: how messages call the declaration.
    """
    if cameras and not known:
        found, expected = "no camera at all", f"the cameras {list(cameras)}"
        yield describe(where, found, expected, f"Record their images. {NO_IMAGES}")
        return
    for name in cameras:
        if name not in known:
            hint = nearest(name, known)
            remedy = "Correct policy.transforms.cameras (kind new) or `cameras` of the embodiment, "
            remedy += "or record this camera"
            remedy += f"; {hint}" if hint else "."
            yield describe(where, f"the cameras {list(known)}", f"a camera {name!r} too", remedy)


def _camera_faults(
    config: TransformsConfig, conventions: Conventions, shape: ModelShape
) -> Iterator[str]:
    if not config.cameras and shape.num_cameras:
        found, expected = "none", f"at least one for a model with {shape.num_cameras} camera slots"
        remedy = f"Name one in transforms.cameras, or in `cameras` of the embodiment. {NO_IMAGES}"
        yield describe("cameras", found, expected, remedy)
    if len(config.cameras) > shape.num_cameras:
        found = f"{len(config.cameras)}, for {list(config.cameras)}"
        expected = f"at most {shape.num_cameras} (num_cameras)"
        remedy = (
            "Remove a camera from policy.transforms.cameras (kind new) or from `cameras` of the "
        )
        remedy += f"embodiment, or raise {size_setting('num_cameras')}."
        yield describe("slots of cameras", found, expected, remedy)
    if conventions.camera_names != config.camera_names:
        found = f"the cameras {list(conventions.camera_names)}"
        expected = f"{list(config.camera_names)}"
        remedy = "Take conventions.json and transforms.json from the same checkpoint."
        yield describe("conventions", found, f"{expected}, as in transforms.cameras", remedy)
    size = (shape.image_height, shape.image_width)
    for camera in conventions.cameras:
        where = f"conventions, camera {camera.name!r}"
        if config.resize == "none" and (camera.height, camera.width) != size:
            found = f"{camera.height} x {camera.width} pixels"
            remedy = "Have images resized: set policy.transforms.resize (kind new) or "
            remedy += (
                "policy.image_resize (kind pretrained) to pil_bilinear_center_pad; or give the "
            )
            remedy += f"model their size: {size_setting('image_height')}, and image_width."
            yield describe(where, found, f"{size[0]} x {size[1]} with resize none", remedy)
        if (camera.color_order, camera.orientation) != ("rgb", "upright"):
            found = f"color_order {camera.color_order!r}, orientation {camera.orientation!r}"
            remedy = "Declare how the images are stored, so that reading can turn them upright."
            yield describe(where, found, "rgb and upright", remedy)


def _width_faults(part: str, own: int, model: int, stats: NormalizationStats) -> Iterator[str]:
    if own > model:
        remedy = f"Raise {size_setting(f'{part}_dim')}, or use a checkpoint made for this robot."
        yield describe(
            f"model.{part}_dim", str(model), f"at least the robot's {own} columns", remedy
        )
    if stats.dim != own:
        found, expected = f"{stats.dim} columns", f"{own}, as in the conventions"
        remedy = "Compute the statistics again from this robot's data (statistics: data)."
        yield describe(f"normalization_stats, {part}", found, expected, remedy)


def delta_faults(
    config: TransformsConfig, conventions: Conventions, setting: str = "transforms.delta_actions"
) -> Iterator[str]:
    """Delta actions that are no columns of both action and state, or are deltas already.

    Args:
        config: names the columns.
        conventions: declare the columns there are.
        setting: how messages call the setting.
    """
    action = conventions.action
    for name in config.delta_actions:
        for part, names in (("action", action.names), ("state", conventions.state.names)):
            if name not in names:
                hint = nearest(name, names)
                found = f"{name!r}, which is no {part} column"
                remedy = "Name a column that both action and state have"
                remedy += f"; {hint}" if hint else "."
                yield describe(setting, found, f"one of {list(names)}", remedy)
        reference = dict(zip(action.names, action.references, strict=True)).get(name, "absolute")
        if reference not in ("absolute", "unknown") and not config.double_delta:
            remedy = "Remove it: making it relative once more would train wrong targets."
            found = f"{name!r}, which is declared {reference!r}"
            yield describe(setting, found, "an absolute column", remedy)


def restricted(conventions: Conventions, cameras: Sequence[str], where: str) -> Conventions:
    """The same declaration with these cameras only, in this order.

    Args:
        conventions: of a dataset or an environment.
        cameras: names.
        where: how messages call the declaration, e.g. "data.path demos/pick.hdf5".

    Raises:
        UserError: a camera is not declared.
    """
    raise_faults(absent_cameras(cameras, conventions.camera_names, where))
    chosen = tuple(conventions.camera(name) for name in cameras)
    return conventions.model_copy(update={"cameras": chosen})


def delta_pairs(config: TransformsConfig, conventions: Conventions) -> tuple[tuple[int, int], ...]:
    """(action column, state column) of every delta action; UserError where there is none."""
    raise_faults(delta_faults(config, conventions))
    actions, states = conventions.action.names, conventions.state.names
    return tuple((actions.index(name), states.index(name)) for name in config.delta_actions)
