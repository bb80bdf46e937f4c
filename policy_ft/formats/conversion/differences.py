"""What a converted checkpoint says otherwise than the one it was made of."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from pydantic import BaseModel

from data_tools.actions import Normalization, near_constant_columns
from data_tools.stats import NormalizationStats
from policy_ft.config.transforms import TransformsConfig
from policy_ft.formats.conversion.contents import Contents
from policy_ft.formats.embodiments.robot_beside import EMBODIMENT_FILE
from policy_ft.formats.openpi.read_openpi import STATISTICS_FILE
from policy_ft.formats.published import Published
from policy_ft.transforms.held import Part, model_motions

PROGRAMS: Final = {"openpi": "openpi", "lerobot": "LeRobot"}
"""Format -> how people call the program whose it is."""

_RANGES: Final = ("quantiles", "quantiles_10_90", "min_max")
_ELSEWHERE: Final = {
    "state_maps": "apply them to the state before the policy reads it",
    "action_maps": "undo them on the actions it returns",
    "delta_actions": "set them where the other program is configured",
    "double_delta": "set it where the other program is configured",
}
"""Settings of the robot that a format may have no place for -> what to do there."""


def differences(contents: Contents, written: Published) -> Iterator[str]:
    """A remark for each setting that the other program takes otherwise.

    Args:
        contents: of the checkpoint that was converted.
        written: the new one, read without the help of an embodiment.
    """
    program = PROGRAMS[written.format]
    for name, ours, theirs in _changed("", contents.config, written.config):
        yield f"{name} {ours}: {program} takes {theirs}, and its files have no place for another"
    if contents.model.autocast_dtype is not None:
        yield (
            f"precision bf16: so the policy was measured with these weights; {program} computes in "
            "the type that its own settings name"
        )
    yield from _transforms_differences(contents, _as_run(contents, written), program)
    yield from _statistics_differences(contents, written)
    if not says_robot(contents, written):
        yield (
            f"{EMBODIMENT_FILE}: the robot (columns, units, limits, cameras, control rate, maps), "
            f"which {program}'s files cannot say all of; policy_ft loads this directory with it "
            "as the embodiment"
        )


def has_statistics(written: Published) -> bool:
    """Whether there are statistics in the files, be it of several robots."""
    names = (STATISTICS_FILE, ".safetensors")
    return written.statistics is not None or any(n.endswith(names) for n in written.documents)


def says_robot(contents: Contents, written: Published) -> bool:
    """Whether the files of the format alone say all of the robot."""
    ours, theirs = contents.transforms_config, written.transforms_config
    names = ("cameras", *_ELSEWHERE)
    return contents.conventions == written.conventions and all(
        getattr(ours, name) == getattr(theirs, name) for name in names
    )


def _as_run(contents: Contents, written: Published) -> TransformsConfig:
    """The transforms as the other program runs them.

    A base that LeRobot converted and never trained is read as it was made; what LeRobot does to its
    images and prompts is its own all the same.
    """
    theirs = written.transforms_config
    if written.format != "lerobot" or contents.layout == "lerobot":
        return theirs
    own: dict[str, Any] = {}
    if theirs.resize == "pil_bilinear_center_pad":
        own["resize"] = "torch_bilinear_center_pad"
    if theirs.prompt == "pi0":
        own["prompt"] = "lerobot_pi0"
    return theirs.model_copy(update=own)


def _transforms_differences(
    contents: Contents, theirs: TransformsConfig, program: str
) -> Iterator[str]:
    ours = contents.transforms_config
    changed = {name: (one, two) for name, one, two in _changed("", ours, theirs)}
    changed.pop("cameras", None)
    for name, hint in _ELSEWHERE.items():
        if changed.pop(name, None):
            yield f"{name}{_columns(getattr(ours, name))}: {program} does otherwise; {hint}"
    kinds = (ours.state_normalization, ours.action_normalization)
    if changed.pop("still_columns", None):
        yield from _still_columns(contents, program)
    rule = changed.pop("range_epsilon", None)
    if rule and any(kind in _RANGES for kind in kinds):
        words = {"added": "adds epsilon to every range", "for_zero": "puts it for a range of zero"}
        yield f"range_epsilon {rule[0]}: {program} {words[rule[1]]}"
    if "epsilon" in changed:
        one, two = changed.pop("epsilon")
        yield f"epsilon {one}: {program} adds {two} to what it divides by"
    for name, (one, two) in changed.items():
        yield f"{name}: the policy was trained with {one}, and {program} does {two}"


def _columns(value: Any) -> str:
    """' of a, b' for maps or names of columns, and nothing for none or for a switch."""
    if not value or not isinstance(value, Sequence):
        return ""
    return f" of {', '.join(str(getattr(entry, 'column', entry)) for entry in value)}"


def _still_columns(contents: Contents, program: str) -> Iterator[str]:
    """A remark for the columns that hardly move, where there are any."""
    if contents.statistics is None:
        return
    config, robot, found = contents.transforms_config, contents.conventions, contents.statistics
    parts: tuple[tuple[Part, tuple[str, ...], NormalizationStats, Normalization], ...] = (
        ("state", robot.state.names, found.state, config.state_normalization),
        ("action", robot.action.names, found.actions, config.action_normalization),
    )
    for part, names, stats, kind in parts:
        motions = model_motions(config, robot, part)
        still = [names[index] for index in near_constant_columns(stats, kind, motions)]
        if still:
            yield (
                f"still_columns: the {part} columns {', '.join(still)} hardly moved in the "
                "training data; here they are held, or scaled by all that they span, and "
                f"{program} divides by their tiny spread: a sensor's noise may become large "
                "numbers, and rare motions are lost"
            )


def _statistics_differences(contents: Contents, written: Published) -> Iterator[str]:
    if contents.statistics is None or written.statistics is None:
        if not has_statistics(written):
            yield f"no statistics: {contents.absent['statistics']}"
        return
    for part in ("state", "actions"):
        ours: NormalizationStats = getattr(contents.statistics, part)
        theirs: NormalizationStats = getattr(written.statistics, part)
        lost = [name for name in ours.present if name not in theirs.present]
        kept = [name for name in theirs.present if name in ours.present]
        changed = [name for name in kept if getattr(ours, name) != getattr(theirs, name)]
        if lost:
            yield f"statistics of {part}: the files have no place for {', '.join(lost)}"
        if changed:
            yield f"statistics of {part}: the files say {', '.join(changed)} otherwise"


def _changed(prefix: str, ours: BaseModel, theirs: BaseModel) -> Iterator[tuple[str, Any, Any]]:
    """Key path, our value and theirs of each setting that differs, down to plain values."""
    for name in type(ours).model_fields:
        one, two = getattr(ours, name), getattr(theirs, name)
        if isinstance(one, BaseModel) and type(one) is type(two):
            yield from _changed(f"{prefix}{name}.", one, two)
        elif one != two:
            yield f"{prefix}{name}", one, two
