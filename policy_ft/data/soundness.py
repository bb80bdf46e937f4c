"""Whether data is fit to train on: the doctor's errors, which `train` and `check` refuse alike."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import cached_property, partial
from typing import Final, NamedTuple

import numpy as np

from data_tools.columns import WEIGHT, column_faults, fingerprint, fingerprint_with
from data_tools.doctor.checks.catalogue import UNUSABLE
from data_tools.doctor.checks.leakage import RULES as SPLIT_RULES
from data_tools.doctor.diagnosis import DataDiagnosis, diagnose
from data_tools.doctor.examination import examine, validate_split
from data_tools.episode import Dataset, holding_numbers
from data_tools.finding import Finding
from data_tools.formats.keep_files import KeptDataset
from policy_ft.config.data import DataConfig, SelectionConfig
from policy_ft.data.opening import collect_missing, open_data
from policy_ft.data.sources import Mixture, Source, fingerprints_by_source, sources_of
from policy_ft.data.split import DividedDataset
from policy_ft.errors import Faults, describe, raise_faults
from policy_ft.ranks import of_first_rank

_NONE: Final = np.zeros(0, np.int64)


class _SoundEpisodes(KeptDataset):
    """The episodes of which nothing is told; its fingerprint reads no other."""

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hex over these episodes alone."""
        own = (self[index] for index in range(len(self)))
        return fingerprint(self.conventions, own)


class Survey(NamedTuple):
    """What one pass over the numbers of a run's data found.

    Attributes:
        episodes: the sound ones, whose fingerprint is known; None where too little is left.
        faults: what is wrong with the others, with their division, or with a column.
    """

    episodes: Dataset | None
    faults: list[str]


def survey(
    config: DataConfig, seed: int, held: ExitStack, episodes: Dataset | None = None
) -> Survey:
    """The data of a run, recorded where it may be, opened, looked at and fingerprinted.

    Each number is read once.

    Of several processes, which must all call this, the first does so and tells the others.

    Args:
        config: the settings of the data.
        seed: of the run.
        held: until it is closed the numbers stay in memory, for statistics of them.
        episodes: looked at in place of what config names; nothing is left out of them.
    """

    def look() -> Survey:
        faults, found = Faults(), episodes
        if episodes is None:
            collect_missing(config)
            found = data_to_check(config, seed, faults, held)
        else:
            held.enter_context(holding_numbers(episodes))
            faults.of(partial(require_sound_data, config, episodes))
        if found is not None and not faults.listed:
            fingerprints_by_source(found, config.columns)
            fingerprint_with(found, config.columns)
        return Survey(found, faults.listed)

    return of_first_rank(look)


def require_sound_data(config: DataConfig, episodes: Dataset) -> None:
    """UserError for every error of the checks of `robot-data validate`, and for a shared split.

    Reads every number, and the first, middle and last image of each camera and episode. Rules that
    a source's `ignore` names are left out.

    Args:
        config: the settings of the data.
        episodes: as `open_data` returns them.
    """
    sources = sources_of(episodes)
    faults = [fault for each in sources for fault in _hopeless(config, each)]
    faults += [fault for each in sources for fault in told(each.where, _errors(config, each))]
    raise_faults(faults)
    raise_faults(_column_faults(config, sources))
    raise_faults(_shared(config, sources))


def data_to_check(
    config: DataConfig, seed: int, faults: Faults, held: ExitStack | None = None
) -> Dataset | None:
    """The data without the episodes of which something is told; what is told is added to faults.

    So no fault of an episode is met again by those who go on with the others. Of data that does not
    open as a whole, what opens is looked at.

    Args:
        config: the settings of the data.
        seed: of the run.
        faults: takes what is wrong.
        held: until it is closed the numbers stay in memory.

    Returns:
        None where too little is left to go on with.
    """
    episodes = faults.of(lambda: open_data(config, seed))
    if episodes is None:
        return _what_opens(config, faults)
    if held is not None:
        held.enter_context(holding_numbers(episodes))
    sound = []
    for source in sources_of(episodes):
        faults.extend(_hopeless(config, source))
        errors = faults.of(partial(_errors, config, source)) or []
        faults.extend(told(source.where, errors))
        left = _without(source.episodes, {each.where for each in errors})
        if left is not None:
            sound.append(source.with_episodes(left))
    faults.extend(_column_faults(config, sound))
    faults.extend(_shared(config, sound))
    if len(sound) < len(sources_of(episodes)):
        return None
    if isinstance(episodes, Mixture):
        return Mixture(sound, episodes.statistics, episodes.policy_statistics_of)
    return sound[0].episodes


