"""The datasets of a run: one, or a mixture whose episodes follow one declaration."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Self

import numpy as np

from data_tools.columns import WEIGHT, columns_of_all, fingerprint_with
from data_tools.conventions import Conventions
from data_tools.episode import Dataset, Episode, Inspected, holding_numbers, task_of
from data_tools.formats.keep_files import KeptDataset
from data_tools.formats.mapping.mapped import MappedDataset
from data_tools.formats.mapping.mapping import ConventionsMapping, mapping_faults
from policy_ft.config.data import DataConfig
from policy_ft.data.fitting import fit_statistics
from policy_ft.data.noise import Purpose, generator
from policy_ft.data.split import DividedDataset, split_episodes
from policy_ft.data.windows import MixedWindows, WindowDataset
from policy_ft.errors import UserError, raise_faults
from policy_ft.transforms import Transforms


@dataclass(frozen=True)
class Source:
    """One dataset of a run.

    Attributes:
        name: in the mixture; '' for the one dataset of a run without.
        episodes: as recorded, or after `mapped_to` as the target declares them.
        mapping: how the recorded episodes become the target's.
        share: of the run's samples.
    """

    name: str
    episodes: Dataset
    mapping: ConventionsMapping
    share: float = 1.0

    @property
    def where(self) -> str:
        """The setting that names the dataset, for messages."""
        return f"data.mixture.{self.name}" if self.name else "data.path"

    @property
    def absent(self) -> tuple[str, ...]:
        """Cameras that the dataset lacks and says so."""
        return self.mapping.absent

    def with_episodes(self, episodes: Dataset) -> Self:
        """The same source with other episodes."""
        return replace(self, episodes=episodes)

    def split(self, config: DataConfig, seed: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Indices of the training and of the validation episodes; see `split_episodes`."""
        fraction, groups = config.validation_fraction, config.split_groups
        return split_episodes(self.episodes, fraction, seed, self.where, groups)

    def windows(
        self, indices: Sequence[int], transforms: Transforms, columns: Sequence[str] = ()
    ) -> WindowDataset:
        """The windows of some episodes; the slots of cameras that are not there are masked.

        Args:
            indices: of the episodes.
            transforms: encode each window.
            columns: that the windows bring along.

        Raises:
            UserError: no step is left to start at; names the source.
        """
        try:
            return WindowDataset(self.episodes, indices, transforms, self.absent, columns)
        except UserError as error:
            prefix = f"{self.where}, " if self.name else ""
            raise UserError([f"{prefix}{fault}" for fault in error.faults]) from None

    def mapped_to(self, target: Conventions, expected_name: str) -> Self:
        """The source as the target declares it.

        Raises:
            UserError: the mapping names what is not there, or a difference is left.
        """
        try:
            episodes = self._mapped(self.episodes, target)
        except UserError as error:
            raise UserError([f"{self.where}.{fault}" for fault in error.faults]) from None
        raise_faults(
            mapping_faults(
                episodes.conventions,
                target,
                self.absent,
                found_name=self.where,
                expected_name=expected_name,
            )
        )
        return self.with_episodes(episodes)

    def _mapped(self, episodes: Dataset, target: Conventions) -> Dataset:
        if isinstance(episodes, DividedDataset):
            return episodes.with_parts(lambda part: self._mapped(part, target))
        return MappedDataset(episodes, target, self.mapping)


