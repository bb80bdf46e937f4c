"""Which settings of a run may change when it is resumed, and what that does to its best step."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from pydantic import ValidationError

from policy_ft.config.data import SelectionConfig
from policy_ft.config.run import RunConfig

# Where, how long and how fast a run goes, and how it is measured; what each step computes changes
# at most by rounding.
HARMLESS = (
    "output_dir",
    # the fingerprint tells whether these choose other data
    *(f"data.{name}" for name in SelectionConfig.model_fields),
    *(f"data.mixture.*.{name}" for name in SelectionConfig.model_fields),
    "data.collect",
    "data.num_workers",
    "data.prefetch",
    "training.steps",
    "training.accumulation_steps",
    "training.activation_checkpointing",
    "training.compile",
    "training.shard",
    "training.feature_cache_gb",
    "training.num_threads",
    "training.log_every",
    "training.save_every",
    "training.keep",
    "training.tensorboard",
    "evaluation",
)
HARMLESS_WITHOUT_DROPOUT = (
    "training.accumulation_steps",
    "training.compile",
    "training.feature_cache_gb",
)
"""Dropout is drawn for a micro-batch as a whole, so another division draws other masks (a cache
divides by where windows were seen before), and compiled blocks draw from another generator."""

MEASURED_THE_SAME = ("evaluation.num_envs", "evaluation.every")


def changed_settings(
    before: Mapping[str, Any], now: RunConfig, *, has_dropout: bool
) -> dict[str, tuple[str, str]]:
    """Key -> (found, expected) of every changed setting that would change the weights.

    Args:
        before: the settings that the run began with, as plain values.
        now: those it is to go on with.
        has_dropout: whether the model leaves something out at random.
    """
    excepted = {*HARMLESS_WITHOUT_DROPOUT} if has_dropout else set[str]()
    if any(isinstance(phase.start, float) for phase in now.tuning.phases):
        excepted.add("training.steps")  # another length is another first step of the phase
    harmless = tuple(name for name in HARMLESS if name not in excepted)
    return {
        key: values
        for key, values in _differences(before, now).items()
        if not _is_among(key, harmless)
    }


def is_measured_alike(before: Mapping[str, Any], now: RunConfig) -> bool:
    """Whether success rates of the two settings can be compared: the same episodes, run alike."""
    return not any(
        _is_among(key, ("evaluation",)) and not _is_among(key, MEASURED_THE_SAME)
        for key in _differences(before, now)
    )


def _differences(before: Mapping[str, Any], now: RunConfig) -> dict[str, tuple[str, str]]:
    old, new = _flat(_completed(before)), _flat(now.model_dump(mode="json"))
    return {
        key: (repr(new.get(key, "no value")), repr(old.get(key, "no value")))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    }


def _completed(before: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings with the defaults of those that did not exist when the run began."""
    try:
        return RunConfig.model_validate(before).model_dump(mode="json")
    except ValidationError:
        return before


def _is_among(key: str, names: tuple[str, ...]) -> bool:
    return any(fnmatchcase(key, name) or fnmatchcase(key, f"{name}.*") for name in names)


def _flat(value: object, prefix: str = "") -> dict[str, object]:
    """{"a.b": 1} from {"a": {"b": 1}}; lists stay whole."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    return {
        k: v
        for key, inner in value.items()
        for k, v in _flat(inner, f"{prefix}.{key}" if prefix else key).items()
    }