def told(where: str, errors: Iterable[Finding]) -> Iterator[str]:
    """Findings as faults of a run.

    Args:
        where: the setting that names the data.
        errors: what the doctor found there.
    """
    prefix = "" if where == "data.path" else f"{where}: "
    for each in errors:
        meant = f" If it is meant, add it to {_setting(where)}."
        meant = "" if each.rule in UNUSABLE else meant
        place = f"{prefix}[{each.rule}] {each.place}"
        yield describe(place, each.value, each.threshold, f"{each.remedy}{meant}")


def _setting(where: str) -> str:
    return "data.ignore" if where == "data.path" else f"{where}.ignore"


def _hopeless(config: DataConfig, source: Source) -> Iterator[str]:
    """A fault of rules that are ignored though nothing can be trained on what they find."""
    hopeless = sorted(UNUSABLE & {*_selection(config, source.name).ignore})
    if hopeless:
        expected = "rules whose errors may be meant"
        remedy = "Remove it: nothing can be trained on such data. Mend it, as validate says."
        yield describe(_setting(source.where), f"{hopeless}", expected, remedy)


def _errors(config: DataConfig, source: Source) -> list[Finding]:
    """What the doctor finds and nobody means; what cannot be meant is found all the same."""
    ignore = [each for each in _selection(config, source.name).ignore if each not in UNUSABLE]
    if isinstance(source.episodes, DividedDataset):
        # what the run's own division shares is told by itself, whatever the files say of splits
        ignore += [rule.name for rule in SPLIT_RULES]
    found = examine(source.episodes, ignore=ignore).findings
    return [each for each in found if each.severity == "error"]


def _selection(config: DataConfig, name: str) -> SelectionConfig:
    return config.mixture.get(name, config)


def _column_faults(config: DataConfig, sources: Iterable[Source]) -> list[str]:
    """Why the run cannot use the columns that it asks for; validation needs no weights."""
    faults: list[str] = []
    for source in sources:
        episodes, names = source.episodes, set(config.columns)
        if isinstance(episodes, DividedDataset):
            faults += column_faults(episodes.validation, sorted(names - {WEIGHT}))
            episodes = episodes.training
        found = column_faults(episodes, sorted(names))
        # as they are they are told once where several episodes share them
        faults += [f"{source.where}, {each}" for each in found] if source.name else found
    return faults


def _shared(config: DataConfig, sources: Iterable[Source]) -> list[str]:
    """What chosen validation episodes share with those to train on.

    A random split keeps apart what data.split_groups names, and needs no look.
    """
    faults: list[str] = []
    for source in sources:
        if isinstance(source.episodes, DividedDataset):
            ignore = _selection(config, source.name).ignore
            shared = validate_split(source.episodes.training, source.episodes.validation)
            faults += told(source.where, (each for each in shared if each.rule not in ignore))
    return faults


def _without(episodes: Dataset, names: set[str]) -> Dataset | None:
    """The other episodes; None where too few of these are left to be divided."""
    if isinstance(episodes, DividedDataset):
        parts = [_without(part, names) for part in (episodes.training, episodes.validation)]
        training, validation = parts
        if training is None or validation is None:
            return None
        return DividedDataset(training, validation)
    listed = [episodes[index] for index in range(len(episodes))]
    starts = [_NONE if each.name in names else each.starts() for each in listed]
    left = sum(len(each) > 0 for each in starts)
    if left == len(listed):
        return episodes
    return _SoundEpisodes(episodes, starts) if left > 1 else None


def _diagnosed(config: SelectionConfig, mask: str | None) -> DataDiagnosis:
    return diagnose(
        list(config.path),
        mask=mask,
        layout=config.layout,
        allow_external_links=config.allow_external_links,
        tolerance_s=config.tolerance_s,
        ignore=config.ignore,
    )


def _what_opens(config: DataConfig, faults: Faults) -> Dataset | None:
    """Examines what opens of sources of which something does not, or which do not fit together.

    Keep-files are for the whole data, so nothing is known of what they leave out; such a source is
    not looked at.

    Returns:
        The sound episodes, where there is one source, of one kind, and a random division of it.
    """
    opened: list[Dataset] = []
    sources: Mapping[str, SelectionConfig] = config.mixture or {"": config}
    for name, source in sources.items():
        masks = [source.mask, source.validation_mask] if source.names_validation else [source.mask]
        for mask in masks if source.keep is None and source.validation_keep is None else ():
            found = faults.of(partial(_diagnosed, source, mask))
            if found is None:
                continue
            where = f"data.mixture.{name}" if name else "data.path"
            errors = [each for each in found.findings if each.severity == "error"]
            # what does not open is told already, as opening tells it
            faults.extend(told(where, (each for each in errors if each not in found.unopened)))
            names = {each.where for each in errors}
            left = (_without(each, names) for each in found.datasets)
            opened += [each for each in left if each is not None]
    is_one = len(opened) == 1 and not config.mixture and not config.names_validation
    return opened[0] if is_one else None
