"""LeRobot's processor files: what happens to observations and actions beside the model.

Two pipelines of steps, each a JSON file, with the statistics in tensor files that its steps name.
Before LeRobot 0.4 there were none, and statistics lay among the weights.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError

from data_tools.stats import STATISTICS, NormalizationStats
from policy_ft.checkpoints.tensor_files import TensorFiles
from policy_ft.config.base import Real
from policy_ft.errors import (
    UserError,
    describe,
    dotted,
    nearest,
    raise_faults,
    read_json,
    validation_faults,
)
from policy_ft.formats.lerobot.lerobot_config import ACTION, STATE
from policy_ft.formats.lerobot.tensor_document import tensor_document
from policy_ft.formats.published import checked_stats
from policy_ft.formats.tensor_names import STATISTICS_ROOTS

PREPROCESSOR: Final = "policy_preprocessor.json"
POSTPROCESSOR: Final = "policy_postprocessor.json"
EPSILON: Final = 1e-8

RENAME_STEP: Final = "rename_observations_processor"
BATCH_STEP: Final = "to_batch_processor"
PROMPT_STEP: Final = "pi05_prepare_state_tokenizer_processor_step"
TOKENIZER_STEP: Final = "tokenizer_processor"
DEVICE_STEP: Final = "device_processor"
RELATIVE_STEP: Final = "relative_actions_processor"
NORMALIZER_STEP: Final = "normalizer_processor"
UNNORMALIZER_STEP: Final = "unnormalizer_processor"
ABSOLUTE_STEP: Final = "absolute_actions_processor"
NEW_LINE_STEPS: Final = {"pi0": "pi0_new_line_processor", "smolvla": "smolvla_new_line_processor"}
_STEPS: Final = (
    RENAME_STEP,
    BATCH_STEP,
    *NEW_LINE_STEPS.values(),
    PROMPT_STEP,
    TOKENIZER_STEP,
    DEVICE_STEP,
    RELATIVE_STEP,
    NORMALIZER_STEP,
    UNNORMALIZER_STEP,
    ABSOLUTE_STEP,
)
# e.g. so100.buffer.action.mean, and among old weights so100.buffer_action.mean
_GROUPED = re.compile(r"(?P<group>.+)\.buffer[._](?P<feature>.+)")


class Step(BaseModel):
    """One step of a pipeline; keys beyond these are LeRobot's own bookkeeping."""

    model_config = ConfigDict(extra="allow", frozen=True)
    registry_name: str = Field(description="Which step.")
    config: dict[str, Any] = Field(default_factory=dict, description="Its settings.")
    state_file: str | None = Field(None, description="Tensor file beside the JSON.")


class Pipeline(BaseModel):
    """A processor file."""

    model_config = ConfigDict(extra="allow", frozen=True)
    steps: tuple[Step, ...] = Field(description="In order.")


class StepSettings(BaseModel):
    """The settings of steps that decide what the model sees, under LeRobot's names."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    rename_map: dict[str, str] = Field(default_factory=dict, description="Robot's key -> policy's.")
    max_length: int | None = Field(None, description="Longest prompt in tokens.")
    tokenizer_name: str | None = Field(None, description="Directory beside it, or a hub id.")
    enabled: StrictBool = Field(False, description="Whether actions are relative.")
    exclude_joints: tuple[str, ...] | None = Field(None, description="Columns kept absolute.")
    action_names: tuple[str, ...] | None = Field(None, description="Names of the columns.")
    eps: Real = Field(EPSILON, description="Added to deviations, and in place of a zero range.")
    norm_map: dict[str, str] | None = Field(None, description="Feature type -> normalization.")
    normalize_observation_keys: tuple[str, ...] | None = Field(
        None, description="The only features that are normalized; all if not given."
    )
    include_state_in_prompt: StrictBool = Field(True, description="Of pi0.5.")


@dataclass(frozen=True)
class FeatureStatistics:
    """The statistics of one feature.

    Attributes:
        place: how messages call them: their file and the feature.
        values: None where they are damaged.
        faults: what is wrong with them.
    """

    place: str
    values: NormalizationStats | None
    faults: tuple[str, ...] = ()


Table = Mapping[str, FeatureStatistics]
"""Feature -> its statistics."""


@dataclass(frozen=True)
class Processors:
    """What both pipelines say.

    Attributes:
        settings: name of a step -> its settings.
        statistics: as the pipelines use them.
        groups: dataset -> statistics that no step uses, because they are kept apart by the dataset
            they come from: smolvla_base was trained on several.
        documents: file name -> JSON.
    """

    settings: Mapping[str, StepSettings] = field(default_factory=dict)
    statistics: Table = field(default_factory=dict)
    groups: Mapping[str, Table] = field(default_factory=dict)
    documents: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_statistics(self) -> bool:
        """Whether there are any, and so whether LeRobot trained the policy."""
        return bool(self.statistics or self.groups)

    def of(self, step: str) -> StepSettings:
        """The settings of a step; LeRobot's defaults where the pipelines lack it."""
        return self.settings.get(step, StepSettings())


