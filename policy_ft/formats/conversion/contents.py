"""A checkpoint of any format, its tensors left on the disk: what converting reads."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_tools.conventions import Conventions
from policy_ft.checkpoints.matching import Names, match_tensors
from policy_ft.checkpoints.native import (
    UNUSED_HASH,
    WEIGHTS_HASH,
    read_parts,
    require_recorded,
    weight_files,
)
from policy_ft.checkpoints.tensor_files import TensorFiles
from policy_ft.checkpoints.weights import require_finite, weights_hash
from policy_ft.config.model import ModelConfig
from policy_ft.config.transforms import TransformsConfig
from policy_ft.formats.embodiments import Embodiment
from policy_ft.formats.load import (
    published_provenance,
    published_record,
    read_published,
    refuse_for_native,
)
from policy_ft.formats.locating import CheckpointFormat, Located
from policy_ft.formats.published import Published, settings_hash
from policy_ft.models.build import build_model
from policy_ft.models.vla import VLAModel
from policy_ft.policy import LoadReport, PublishedRecord
from policy_ft.transforms import Statistics


@dataclass(frozen=True)
class Contents:
    """A checkpoint in our words.

    Attributes:
        directory: where it is.
        config: the model's settings.
        transforms_config: the settings of its transforms.
        conventions: of the robot.
        statistics: None where a published checkpoint has none that can be used.
        tokenizer_json: None where a published checkpoint has none.
        absent: "statistics" or "tokenizer" -> what to tell who needs it although it is None.
        has_unfit_statistics: as in Published.
        provenance: what made the weights.
        source: the published checkpoint it is, or was made of; None for one of our own.
        tensors: the model's name -> tensor, as stored.
        unused: name, without LeRobot's root, -> tensor that the model does not use.
        weights_sha256: weights_hash of the tensors.
        report: what became of every stored tensor.
        model: the model on the meta device, without values.
        is_of_other_dtype: whether the tensors were made of those stored, in another type.
    """

    directory: Path
    config: ModelConfig
    transforms_config: TransformsConfig
    conventions: Conventions
    statistics: Statistics | None
    tokenizer_json: str | None
    absent: Mapping[str, str]
    has_unfit_statistics: bool
    provenance: Mapping[str, Any]
    source: PublishedRecord | None
    tensors: Mapping[str, Tensor]
    unused: Mapping[str, Tensor]
    weights_sha256: str
    report: LoadReport
    model: VLAModel
    is_of_other_dtype: bool = False

    @property
    def layout(self) -> CheckpointFormat:
        """The format whose documents it came with; openpi's are one for both kinds of weights."""
        if self.source is None:
            return "native"
        return "lerobot" if self.source.format == "lerobot" else "openpi"

    @property
    def is_as_published(self) -> bool:
        """Whether the documents it was read from still describe it."""
        return self.source is not None and self.source.settings_sha256 == settings_hash(
            self.config, self.transforms_config, self.conventions, self.statistics
        )


class LazyTensors(Mapping[str, Tensor]):
    """Tensors that are made when they are asked for, and kept by nobody here."""

    def __init__(self, makers: Mapping[str, Callable[[], Tensor]]) -> None:
        self._makers = makers

    def __getitem__(self, name: str) -> Tensor:
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


@contextmanager
def open_contents(
    located: Located, embodiment: Embodiment | None = None, tokenizer: str | Path | None = None
) -> Iterator[Contents]:
    """The contents of a checkpoint, whose tensors can be read until the block ends.

    Args:
        located: the checkpoint.
        embodiment: the robot a published checkpoint is used for.
        tokenizer: for a published checkpoint without.

    Raises:
        UserError: files are missing or damaged, or tensors are missing, unexpected, misshaped, not
            finite or, of a checkpoint of our own, others than it was written with.
    """
    with ExitStack() as stack:
        if located.format == "native":
            refuse_for_native(located, embodiment, tokenizer)
            yield _native(located.directory, stack)
        else:
            yield _published(read_published(located, embodiment, tokenizer), stack)


def main_dtype(contents: Contents) -> str:
    """The type of the large weights, as config.json says it: 'float32' or 'bfloat16'."""
    return str(contents.tensors["backbone.projector.weight"].dtype).removeprefix("torch.")


def _native(directory: Path, stack: ExitStack) -> Contents:
    parts = read_parts(directory)
    stored = stack.enter_context(TensorFiles(weight_files(directory)))
    model = without_values(parts.config)
    model.autocast_dtype = parts.autocast_dtype
    report = match_tensors(stored.headers, model, stored.where).report
    root = parts.source.prefix if parts.source is not None else ""
    beside = stack.enter_context(TensorFiles(sorted(set(parts.unused.values()))))
    tensors = {name: stored.tensor(name) for name in stored.headers}
    unused = {name: beside.tensor(name) for name in parts.unused}
    digest = _checked_hash(tensors, stored.where)
    require_recorded(directory, WEIGHTS_HASH, digest, parts.provenance)
    if unused and UNUSED_HASH in parts.provenance:
        require_recorded(directory, UNUSED_HASH, weights_hash(unused), parts.provenance)
    return Contents(
        directory=directory,
        config=parts.config,
        transforms_config=parts.transforms.config,
        conventions=parts.transforms.conventions,
        statistics=parts.transforms.statistics,
        tokenizer_json=parts.transforms.tokenizer_json,
        absent={},
        has_unfit_statistics=False,
        provenance=parts.provenance,
        source=parts.source,
        tensors=tensors,
        unused={name.removeprefix(root): tensor for name, tensor in unused.items()},
        weights_sha256=digest,
        report=report,
        model=model,
    )


def _published(published: Published, stack: ExitStack) -> Contents:
    stored = stack.enter_context(TensorFiles(published.files))
    names = published.names
    model = without_values(published.config)
    both_ways = Names(names.live_name, names.stored_name)
    report = match_tensors(stored.headers, model, stored.where, names=both_ways).report
    lives = {name: names.live_name(name) for name in stored.headers}
    tensors = {live: stored.tensor(name) for name, live in lives.items() if live is not None}
    return Contents(
        directory=published.directory,
        config=published.config,
        transforms_config=published.transforms_config,
        conventions=published.conventions,
        statistics=published.statistics,
        tokenizer_json=published.tokenizer_json,
        absent=published.absent,
        has_unfit_statistics=published.has_unfit_statistics,
        provenance=published_provenance(published),
        source=published_record(published),
        tensors=tensors,
        unused={
            name.removeprefix(names.root): stored.tensor(name)
            for name, live in lives.items()
            if live is None
        },
        weights_sha256=_checked_hash(tensors, stored.where),
        report=report,
        model=model,
    )


def _checked_hash(tensors: Mapping[str, Tensor], where: str) -> str:
    for name, tensor in tensors.items():
        require_finite(tensor, f"{where}, {name}")
    return weights_hash(tensors)


def without_values(config: ModelConfig) -> VLAModel:
    """The model on the meta device."""
    with torch.device("meta"):
        return build_model(config)
