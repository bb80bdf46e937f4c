"""A published checkpoint, read as far as its weights: everything but the tensors, in our words."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import torch
from pydantic import ValidationError

from data_tools.conventions import ActionSpec, CameraSpec, Conventions, StateSpec
from data_tools.stats import NormalizationStats
from policy_ft.checkpoints.tensor_files import TensorFiles, TensorStore
from policy_ft.config.model import ModelConfig
from policy_ft.config.transforms import TransformsConfig
from policy_ft.errors import UserError, describe, raise_faults, read_json, validation_faults
from policy_ft.formats.tensor_names import PublishedFamily, PublishedNames, published_names
from policy_ft.transforms import ModelShape, Statistics, Transforms
from policy_ft.transforms.tokenization import read_tokenizer

CONFIG_FILE: Final = "config.json"
TOKENIZERS: Final[Mapping[PublishedFamily, str]] = {
    "pi0": "google/paligemma-3b-pt-224",
    "pi05": "google/paligemma-3b-pt-224",
    "smolvla": "HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
}
"""Where on the hub the tokenizer of each family is."""

Format = Literal["openpi", "lerobot", "orbax"]
Fit = Callable[[TransformsConfig, ModelShape, str], Transforms]
"""Makes transforms from settings, the model's sizes and a tokenizer, e.g. on new data."""


@dataclass(frozen=True)
class Published:
    """What a published checkpoint says beside its weights.

    Attributes:
        directory: where it is.
        format: whose layout it has.
        files: that hold the weights.
        names: of the tensors.
        config: the model's settings.
        transforms_config: the settings of its transforms.
        conventions: of the robot; what the checkpoint does not say is declared unknown.
        statistics: of state and actions, None where there are none of one robot of this width.
        tokenizer_json: the tokenizer, None where there is none.
        absent: "statistics" or "tokenizer" -> what to tell who needs it although there is none, or
            although nobody says in which space the statistics are.
        has_unfit_statistics: whether there are some, and they are damaged or not of the robot that
            was named.
        documents: name of a file -> the JSON in it; small tensor files as lists of numbers.
        assumed: size that neither shapes nor config.json give -> what to say of it.
        notes: what else a person should know, e.g. settings without effect.
    """

    directory: Path
    format: Format
    files: tuple[Path | TensorStore, ...]
    names: PublishedNames
    config: ModelConfig
    transforms_config: TransformsConfig
    conventions: Conventions
    statistics: Statistics | None
    tokenizer_json: str | None
    absent: Mapping[str, str] = field(default_factory=dict)
    has_unfit_statistics: bool = False
    documents: Mapping[str, Any] = field(default_factory=dict)
    assumed: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def all_notes(self) -> tuple[str, ...]:
        """What a person should know: sizes taken from a rule, and the notes."""
        return (*self.assumed.values(), *self.notes)

    def transforms(self, fit: Fit | None = None) -> Transforms:
        """The checkpoint's transforms, or those that `fit` makes from its settings.

        Raises:
            UserError: statistics or tokenizer are needed and absent, or the parts do not fit.
        """
        shape = ModelShape.of(self.config)
        needed = ("tokenizer",) if fit is not None else ("statistics", "tokenizer")
        raise_faults(self.absent[part] for part in needed if part in self.absent)
        assert self.tokenizer_json is not None
        if fit is not None:
            return fitted(fit, self.transforms_config, shape, self.tokenizer_json)
        assert self.statistics is not None
        return Transforms(
            config=self.transforms_config,
            conventions=self.conventions,
            shape=shape,
            statistics=self.statistics,
            tokenizer_json=self.tokenizer_json,
        )


def fitted(
    fit: Fit, settings: TransformsConfig, shape: ModelShape, tokenizer_json: str
) -> Transforms:
    """What `fit` makes of a checkpoint's settings, its own or a published one's.

    On new data no column has to be blown up because the pretraining did so.
    """
    return fit(settings.model_copy(update={"still_columns": "hold"}), shape, tokenizer_json)


def settings_hash(
    config: ModelConfig,
    transforms_config: TransformsConfig,
    conventions: Conventions,
    statistics: Statistics | None,
) -> str:
    """SHA-256 in hex over all that decides what a policy does beside its weights."""
    digest = hashlib.sha256()
    for record in (config, transforms_config, conventions, statistics):
        digest.update(b"null" if record is None else record.model_dump_json().encode())
    return digest.hexdigest()


def unknown_robot(
    cameras: Sequence[tuple[str, int, int]], state_names: Sequence[str], action_names: Sequence[str]
) -> Conventions:
    """The declaration of a robot of which a checkpoint says no more than this.

    Args:
        cameras: (name, rows, columns) of each.
        state_names: of the state's columns.
        action_names: of the actions' columns.
    """
    infinite = (float("inf"),) * len(action_names)
    unknown = ("unknown",) * len(action_names)
    return Conventions(
        cameras=tuple(CameraSpec(name=n, height=h, width=w) for n, h, w in cameras),
        state=StateSpec(names=tuple(state_names), units=("unknown",) * len(state_names)),
        action=ActionSpec(
            names=tuple(action_names),
            units=unknown,
            references=("unknown",) * len(action_names),
            low=tuple(-limit for limit in infinite),
            high=infinite,
            rotation="unknown",
        ),
        control_hz=None,
    )


