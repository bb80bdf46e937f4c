"""The repairs that cannot make data wrong, into a new file.

Safe is what changes no meaning: a quaternion and its negative are one rotation, an episode that is
there twice is there once, spaces are not words, counts are counted, and of a video with one frame a
step each step has the frame of its number. Everything else that `validate` finds needs a person: a
clipped action or a NaN has no right value to be guessed.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_tools.doctor.checks.catalogue import RULES, UNUSABLE
from data_tools.doctor.checks.collection import DUPLICATE_EPISODE, numbers_digest
from data_tools.doctor.checks.instructions import INSTRUCTION_SPACES, single_spaced
from data_tools.doctor.checks.pictures import frame_digest
from data_tools.doctor.checks.recording import FloatArray, Recording
from data_tools.doctor.checks.roles import Part, Quaternion, Roles
from data_tools.doctor.checks.rotations import (
    QUATERNION_FLIP,
    QUATERNION_HEMISPHERE,
    SAME_ROTATION,
    are_rotations,
    first_rotation,
    quaternion_values,
    sign_flips,
    usual_quaternion,
)
from data_tools.doctor.repairs.joined import losses, one_file
from data_tools.doctor.repairs.tree_edits import Mend, Signs, by_frame_number
from data_tools.doctor.repairs.tree_repair import TreeRepair, tree_repair
from data_tools.episode import Dataset
from data_tools.errors import describe, raise_faults
from data_tools.finding import Finding, Rule
from data_tools.formats.reading.hdf5_dataset import Hdf5Dataset
from data_tools.rewrite.convert import convert
from data_tools.rewrite.edited import Edit, EditedDataset, EditedEpisode
from data_tools.rewrite.frame_storage import DEFAULT_QUALITY
from data_tools.rewrite.provenance import provenance
from data_tools.rewrite.unfinished import Advance, Unfinished, silently
from data_tools.rules import FILE_RULES, SLOW_CHUNKS, WRONG_CLOCK
from data_tools.storage.files.disk import existing_faults


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
    layout: str | None = None,
    allow_external_links: bool = False,
    advance: Advance = silently,
    tell: Callable[[str], None] = lambda note: None,
) -> list[Repair]:
    """What was repaired in the new file; without anything to repair no file is made.

    One HDF5 file is copied as it is: its layout, every dataset and attribute, every bit of numbers
    and frames, but for what a repair names; its sidecar comes along. Several files of `data/demo_N`
    are merged first. Where that cannot be (a LeRobot folder, an episode a file, episodes read with
    files beside them), the new file is in our own layout, by `convert`: JPEG frames keep their
    bytes there, and `tell` says what else changes or is left out. Episodes keep their order.

    Args:
        dataset: what to repair; it stays as it is.
        target: the file to make.
        findings: of `validate` on this dataset.
        sources: what the dataset was opened from.
        layout: the name of the layout that it was opened as, if one was given.
        allow_external_links: whether it was opened so.
        advance: called with the episodes done and the episodes there are.
        tell: called with a sentence for all that is not repaired, changes besides, or is left out.

    Raises:
        UserError: the target exists, or a sidecar that would speak for it; the dataset has faults
            that no file may hold; or a copy of it would not be read as it is.
    """
    raise_faults(
        describe(finding.place, finding.value, "an episode that can be written", finding.remedy)
        for finding in findings
        if finding.rule in UNUSABLE and not RULES[finding.rule].repair
    )
    dataset = by_frame_number(dataset, findings)
    header = _header_repairs(findings)
    rules = {finding.rule for finding in findings}
    plan = [_planned(episode, rules) for episode in _judged(dataset)]
    if not header and not any(each.repairs for each in plan):
        return []
    raise_faults(existing_faults(target))
    writing = _Writing(dataset, target, sources, advance, tell)
    if not isinstance(dataset, Hdf5Dataset):
        return writing.converted(header, plan, "it is no HDF5 file as it is")
    if allow_external_links:
        return writing.converted(header, plan, "parts of the episodes may lie in other files")
    with one_file(dataset, target, sources, layout or "") as one:
        if one.path is None:
            return writing.converted(header, plan, one.note)
        tree = tree_repair(dataset, one.path, target, layout=layout or "", sources=sources)
        if isinstance(tree, str):
            return writing.converted(header, plan, tree)
        if one.note:
            tell(one.note)
        tree.add_rules(findings, dataset)
        return writing.copied(header, plan, tree)


@dataclass(frozen=True)
class _Judged:
    """An episode with the signs its quaternions should have; `twin` is the one it is again."""

    recording: Recording
    twin: str
    usual: dict[Quaternion, FloatArray]


@dataclass(frozen=True)
class _Plan:
    """What to repair in one episode: each mend with what is told of it."""

    mends: tuple[tuple[Mend, tuple[Repair, ...]], ...] = ()
    twin: Repair | None = None

    @property
    def repairs(self) -> list[Repair]:
        """All that is told."""
        told = [each for _, repairs in self.mends for each in repairs]
        return [self.twin] if self.twin else told

    @property
    def edit(self) -> Edit:
        """The same as an edit of what is read."""
        signs: dict[Part, list[tuple[Quaternion, Signs]]] = {"state": [], "action": []}
        for mend, _ in self.mends:
            if mend.turn is not None:
                signs[mend.turn[0].part].append(mend.turn)
        return Edit(
            instruction=next((m.instruction for m, _ in self.mends if m.instruction), None),
            state=partial(_turn, signs=signs["state"]) if signs["state"] else None,
            changes=(partial(_turn_actions, signs=signs["action"]),) if signs["action"] else (),
        )


@dataclass(frozen=True)
class _Writing:
    """A repaired file, made in one of two ways."""

    dataset: Dataset
    target: Path
    sources: Sequence[str | Path]
    advance: Advance
    tell: Callable[[str], None]

    def copied(
        self,
        header: list[Repair],
        plan: list[_Plan],
        tree: TreeRepair,
    ) -> list[Repair]:
        """What was repaired in a copy of the file; what could not be there is told."""
        repairs = [told for each in header if (told := self._in_chunks(each, tree)) is not None]
        expected: dict[str, EditedEpisode] = {}
        for index, each in enumerate(plan):
            episode = self.dataset[index]
            if each.twin is not None:
                tree.removed.add(episode.name)
                repairs.append(each.twin)
                continue
            refusals = [tree.add(episode, mend) for mend, _ in each.mends]
            for refusal in filter(None, refusals):
                self.tell(refusal)
            pairs = zip(each.mends, refusals, strict=True)
            possible = _Plan(tuple(mend for mend, refusal in pairs if not refusal))
            repairs += possible.repairs
            expected[episode.name] = EditedEpisode(episode, possible.edit, self.dataset.conventions)
        if repairs:
            files = self.dataset.inspected.files
            settings = {"repairs": [str(each) for each in repairs]}
            made = provenance("validate --fix", list(self.sources) or files, settings)
            with Unfinished(self.target, made) as work:
                tree.make(work, made, expected.get, self.advance)
        return repairs

    def converted(self, header: list[Repair], plan: list[_Plan], reason: str) -> list[Repair]:
        """What was repaired in a file of our own layout; what else is different is told."""
        notes = [f"{self.target} is in our own layout, for {reason}", *losses(self.dataset)]
        for note in notes:
            self.tell(note)
        repairs = [*header, *(repair for each in plan for repair in each.repairs)]
        edits = [(index, each.edit) for index, each in enumerate(plan) if each.twin is None]
        convert(
            EditedDataset(self.dataset, edits, self.dataset.conventions),
            self.target,
            "native",
            sources=self.sources,
            command="validate --fix",
            settings={"repairs": [str(each) for each in repairs], "notes": notes},
            advance=self.advance,
        )
        return repairs

    def _in_chunks(self, repair: Repair, tree: TreeRepair) -> Repair | None:
        """The repair, as it is done in a copy: of frames, whether it keeps every bit."""
        if repair.rule != SLOW_CHUNKS.name:
            return repair
        if repair.where not in tree.rewritten:
            self.tell(
                f"{repair.where}: keeps its chunks, for its rows are no frames we can rewrite"
            )
            return None
        change = (
            f"one frame a chunk, JPEG of quality {DEFAULT_QUALITY}, which changes pixels a little"
            if tree.rewritten[repair.where]
            else "one frame a chunk, with every bit as it was"
        )
        return Repair(repair.rule, repair.where, f"{change}; so in every episode")


def _header_repairs(findings: Sequence[Finding]) -> list[Repair]:
    repaired = {rule.name: rule for rule in (*FILE_RULES, WRONG_CLOCK) if rule.repair}
    return [
        Repair(finding.rule, finding.where, repaired[finding.rule].repair)
        for finding in findings
        if finding.rule in repaired
    ]


def _judged(dataset: Dataset) -> Iterator[_Judged]:
    seen: dict[tuple[object, ...], str] = {}
    usual = _usual_quaternions(dataset)
    for index in range(len(dataset)):
        recording = Recording.of(dataset[index])
        key = _identity(recording, dataset.conventions.camera_names)
        twin = seen.setdefault(key, recording.name)
        yield _Judged(recording, "" if twin == recording.name else twin, usual)


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
            values.append(first_rotation(recording, quaternion))
    return {quaternion: usual_quaternion(np.array(values)) for quaternion, values in starts.items()}


def _planned(judged: _Judged, rules: Collection[str]) -> _Plan:
    """What to repair by these rules, and by no others: what is ignored is meant."""
    recording, name = judged.recording, judged.recording.name
    if judged.twin and DUPLICATE_EPISODE.name in rules:
        twin = Repair(DUPLICATE_EPISODE.name, name, f"left out; it is {judged.twin} again")
        return _Plan(twin=twin)
    mends: list[tuple[Mend, tuple[Repair, ...]]] = []
    for quaternion, first in judged.usual.items():
        values = quaternion_values(recording, quaternion)
        signs, changes = _signs(values, first, rules)
        told = tuple(
            Repair(rule.name, name, f"{quaternion.part} {quaternion.name}: {change}")
            for rule, change in changes
        )
        if told:
            mends.append((Mend(turn=(quaternion, signs)), told))
    said = recording.episode.instruction
    text = single_spaced(said)
    if text != said and INSTRUCTION_SPACES.name in rules:
        spaced = Repair(INSTRUCTION_SPACES.name, name, f"now {text!r}")
        mends.append((Mend(instruction=text), (spaced,)))
    return _Plan(tuple(mends))


def _signs(
    values: FloatArray, usual: FloatArray, rules: Collection[str]
) -> tuple[Signs, list[tuple[Rule, str]]]:
    """float64[t] of +-1 that bring the quaternions into one hemisphere, and what that changes."""
    changes: list[tuple[Rule, str]] = []
    flips = sign_flips(values) if QUATERNION_FLIP.name in rules else ()
    sign = np.ones(len(values))
    for step in flips:
        sign[step:] *= -1
    if len(flips):
        changes.append((QUATERNION_FLIP, f"signs of {len(flips)} jumps made one"))
    is_opposite = are_rotations(values) and values[0] @ usual < -SAME_ROTATION
    if QUATERNION_HEMISPHERE.name in rules and is_opposite:
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
