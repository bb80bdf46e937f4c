"""The repairs that cannot make data wrong, into a new file.

Safe is what changes no meaning: a quaternion and its negative are one rotation, an episode that is
there twice is there once, spaces are not words, and counts are counted. Everything else that
`validate` finds needs a person: a clipped action or a NaN has no right value to be guessed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from data_tools.checks.collection import DUPLICATE_EPISODE, numbers_digest
from data_tools.checks.frames import UNDECODABLE_FRAME, frame_digest
from data_tools.checks.headers import RULES as HEADER_RULES
from data_tools.checks.instructions import INSTRUCTION_SPACES, single_spaced
from data_tools.checks.numbers import LENGTHS, NOT_FINITE
from data_tools.checks.reading import UNREADABLE_NUMBERS
from data_tools.checks.recording import FloatArray, Recording
from data_tools.checks.roles import Part, Quaternion, Roles
from data_tools.checks.rotations import (
    QUATERNION_FLIP,
    QUATERNION_HEMISPHERE,
    SAME_ROTATION,
    quaternion_values,
    sign_flips,
    usual_quaternion,
)
from data_tools.episode import Dataset
from data_tools.errors import describe, raise_faults
from data_tools.finding import Finding, Rule
from data_tools.rewrite.convert import convert
from data_tools.rewrite.edited import Edit, EditedDataset
from data_tools.rewrite.unfinished import Advance, silently

# What no repair can mend, and no file of ours may hold.
_HOPELESS: Final = {
    rule.name for rule in (LENGTHS, NOT_FINITE, UNDECODABLE_FRAME, UNREADABLE_NUMBERS)
}

Signs = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Repair:
    """One thing that is different in the new file."""

    rule: str
    where: str
    change: str

    def __str__(self) -> str:
        return f"repaired [{self.rule}] {self.where}: {self.change}"


def repair(
    dataset: Dataset,
    target: Path,
    findings: Sequence[Finding],
    *,
    sources: Sequence[str | Path] = (),
    advance: Advance = silently,
) -> list[Repair]:
    """What was repaired in the new file; without anything to repair no file is made.

    The file is in our own layout, by `convert`: it appears when it is whole, and JPEG frames keep
    their bytes. Every episode keeps its order.

    Args:
        dataset: what to repair; it stays as it is.
        target: the file to make.
        findings: of `validate` on this dataset.
        sources: the files the dataset was opened from, for the provenance.
        advance: called with the episodes written and the episodes there are.

    Raises:
        UserError: the target exists, or the dataset has faults that no file may hold.
    """
    hopeless = [finding for finding in findings if finding.rule in _HOPELESS]
    raise_faults(
        describe(finding.place, finding.value, "an episode that can be written", finding.remedy)
        for finding in hopeless
    )
    repairs = [*_header_repairs(findings)]
    edits: list[tuple[int, Edit]] = []
    seen: dict[tuple[object, ...], str] = {}
    usual = _usual_quaternions(dataset)
    for index in range(len(dataset)):
        episode = dataset[index]
        recording = Recording.of(episode)
        key = _identity(recording, dataset.conventions.camera_names)
        if key in seen:
            repairs.append(
                Repair(DUPLICATE_EPISODE.name, episode.name, f"left out; it is {seen[key]} again")
            )
            continue
        seen[key] = episode.name
        edit, made = _edit(recording, usual)
        repairs += made
        edits.append((index, edit))
    if not repairs:
        return []
    edited = EditedDataset(dataset, edits, dataset.conventions)
    settings: dict[str, object] = {"repairs": [str(each) for each in repairs]}
    convert(
        edited,
        target,
        "native",
        sources=sources,
        command="validate --fix",
        settings=settings,
        advance=advance,
    )
    return repairs


def _header_repairs(findings: Sequence[Finding]) -> list[Repair]:
    repaired = {rule.name: rule for rule in HEADER_RULES if rule.repair}
    return [
        Repair(finding.rule, finding.where, repaired[finding.rule].repair)
        for finding in findings
        if finding.rule in repaired
    ]


def _identity(recording: Recording, cameras: Sequence[str]) -> tuple[object, ...]:
    """What two episodes must share for one to be left out."""
    episode, last = recording.episode, recording.num_steps - 1
    pictures = tuple(
        frame_digest(episode.image(camera, step))
        for camera in cameras
        for step in (0, last // 2, last)
    )
    text = single_spaced(episode.instruction)
    return numbers_digest(recording), text, episode.is_success, pictures


def _usual_quaternions(dataset: Dataset) -> dict[Quaternion, FloatArray]:
    """Of each quaternion of the conventions the value that most episodes start with."""
    starts: dict[Quaternion, list[FloatArray]] = {
        quaternion: [] for quaternion in Roles.of(dataset.conventions).quaternions
    }
    for index in range(len(dataset) if starts else 0):
        recording = Recording.of(dataset[index])
        for quaternion, values in starts.items():
            values.append(quaternion_values(recording, quaternion)[0])
    return {quaternion: usual_quaternion(np.array(values)) for quaternion, values in starts.items()}


def _edit(recording: Recording, usual: dict[Quaternion, FloatArray]) -> tuple[Edit, list[Repair]]:
    repairs: list[Repair] = []
    signs: dict[Part, list[tuple[Quaternion, Signs]]] = {"state": [], "action": []}
    for quaternion, first in usual.items():
        values = quaternion_values(recording, quaternion)
        sign, changes = _signs(values, first)
        if changes:
            signs[quaternion.part].append((quaternion, sign))
        repairs += [
            Repair(rule.name, recording.name, f"{quaternion.part} {quaternion.name}: {change}")
            for rule, change in changes
        ]
    told = recording.episode.instruction
    text = single_spaced(told)
    if text != told:
        repairs.append(Repair(INSTRUCTION_SPACES.name, recording.name, f"now {text!r}"))
    edit = Edit(
        instruction=text if text != told else None,
        state=partial(_turn, signs=signs["state"]) if signs["state"] else None,
        changes=(partial(_turn_actions, signs=signs["action"]),) if signs["action"] else (),
    )
    return edit, repairs


def _signs(values: FloatArray, usual: FloatArray) -> tuple[Signs, list[tuple[Rule, str]]]:
    """float64[t] of +-1 that bring the quaternions into one hemisphere, and what that changes."""
    changes = []
    flips = sign_flips(values)
    sign = np.ones(len(values))
    for step in flips:
        sign[step:] *= -1
    if len(flips):
        changes.append((QUATERNION_FLIP, f"signs of {len(flips)} jumps made one"))
    if values[0] @ usual < -SAME_ROTATION:
        sign *= -1
        changes.append((QUATERNION_HEMISPHERE, "negated, to start as most episodes do"))
    return sign, changes


def _turn(
    values: npt.NDArray[np.floating], signs: Sequence[tuple[Quaternion, Signs]]
) -> npt.NDArray[np.float32]:
    turned = values.astype(np.float32)
    for quaternion, sign in signs:
        turned[:, list(quaternion.columns)] *= sign[:, None].astype(np.float32)
    return turned


def _turn_actions(
    actions: npt.NDArray[np.floating],
    state: npt.NDArray[np.float32],
    signs: Sequence[tuple[Quaternion, Signs]],
) -> npt.NDArray[np.float32]:
    """`_turn`, as an edit of actions is called."""
    return _turn(actions, signs)