class Mixture:
    """Several sources as one `Dataset`: their episodes one source after the other.

    Attributes:
        sources: in order; the first one's declaration is the target where no policy has one.
        statistics: 'own' when each source is normalized by its own statistics, 'shared' when by
            those of all, None when a checkpoint brings them.
        policy_statistics_of: with 'own', the source whose statistics the policy keeps.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        statistics: Literal["shared", "own"] | None,
        policy_statistics_of: str | None = None,
        target: Conventions | None = None,
    ) -> None:
        self.sources = tuple(sources)
        self.statistics = statistics
        self.policy_statistics_of = policy_statistics_of or sources[0].name
        self._target = target
        self._ends = np.cumsum([len(source.episodes) for source in sources])

    def mapped_to(self, target: Conventions, expected_name: str) -> "Mixture":
        """The same sources as the target declares them.

        Args:
            target: the declaration to follow.
            expected_name: how messages call it.

        Raises:
            UserError: mappings that do not lead there; of all sources at once.
        """
        faults: list[str] = []
        sources = []
        for source in self.sources:
            try:
                sources.append(source.mapped_to(target, expected_name))
            except UserError as error:
                faults += error.faults
        raise_faults(faults)
        return Mixture(sources, self.statistics, self.policy_statistics_of, target)

    def only(self, name: str) -> "Mixture":
        """The one source of this name, with the declaration of all."""
        chosen = [source for source in self.sources if source.name == name]
        return Mixture(chosen, self.statistics, name, self.conventions)

    @property
    def conventions(self) -> Conventions:
        """The target that all sources follow; the first source's before any mapping."""
        return self._target or self.sources[0].episodes.conventions

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that episodes of any source have."""
        return columns_of_all(source.episodes for source in self.sources)

    @property
    def inspected(self) -> Inspected:
        """What was learned about the files of all sources."""
        found = [source.episodes.inspected for source in self.sources]
        return Inspected(
            layouts=tuple(name for each in found for name in each.layouts),
            evidence=tuple(text for each in found for text in each.evidence),
            warnings=tuple(finding for each in found for finding in each.warnings),
            rules=tuple(text for each in found for text in each.rules),
            undeclared=tuple(text for each in found for text in each.undeclared),
            files=tuple(path for each in found for path in each.files),
        )

    def holding(self) -> AbstractContextManager[object]:
        """Within it numbers that were read stay in memory, all of them."""
        return holding_numbers(*(source.episodes for source in self.sources))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hex over the names and fingerprints of the sources, in their order."""
        digest = hashlib.sha256()
        for name, fingerprint in fingerprints_by_source(self).items():
            digest.update(f"{name} {fingerprint}\n".encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Episode:
        if not 0 <= index < len(self):
            raise IndexError(f"episode {index}; there are {len(self)}")
        place = int(np.searchsorted(self._ends, index, side="right"))
        episodes = self.sources[place].episodes
        return episodes[int(index - (self._ends[place] - len(episodes)))]


def sources_of(episodes: Dataset) -> tuple[Source, ...]:
    """The sources of a mixture; of any other dataset one without a name."""
    if isinstance(episodes, Mixture):
        return episodes.sources
    return (Source("", episodes, ConventionsMapping()),)


def fingerprints_by_source(episodes: Dataset, columns: Sequence[str] = ()) -> dict[str, str]:
    """Name -> fingerprint of each source of a mixture; empty for any other dataset.

    Args:
        episodes: of a run.
        columns: of the data that the fingerprints cover, too.
    """
    if not isinstance(episodes, Mixture):
        return {}
    return {source.name: fingerprint_with(source.episodes, columns) for source in episodes.sources}


def training_indices(episodes: Dataset, config: DataConfig, seed: int) -> tuple[int, ...]:
    """Indices of the training episodes of all sources in the whole dataset, ascending."""
    indices: list[int] = []
    first = 0
    for source in sources_of(episodes):
        kept, _ = source.split(config, seed)
        indices += [first + index for index in kept]
        first += len(source.episodes)
    return tuple(indices)


def statistics_basis(episodes: Dataset) -> Dataset:
    """The episodes whose training split gives the policy's statistics, where data gives them."""
    if isinstance(episodes, Mixture) and episodes.statistics == "own":
        return episodes.only(episodes.policy_statistics_of)
    return episodes


def training_and_validation(
    episodes: Dataset, transforms: Transforms, config: DataConfig, seed: int
) -> tuple[WindowDataset | MixedWindows, dict[str, WindowDataset]]:
    """The windows to train on, and by source those to validate on.

    Args:
        episodes: of one source or several, mapped to the policy's declaration.
        transforms: of the policy.
        config: says how each source is split, and which columns the windows bring along. Those to
            validate on come without weights: each counts as much as any other.
        seed: two seeds are two splits.
    """
    measured = [name for name in config.columns if name != WEIGHT]
    training, validation = [], {}
    for source in sources_of(episodes):
        kept, held_out = source.split(config, seed)
        own = _own_transforms(episodes, source, kept, transforms)
        training.append(source.windows(kept, own, config.columns))
        validation[source.name] = source.windows(held_out, own, measured)
    if len(training) == 1:
        return training[0], validation
    return MixedWindows(training, [s.share for s in sources_of(episodes)]), validation


def _own_transforms(
    episodes: Dataset, source: Source, kept: Sequence[int], transforms: Transforms
) -> Transforms:
    """The policy's transforms, with the source's own statistics where each has its own."""
    has_policy_statistics = (
        not isinstance(episodes, Mixture)
        or episodes.statistics != "own"
        or source.name == episodes.policy_statistics_of
    )
    if has_policy_statistics:
        return transforms
    own = fit_statistics(
        transforms.config,
        transforms.conventions,
        source.episodes,
        kept,
        transforms.shape.action_horizon,
    )
    return replace(transforms, statistics=own)


def limited(episodes: Dataset, max_episodes_per_task: int, seed: int) -> Dataset:
    """At most so many episodes of each task, chosen at random; all of them where there are fewer.

    Args:
        episodes: all demonstrations; `task_of` says which task each is of.
        max_episodes_per_task: at least 1.
        seed: two seeds choose differently.
    """
    by_task: dict[str, list[int]] = {}
    for index in range(len(episodes)):
        by_task.setdefault(task_of(episodes[index]), []).append(index)
    chosen = set(_chosen(list(by_task.values()), max_episodes_per_task, seed))
    none = np.zeros(0, np.int64)
    starts = [
        episodes[index].starts() if index in chosen else none for index in range(len(episodes))
    ]
    return KeptDataset(episodes, starts)


def _chosen(tasks: Sequence[Sequence[int]], most: int, seed: int) -> Iterator[int]:
    for number, indices in enumerate(tasks):
        order = generator(seed, Purpose.LIMIT, epoch=0, sample_id=number).permutation(len(indices))
        yield from (indices[place] for place in order[:most].tolist())
