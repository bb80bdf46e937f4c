"""The saved parts of a Transforms: sizes, settings, statistics, conventions and tokenizer."""

from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, Field, ValidationError

from data_tools.conventions import Conventions
from data_tools.stats import NormalizationStats
from policy_ft.config.base import NonNegativeInt, PositiveInt, Settings
from policy_ft.config.model import ModelConfig
from policy_ft.config.transforms import TransformsConfig
from policy_ft.errors import UserError, dotted, raise_faults, read_json, validation_faults
from policy_ft.transforms.tokenization import TOKENIZER_FILE

Record = TypeVar("Record", bound=BaseModel)


class ModelShape(Settings):
    """The sizes of a model that encoding must meet."""

    num_cameras: NonNegativeInt = Field(description="Camera slots; 0 without vision.")
    image_height: NonNegativeInt = Field(description="Rows of every image, in pixels.")
    image_width: NonNegativeInt = Field(description="Columns of every image, in pixels.")
    state_dim: PositiveInt = Field(description="Columns of the padded state.")
    action_dim: PositiveInt = Field(description="Columns of a padded action.")
    action_horizon: PositiveInt = Field(description="Steps of a chunk.")
    max_prompt_tokens: PositiveInt = Field(description="Tokens of a padded prompt.")

    @classmethod
    def of(cls, model: ModelConfig) -> Self:
        """The sizes that a model's settings declare."""
        return cls(**{name: getattr(model, name) for name in cls.model_fields})


class Statistics(Settings):
    """Statistics of the training episodes; normalization_stats.json."""

    fingerprint: str = Field(
        description="Dataset.fingerprint of the data the training episodes come from, for "
        "comparison."
    )
    state: NormalizationStats = Field(description="Of every state column, mapped.")
    actions: NormalizationStats = Field(
        description="Of every action column as the model sees it: mapped, delta columns after "
        "subtraction."
    )


class SavedTransforms(Settings):
    """What transforms.json holds."""

    config: TransformsConfig = Field(description="The settings.")
    shape: ModelShape = Field(description="The sizes encoded for.")


FILES: dict[str, type[BaseModel]] = {
    "transforms.json": SavedTransforms,
    "normalization_stats.json": Statistics,
    "conventions.json": Conventions,
}


def write_record(path: Path, record: BaseModel) -> None:
    """Write a record as indented JSON."""
    path.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_record(path: Path, kind: type[Record]) -> Record:
    """The record of a JSON file; UserError naming the file and every key that does not fit."""
    content = read_json(path)
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        faults = validation_faults(error, kind, lambda key: f"{path}, {dotted(key)}")
        raise UserError(faults) from None


def read_records(directory: Path) -> dict[str, Any]:
    """The records of FILES by file name, and the tokenizer's text under TOKENIZER_FILE.

    Raises:
        UserError: files are missing or damaged; names every one of them.
    """
    records: dict[str, Any] = {}
    faults: list[str] = []
    for name, kind in FILES.items():
        try:
            records[name] = read_record(directory / name, kind)
        except UserError as error:
            faults += error.faults
    try:
        read_json(directory / TOKENIZER_FILE)
    except UserError as error:
        faults += error.faults
    raise_faults(faults)
    records[TOKENIZER_FILE] = (directory / TOKENIZER_FILE).read_text(encoding="utf-8")
    return records