class FoundStatistics(NamedTuple):
    """The statistics of one robot, as far as a checkpoint has them.

    Attributes:
        statistics: None where there are none to be used.
        absent: what to tell who needs them, None where nothing is in the way.
        is_unfit: whether there are some, and they are damaged or not of the robot that was named.
        notes: what to tell everybody.
    """

    statistics: Statistics | None
    absent: str | None = None
    is_unfit: bool = False
    notes: tuple[str, ...] = ()


def damaged_statistics(faults: Sequence[str]) -> FoundStatistics:
    """Statistics that no data can have: an error for who needs them, a note for who does not."""
    more = f" (and {len(faults) - 1} more faults)" if len(faults) > 1 else ""
    note = f"the checkpoint's statistics are damaged: {faults[0]}{more}"
    return FoundStatistics(None, "\n".join(faults), is_unfit=True, notes=(note,))


def statistics_of_robot(
    stored: Statistics, conventions: Conventions, where: str, padded: Collection[int] = ()
) -> FoundStatistics:
    """The statistics of a robot's columns; or why those stored are not of this robot.

    Args:
        stored: as in the checkpoint.
        conventions: of the robot.
        where: how messages call the checkpoint.
        padded: widths of which the columns beyond the robot's are padding.
    """
    faults = []
    widths = {"state": len(conventions.state.names), "actions": len(conventions.action.names)}
    for part, width in widths.items():
        found = getattr(stored, part).dim
        if found != width and not (found in padded and found > width):
            expected = f"{width}, as the robot has"
            remedy = (
                "Name the embodiment they are of, or compute them from data (statistics: data)."
            )
            place = f"{where}, statistics of {part}"
            faults.append(describe(place, f"{found} columns", expected, remedy))
    if faults:
        return FoundStatistics(None, "\n".join(faults), is_unfit=True)
    parts = {part: getattr(stored, part).leading(width) for part, width in widths.items()}
    return FoundStatistics(stored.model_copy(update=parts))


def numbered(part: str, count: int) -> tuple[str, ...]:
    """Names of columns of which only the number is known: 'state_0', 'state_1', ..."""
    return tuple(f"{part}_{index}" for index in range(count))


def read_json_object(path: Path) -> dict[str, Any]:
    """The keys and values of a JSON file; UserError when it holds anything else."""
    document = read_json(path)
    if isinstance(document, dict):
        return document
    kinds = {list: "a list", str: "a text", type(None): "null"}
    found = kinds.get(type(document), repr(document))
    raise UserError(describe(str(path), found, "a JSON object", "Copy the file again."))


def checked_stats(
    columns: Mapping[str, Sequence[float] | None], place: str
) -> tuple[NormalizationStats | None, tuple[str, ...]]:
    """The statistics of one array, or what is wrong with them.

    Args:
        columns: name of a statistic -> its value of each column.
        place: how messages call them.
    """
    try:
        return NormalizationStats.model_validate(columns), ()
    except ValidationError as error:
        return None, tuple(validation_faults(error, NormalizationStats, lambda _: place))


def neutral_stats(width: int) -> NormalizationStats:
    """Statistics of columns that are passed on as they are."""
    return NormalizationStats(mean=(0.0,) * width, std=(1.0,) * width)


def read_names(
    files: Sequence[Path | TensorStore],
) -> tuple[PublishedNames, dict[str, tuple[int, ...]]]:
    """The names of the tensors in files, and the model's name of each -> its shape.

    Reads headers alone.

    Raises:
        UserError: a file is missing or damaged, or the tensors are of no known family.
    """
    with TensorFiles(files) as stored:
        names = published_names(stored.headers, stored.where)
        shapes = {name: header.shape for name, header in stored.headers.items()}
    return names, live_shapes(shapes, names)


def twin_notes(files: Sequence[Path | TensorStore], names: PublishedNames) -> tuple[str, ...]:
    """What to say of a tensor that the files hold under two names with different values."""
    if not names.twins:
        return ()
    with TensorFiles(files) as stored:
        one, two = (stored.tensor(name) for name in names.twins)
        if one.dtype == two.dtype and torch.equal(one, two):
            return ()
    return (f"{names.twins[0]} differs from {names.twins[1]}: the second was trained and is used",)


def unread_notes(directory: Path, read: Iterable[Path]) -> tuple[str, ...]:
    """A note for each tensor file of the directory that is no part of the checkpoint."""
    parts = {path.name for path in read}
    others = sorted(path.name for path in directory.glob("*.safetensors"))
    return tuple(
        f"{name}: not read, for it is none of the checkpoint's files"
        for name in others
        if name not in parts
    )


def live_shapes(
    shapes: Mapping[str, tuple[int, ...]], names: PublishedNames
) -> dict[str, tuple[int, ...]]:
    """The model's name -> shape, from the names and shapes in the files."""
    lives = {name: names.live_name(name) for name in shapes}
    return {live: shapes[name] for name, live in lives.items() if live is not None}


def tokenizer_beside(directory: Path, names: Sequence[str]) -> str | None:
    """The text of the first of these files that is there; UserError if it is no tokenizer."""
    for name in names:
        if (directory / name).is_file():
            return read_tokenizer(directory / name, "tokenizer")
    return None


def no_tokenizer(directory: Path, family: PublishedFamily) -> str:
    """What to tell who needs a tokenizer that the checkpoint does not hold."""
    published = TOKENIZERS[family]
    return describe(
        f"{directory}, tokenizer",
        "none in this checkpoint",
        f"the tokenizer.json of {published!r}",
        f"Give its path, or {published!r} where there is a network, as the tokenizer.",
    )