def read_processors(directory: Path, files: Iterable[Path]) -> Processors:
    """The pipelines of a LeRobot directory, or the statistics among its weights in an old one.

    Args:
        directory: of the checkpoint.
        files: of its weights.

    Raises:
        UserError: a file is missing, damaged or outside the directory, a step is unknown, or the
            actions are normalized by other statistics than they are unnormalized by.
    """
    documents: dict[str, Any] = {}
    pipelines: dict[str, Pipeline] = {}
    for name in (PREPROCESSOR, POSTPROCESSOR):
        if (directory / name).is_file():
            documents[name] = read_json(directory / name)
            pipelines[name] = _pipeline(directory / name, documents[name])
    if not pipelines:
        return _from_weights(files, str(directory))
    tables: list[tuple[str, dict[str, torch.Tensor]]] = []
    for pipeline in pipelines.values():
        for step in pipeline.steps:
            if step.state_file is not None:
                tensors = _state(directory, step.state_file)
                documents[step.state_file] = tensor_document(tensors)
                tables.append((step.state_file, tensors))
    statistics, groups = _by_feature(tables, str(directory))
    settings = {
        step.registry_name: _settings(step, directory)
        for pipeline in pipelines.values()
        for step in pipeline.steps
    }
    return Processors(settings, statistics, groups, documents)


def _pipeline(path: Path, document: Any) -> Pipeline:
    try:
        pipeline = Pipeline.model_validate(document)
    except ValidationError as error:
        raise UserError(
            validation_faults(error, Pipeline, lambda key: f"{path}, {dotted(key)}")
        ) from None
    faults = []
    for index, step in enumerate(pipeline.steps):
        if step.registry_name not in _STEPS:
            hint = nearest(step.registry_name, _STEPS)
            remedy = "What it does to the data is not implemented"
            remedy += f"; {hint}" if hint else "."
            where = f"{path}, steps.{index}"
            found = f"the step {step.registry_name!r}"
            faults.append(describe(where, found, f"one of {list(_STEPS)}", remedy))
    raise_faults(faults)
    return pipeline


def _settings(step: Step, directory: Path) -> StepSettings:
    try:
        return StepSettings.model_validate(step.config)
    except ValidationError as error:
        place = f"{directory}, {step.registry_name}"
        raise UserError(
            validation_faults(error, StepSettings, lambda key: f"{place}, {dotted(key)}")
        ) from None


def _state(directory: Path, name: str) -> dict[str, torch.Tensor]:
    if Path(name).name != name:
        remedy = "Download the checkpoint again."
        expected = "the name of a file in the same directory"
        raise UserError(describe(f"{directory}, state_file", repr(name), expected, remedy))
    with TensorFiles([directory / name]) as stored:
        return {key: stored.tensor(key).clone() for key in stored.headers}


def _from_weights(files: Iterable[Path], where: str) -> Processors:
    """Statistics among the weights: normalize_inputs.buffer_observation_state.mean and so on."""
    with TensorFiles(tuple(files)) as stored:
        tensors = {
            name: stored.tensor(name).clone()
            for name in stored.headers
            if name.startswith(STATISTICS_ROOTS)
        }
    tables = [
        (
            root,
            {_feature_name(name, root): tensors[name] for name in tensors if name.startswith(root)},
        )
        for root in STATISTICS_ROOTS
    ]
    statistics, groups = _by_feature(tables, where)
    return Processors(statistics=statistics, groups=groups)


def _feature_name(name: str, root: str) -> str:
    """'normalize_inputs.buffer_observation_state.mean' as 'observation.state.mean'."""
    place, _, statistic = name.removeprefix(root).rpartition(".")
    for feature in (STATE, ACTION):
        place = place.replace(f"buffer_{feature.replace('.', '_')}", f"buffer.{feature}")
    return f"{place.removeprefix('buffer.')}.{statistic}"


def _by_feature(
    tables: Iterable[tuple[str, Mapping[str, torch.Tensor]]], where: str
) -> tuple[dict[str, FeatureStatistics], dict[str, dict[str, FeatureStatistics]]]:
    """Statistics of state and action by feature, and those by dataset and feature."""
    rows: dict[tuple[str, str], dict[str, tuple[float, ...]]] = {}
    places: dict[tuple[str, str], str] = {}
    faults = []
    for source, tensors in tables:
        for name, tensor in tensors.items():
            place, _, statistic = name.rpartition(".")
            grouped = _GROUPED.fullmatch(place)
            group, feature = (grouped["group"], grouped["feature"]) if grouped else ("", place)
            # a statistic that was never set is infinite, and one of images is not needed
            if feature not in (STATE, ACTION) or statistic not in STATISTICS:
                continue
            if tensor.dim() != 1:
                remedy = "Statistics of another form, such as one row a time step, are not read."
                expected = "[columns]"
                place = f"{where}, {source}, {name}"
                faults.append(describe(place, f"{list(tensor.shape)}", expected, remedy))
                continue
            values = tuple(tensor.double().tolist())
            key = group, feature
            places.setdefault(key, f"{where}/{source}, {group and group + ', '}{feature}")
            kept = rows.setdefault(key, {}).setdefault(statistic, values)
            if str(kept) != str(values):  # a NaN equals no NaN
                remedy = "Copy the checkpoint again; its files do not belong together."
                found, expected = "other numbers than in the files before it", "the same"
                faults.append(describe(f"{where}, {source}, {name}", found, expected, remedy))
    raise_faults(faults)
    statistics: dict[str, FeatureStatistics] = {}
    groups: dict[str, dict[str, FeatureStatistics]] = {}
    for (group, feature), columns in rows.items():
        chosen = groups.setdefault(group, {}) if group else statistics
        if _are_set(columns):
            place = places[group, feature]
            chosen[feature] = FeatureStatistics(place, *checked_stats(columns, place))
    return statistics, groups


def _are_set(columns: Mapping[str, tuple[float, ...]]) -> bool:
    """Whether the numbers were ever computed: LeRobot starts them at infinity."""
    return all(abs(value) != float("inf") for row in columns.values() for value in row)
