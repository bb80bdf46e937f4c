"""validate: what a person should know about a dataset before training on it.

The thresholds stand beside their checks, as constants of `data_tools.doctor.checks`. They are wide
on purpose: a finding should be worth reading, and a warning may be meant.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np

from data_tools.doctor.checks import (
    alignment,
    boundaries,
    chatter,
    collection,
    copies,
    episode_columns,
    grippers,
    instructions,
    leakage,
    looks,
    needs,
    numbers,
    optics,
    pictures,
    rotations,
    saturation,
    siblings,
    simulated,
    spreads,
    statistics_files,
    tasks,
    timing,
)
from data_tools.doctor.checks.catalogue import RULES
from data_tools.doctor.checks.recording import (
    UNREADABLE_NUMBERS,
    Declared,
    Extent,
    FloatArray,
    Labels,
    Recording,
    read,
)
from data_tools.doctor.checks.roles import Part
from data_tools.doctor.report import Ledger, LedgerLine
from data_tools.episode import Dataset, Episode, frame_doubts
from data_tools.errors import UserError, describe, nearest
from data_tools.finding import DATASET, EVERY_RULE, Finding, NotChecked, Told, not_checked
from data_tools.rules import as_findings

# Relations between columns are as clear on this many steps as on all: 80 minutes at 40 Hz.
MAX_SAMPLED_STEPS: Final = 200_000
# What looks at an episode's numbers only where all of them are finite.
NEED_FINITE: Final = (
    *(*numbers.MOTION_RULES, *rotations.RULES, *spreads.RULES, *grippers.RULES, *copies.RULES),
    *(*alignment.RULES, *saturation.RULES, *simulated.RULES, *siblings.RULES, *chatter.RULES),
    *(*boundaries.RULES, *tasks.RULES, collection.IDLE_EPISODE, collection.NO_OPS),
)
# What is judged of all episodes together by a sample of them.
FROM_SAMPLE: Final = (
    *(spreads.CLIPPED_ACTION, spreads.CLIPPED_STATE, spreads.NARROW_QUANTILES),
    *(*copies.RULES, grippers.GRIPPER_POLARITY, grippers.GRIPPER_VALUES),
    *(*alignment.RULES, *simulated.RULES),
)


class Diagnosis(NamedTuple):
    """What was found, and what was not looked at.

    Attributes:
        findings: everything suspicious; empty for a clean dataset.
        ledger: the checks that were not made, where and why.
        instructions: the different sentences of the episodes that can be read.
    """

    findings: list[Finding]
    ledger: tuple[LedgerLine, ...]
    instructions: frozenset[str]


def validate(
    dataset: Dataset,
    *,
    deep: bool = False,
    ignore: Collection[str] = (),
    progress: Callable[[int], None] | None = None,
) -> list[Finding]:
    """The findings of `examine`, which has the arguments and errors of this."""
    return examine(dataset, deep=deep, ignore=ignore, progress=progress).findings


def examine(
    dataset: Dataset,
    *,
    deep: bool = False,
    ignore: Collection[str] = (),
    progress: Callable[[int], None] | None = None,
) -> Diagnosis:
    """Everything suspicious in numbers, sentences and images, and what could not be looked at.

    Reads every number once, and of the images the first, middle and last of each camera and
    episode. What makes a file unreadable is told by `open_dataset` before this can be asked
    (`data_tools.doctor.diagnosis.diagnose` goes on past it); what its reader warns of comes first
    here.

    Args:
        dataset: the episodes to look at.
        deep: whether to decode every image.
        ignore: names of rules whose findings are meant; those are left out.
        progress: called with the number of episodes looked at so far.

    Raises:
        UserError: a name in `ignore` is no rule.
    """
    require_rules(ignore)
    examination = _Examination(dataset, deep=deep, ledger=Ledger(ignore))
    for index in range(len(dataset)):
        examination.look_at(index)
        if progress is not None:
            progress(index + 1)
    examination.tell(examination.together())
    findings = [*dataset.inspected.warnings, *examination.findings]
    kept = [finding for finding in findings if finding.rule not in ignore]
    return Diagnosis(kept, examination.ledger.lines(), examination.instructions())


def validate_split(training: Dataset, validation: Dataset) -> list[Finding]:
    """What validation shares with training: episodes, or children of the same demonstration."""
    return list(leakage.check_leakage(training, validation))


def require_rules(names: Collection[str]) -> None:
    """UserError for every name that is no rule."""
    faults = []
    for name in names:
        if name not in RULES:
            hint = nearest(name, RULES)
            remedy = f"Correct the name{f'; {hint}' if hint else '.'}"
            faults.append(describe("ignore", f"the rule {name!r}", "a rule of validate", remedy))
    if faults:
        raise UserError(faults)


class _Examination:
    """Looks at one episode after the other, and keeps of each what is needed of all together."""

    def __init__(self, dataset: Dataset, *, deep: bool, ledger: Ledger) -> None:
        self.findings: list[Finding] = []
        self.ledger = ledger
        self._dataset, self._deep = dataset, deep
        self._declared = Declared.of(dataset.conventions)
        self._sampled = _evenly(dataset)
        self._sample: list[Recording] = []
        self._labels: list[Labels] = []
        self._splits: dict[str, list[Episode]] = {}
        self._digests: dict[str, bytes] = {}
        self._finite: list[str] = []
        self._extents: dict[Part, list[Extent]] = {"state": [], "action": []}
        self._idle: dict[str, tuple[int, int]] = {}
        self._grippers: list[grippers.Response] = []
        self._starts: list[tuple[str, list[FloatArray]]] = []
        self._thumbnails: dict[str, dict[str, pictures.Frame]] = {}
        self._colors: dict[str, list[looks.FloatArray]] = {}
        self._pictures: list[tuple[str, bytes, tuple[bytes, ...]]] = []
        self._outlooks = optics.Outlooks(len(dataset))
        self._before: boundaries.Ending | None = None
        self._siblings = siblings.Siblings(self._declared)

    def tell(self, told: Iterable[Told]) -> None:
        """Take down what a check told: a finding, or why it was not made."""
        try:
            for each in told:
                if isinstance(each, NotChecked):
                    self.ledger.note(each)
                else:
                    self.findings.append(each)
        except UserError as error:  # what only this check reads, of a file that opened
            self.findings += as_findings(error.faults, UNREADABLE_NUMBERS)

    def look_at(self, index: int) -> None:
        """Everything that one episode shows."""
        episode = self._dataset[index]
        before, self._before = self._before, None
        recording = read(episode, self.findings.append)
        if recording is None:
            why = "its numbers cannot be read"
            self.ledger.note(NotChecked((EVERY_RULE,), episode.name, why))
            return
        labels = recording.labels
        self._labels.append(labels)
        if leakage.SPLIT_ATTRIBUTE in labels.attributes:
            split = str(labels.attributes[leakage.SPLIT_ATTRIBUTE])
            self._splits.setdefault(split, []).append(episode)
        faults = [*numbers.check_lengths(recording)]
        self.findings += faults
        if faults:
            return
        self.tell(episode_columns.check_columns(episode))
        is_finite = self._look_at_numbers(index, recording)
        seen = self._look_at_pictures(recording)
        if is_finite:
            if before is not None:
                self.tell(boundaries.check_beginning(before, recording, self._declared, seen))
            self._before = boundaries.Ending.of(recording, seen)

    def _look_at_numbers(self, index: int, recording: Recording) -> bool:
        """Whether all of them are finite, so that they could be looked at."""
        declared, tell = self._declared, self.tell
        self._digests[recording.name] = collection.numbers_digest(recording)
        faults = [*numbers.check_finite(recording, declared)]
        tell(faults)
        tell(numbers.check_action_range(recording, declared))
        tell(timing.check_duration(recording, declared))
        tell(timing.check_times(recording, declared))
        tell(timing.check_frame_clock(recording))
        if faults:
            tell([not_checked(recording.name, "its numbers are not finite", *NEED_FINITE)])
            return False
        tell(numbers.check_motion(recording, declared))
        tell(rotations.check_quaternions(recording, declared))
        self._finite.append(recording.name)
        self._extents["state"].append(Extent.of(recording.state))
        self._extents["action"].append(Extent.of(recording.actions))
        idle = collection.idle_steps(recording, declared)
        if idle is not None:
            self._idle[recording.name] = (idle, recording.num_steps)
        self._grippers += grippers.responses(declared, recording)
        tell(chatter.check_chatter(recording, declared))
        self._siblings.look_at(recording, self._digests[recording.name])
        quaternions = declared.roles.quaternions
        starts = [rotations.first_rotation(recording, each) for each in quaternions]
        self._starts.append((recording.name, starts))
        if index in self._sampled:
            self._sample.append(recording)
        return True

    def _look_at_pictures(self, recording: Recording) -> list[pictures.Pictures]:
        doubts = frame_doubts(recording.episode)
        if doubts:  # told already: there is no frame to look at
            why = "nobody can say which frames of its videos belong to which steps"
            self.tell(
                [not_checked(recording.name, why, *pictures.RULES, *looks.RULES, *optics.RULES)]
            )
        seen = [
            pictures.look(recording, camera, deep=self._deep, report=self.findings.append)
            for camera in self._declared.conventions.camera_names
            if camera not in doubts
        ]
        self.tell(pictures.check_pictures(recording, self._declared, seen))
        self._outlooks.add(recording, seen)
        ends: list[bytes] = []
        for shown in seen:
            if shown.first is None:
                continue
            small = looks.thumbnail(shown.first)
            self._thumbnails.setdefault(shown.camera, {})[recording.name] = small
            self._colors.setdefault(shown.camera, []).append(looks.chroma(shown.first))
            ends += shown.ends
        self._pictures.append((recording.name, self._digests[recording.name], tuple(ends)))
        return seen

    def instructions(self) -> frozenset[str]:
        """The different sentences of the episodes looked at."""
        return frozenset(each.instruction for each in self._labels)

    def together(self) -> Iterator[Told]:
        """Everything that only all episodes together show."""
        yield from collection.check_declared(self._declared, self._dataset.inspected.undeclared)
        yield from needs.undeclared_needs(self._declared)
        seen = max((len(each) for each in self._thumbnails.values()), default=0)
        yield from needs.unrecorded_needs(self._labels, seen)
        yield from self._labels_together()
        yield from collection.check_duplicates(self._digests)
        yield from collection.check_idleness(self._idle)
        yield from leakage.check_declared_splits(self._splits)
        yield from self._siblings.check()
        yield from self._numbers_together()
        exchanged = [*looks.check_exchanged(self._thumbnails)]
        yield from exchanged
        told = {finding.where for finding in exchanged}
        for camera, thumbnails in self._thumbnails.items():
            others = {name: each for name, each in thumbnails.items() if name not in told}
            yield from looks.check_odd_episodes(camera, others)
        means = {camera: np.mean(each, axis=0) for camera, each in self._colors.items()}
        yield from looks.check_cameras(means)
        yield from looks.check_same_pictures(self._pictures)
        yield from self._outlooks.check()

    def _labels_together(self) -> Iterator[Told]:
        with_text: dict[str, list[Labels]] = {}
        for episode in self._labels:
            with_text.setdefault(episode.instruction, []).append(episode)
        yield from instructions.check_instructions(
            {text: [episode.name for episode in listed] for text, listed in with_text.items()}
        )
        yield from collection.check_lengths_together(
            {
                text: [(episode.name, episode.num_steps) for episode in listed]
                for text, listed in with_text.items()
            }
        )
        successes = {episode.name: episode.is_success for episode in self._labels}
        yield from collection.check_successes(successes)
        key = collection.LAST_REWARD
        judged = [each for each in self._labels if each.is_success and key in each.attributes]
        yield from collection.check_rewards({e.name: e.attributes[key] for e in judged})

    def _numbers_together(self) -> Iterator[Told]:
        declared, sample = self._declared, self._sample
        if len(self._sampled) < len(self._dataset):
            why = f"{MAX_SAMPLED_STEPS:,} steps of evenly spread episodes stand for all"
            yield not_checked(DATASET, why, *FROM_SAMPLE)
        yield from spreads.check_spreads(declared, self._finite, self._extents)
        yield from rotations.check_hemispheres(declared, self._starts)
        yield from statistics_files.check_statistics(
            self._dataset.inspected.files,
            self._extents,
            is_whole=len(self._finite) == len(self._dataset),
        )
        if sample:
            yield from spreads.check_clipping(declared, sample)
            yield from spreads.check_quantiles(declared, sample)
            yield from copies.check_copies(declared, sample)
            yield from grippers.check_grippers(declared, sample, self._grippers)
            yield from alignment.check_alignment(declared, sample)
            yield from saturation.check_saturation(declared, sample, alignment.latest(declared))
            yield from simulated.check_simulator_states(sample)
            yield from tasks.check_sentences(sample)


def _evenly(dataset: Dataset) -> frozenset[int]:
    """Indices of episodes, evenly spread, that have MAX_SAMPLED_STEPS together or are all."""
    lengths = [dataset[index].num_steps for index in range(len(dataset))]
    share = max(1, int(np.ceil(sum(lengths) / MAX_SAMPLED_STEPS)))
    return frozenset(range(0, len(lengths), share))
