"""The datasets that a run's settings name: recorded, opened, mapped to what the policy declares."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from data_tools.conventions import Conventions
from data_tools.episode import Dataset
from data_tools.formats.mapping.mapping import ConventionsMapping
from data_tools.formats.reader import open_dataset
from eval_envs.collect import collect
from policy_ft.config.data import CollectConfig, DataConfig, SelectionConfig, SourceConfig
from policy_ft.data.sources import Mixture, Source, limited
from policy_ft.data.split import DividedDataset
from policy_ft.errors import UserError, describe, raise_faults

_EPISODES_A_WORKER: Final = 50


def collect_missing(config: DataConfig) -> None:
    """Records the demonstrations of config.path where they are missing and may be recorded."""
    if config.collect != "off" and is_to_be_collected(config):
        _collect(Path(config.path[0]), config.collect)


def open_or_collect(config: DataConfig, seed: int = 0) -> Dataset:
    """What `open_data` opens, recorded first where it is missing and may be."""
    collect_missing(config)
    return open_data(config, seed)


def open_data(config: DataConfig, seed: int) -> Dataset:
    """The one dataset, or the mixture with every source as it was recorded.

    Args:
        config: names the paths.
        seed: of the run; chooses episodes where a task has more than it may.

    Raises:
        UserError: what `open_dataset` refuses, of all sources at once; or what is there is not what
            config.collect would record.
    """
    episodes = _open(config, seed)
    _require_as_collected(config, episodes)
    return episodes


def is_to_be_collected(config: DataConfig) -> bool:
    """Whether the demonstrations are to be recorded first."""
    return config.collect != "off" and not Path(config.path[0]).exists()


def _open(config: DataConfig, seed: int) -> Dataset:
    if not config.mixture:
        return _opened(config, "data")
    faults: list[str] = []
    sources = []
    for name, each in config.mixture.items():
        try:
            episodes = _open_source(each, seed, f"data.mixture.{name}")
        except UserError as error:
            faults += [f"data.mixture.{name}: {fault}" for fault in error.faults]
            continue
        sources.append(Source(name, episodes, each.mapping, config.shares[name]))
    raise_faults(faults)
    return Mixture(sources, config.mixture_statistics, config.policy_statistics_of)


def _require_as_collected(config: DataConfig, episodes: Dataset) -> None:
    """UserError when the file that is there is not what config.collect would record."""
    if config.collect == "off":
        return
    wanted = config.collect.task.split("+")
    found = {str(episodes[index].attributes.get("family", "")) for index in range(len(episodes))}
    strangers = sorted(found - {*wanted, ""})
    if strangers or len(episodes) != config.collect.num_episodes:
        raise UserError(
            describe(
                f"data {config.path[0]}",
                f"{len(episodes)} episodes of {'+'.join(sorted(found))}",
                f"{config.collect.num_episodes} of {config.collect.task}, as data.collect says",
                "Name a path that does not exist yet to record them, or set data.collect to off.",
            )
        )


def _collect(path: Path, config: CollectConfig) -> None:
    collect(
        path,
        task=config.task,
        num_episodes=config.num_episodes,
        seed=config.seed,
        noise=config.noise,
        env_id=config.env,
        env_args=config.env_args,
        workers=min(os.cpu_count() or 1, -(-config.num_episodes // _EPISODES_A_WORKER)),
    )


def _open_source(config: SourceConfig, seed: int, where: str) -> Dataset:
    episodes, most = _opened(config, where), config.max_episodes_per_task
    if most == "all":
        return episodes
    if isinstance(episodes, DividedDataset):
        return DividedDataset(limited(episodes.training, most, seed), episodes.validation)
    return limited(episodes, most, seed)


def _opened(config: SelectionConfig, where: str) -> Dataset:
    """The dataset, divided where the settings name the episodes to validate on."""

    def chosen(mask: str | None, keep: str | None) -> Dataset:
        own = None if keep is None else Path(keep)
        return open_dataset(
            list(config.path),
            mask=mask,
            keep=own,
            layout=config.layout,
            allow_external_links=config.allow_external_links,
            tolerance_s=config.tolerance_s,
        )

    training = chosen(config.mask, config.keep)
    if not config.names_validation:
        return training
    validation = chosen(config.validation_mask, config.validation_keep)
    raise_faults(_shared_episodes(training, validation, where))
    return DividedDataset(training, validation)


def _shared_episodes(training: Dataset, validation: Dataset, where: str) -> Iterator[str]:
    names = {training[index].name for index in range(len(training))}
    shared = [name for index in range(len(validation)) if (name := validation[index].name) in names]
    if shared:
        found = f"{len(shared)} of {len(validation)} are trained on, e.g. {shared[0]}"
        remedy = "Correct the masks or keep-files: validation would praise memory."
        yield describe(f"{where}, episodes to validate on", found, "none", remedy)


def in_one_convention(
    episodes: Dataset, of_policy: Conventions | None = None, *, sees: bool = True
) -> Dataset:
    """The sources of a mixture, mapped to one declaration; any other dataset as it is.

    Args:
        episodes: as `open_data` returns them.
        of_policy: what a policy declares whose statistics come from a checkpoint; None where they
            come from data: then all follow the first source, whose own mapping must be empty.
        sees: whether the policy sees images; if not, nobody needs the first source's cameras.

    Raises:
        UserError: mappings that do not lead there; of all sources at once.
    """
    if not isinstance(episodes, Mixture):
        return episodes
    if of_policy is not None:
        return episodes.mapped_to(of_policy, "the policy")
    first = episodes.sources[0]
    if first.mapping != ConventionsMapping():
        found = "a mapping (cameras, state or action) of the first dataset"
        expected = "none: with statistics from data all others follow it"
        remedy = "Remove it, or put another dataset first."
        raise UserError(describe(first.where, found, expected, remedy))
    target = first.episodes.conventions
    target = target if sees else target.model_copy(update={"cameras": ()})
    return episodes.mapped_to(target, first.where)
