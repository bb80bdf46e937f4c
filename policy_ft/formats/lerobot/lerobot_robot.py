"""The robot's side of a LeRobot checkpoint: cameras, columns, normalization and prompt."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from data_tools.conventions import Conventions
from policy_ft.config.model import ModelConfig
from policy_ft.config.transforms import Prompt, Resize, TransformsConfig
from policy_ft.errors import describe
from policy_ft.formats.embodiments import Embodiment
from policy_ft.formats.embodiments.robot_beside import embodiment_beside, is_seen_alike
from policy_ft.formats.lerobot.lerobot_config import (
    ACTION,
    IMAGES,
    STATE,
    Feature,
    LerobotConfig,
)
from policy_ft.formats.lerobot.lerobot_processors import (
    NORMALIZER_STEP,
    PROMPT_STEP,
    RELATIVE_STEP,
    RENAME_STEP,
    TOKENIZER_STEP,
    UNNORMALIZER_STEP,
    Processors,
    StepSettings,
    Table,
)
from policy_ft.formats.published import (
    FoundStatistics,
    damaged_statistics,
    neutral_stats,
    numbered,
    statistics_of_robot,
    unknown_robot,
)
from policy_ft.transforms import Statistics

NORMALIZATIONS: Final = {
    "IDENTITY": "identity",
    "MEAN_STD": "mean_std",
    "MIN_MAX": "min_max",
    "QUANTILES": "quantiles",
    "QUANTILE10": "quantiles_10_90",
}
"""LeRobot's NormalizationMode -> ours."""


def is_kept_absolute(name: str, excluded: Sequence[str]) -> bool:
    """Whether a column whose name holds an excluded word stays absolute: LeRobot's rule."""
    return any(word.lower() in name.lower() for word in excluded if word)


@dataclass(frozen=True)
class LerobotRobot:
    """What a LeRobot checkpoint says of its robot, in our words.

    Attributes:
        directory: of the checkpoint.
        config: config.json.
        processors: both pipelines.
        model: the model's settings.
        embodiment: the robot it is used for, if one was named.
        is_old: whether LeRobot up to 0.4.4 trained it.
    """

    directory: Path
    config: LerobotConfig
    processors: Processors
    model: ModelConfig
    embodiment: Embodiment | None
    is_old: bool

    @cached_property
    def conventions(self) -> Conventions:
        """The embodiment's, or what the features say."""
        if self.embodiment is not None:
            return self.embodiment.conventions
        features = self.config.input_features
        keys = self.config.camera_keys
        cameras = [(self._robot_name(key), *features[key].image_size) for key in keys]
        actions = self._relative().action_names or self.config.action_feature_names or ()
        action_dim, state_dim = self._width(ACTION), self._width(STATE)
        if len(actions) != action_dim:
            actions = numbered("action", action_dim)
        states = numbered("state", state_dim)
        if any(self._delta_mask(action_dim)):
            # deltas are paired by position here, and by name in our declarations
            states = (*actions[:state_dim], *states[len(actions) :])
        return unknown_robot(cameras, states, actions)

    @cached_property
    def transforms_config(self) -> TransformsConfig:
        """Settings under which encoding does what LeRobot's processors and policy do."""
        values: dict[str, Any] = {
            "cameras": self.conventions.camera_names,
            "resize": self._resize(),
            "state_normalization": self._kind("STATE"),
            "action_normalization": self._kind("ACTION"),
            "epsilon": self._normalizer().eps,
            "range_epsilon": "for_zero",
            "still_columns": "divide",
            "delta_actions": self._relative_names(),
            "prompt": self._prompt(),
        }
        # what the checkpoint's own statistics were not made for, `statistics` refuses
        robot = {} if self.embodiment is None else self.embodiment.transforms
        return TransformsConfig(**(values | robot))

    def faults(self) -> list[str]:
        """What the processors do that is not implemented here."""
        faults = []
        where = str(self.directory)
        for part in ("STATE", "ACTION", "VISUAL"):
            kind = self._mode(part)
            allowed = ["IDENTITY"] if part == "VISUAL" else list(NORMALIZATIONS)
            if kind not in allowed:
                remedy = "Another normalization of this part is not implemented."
                place = f"{where}, norm_map, {part}"
                faults.append(describe(place, repr(kind), f"one of {allowed}", remedy))
        length = self.processors.of(TOKENIZER_STEP).max_length
        stated = self.config.tokenizer_max_length
        if None not in (length, stated) and length != stated:
            remedy = "Take both files from the same checkpoint."
            place = f"{where}, tokenizer_processor.max_length"
            expected = f"{stated}, as config.json says"
            faults.append(describe(place, repr(length), expected, remedy))
        after = (self._unnormalizer().norm_map or {}).get("ACTION")
        if after is not None and after != self._mode("ACTION"):
            remedy = "Take both processor files from the same checkpoint."
            place = f"{where}, unnormalizer_processor, norm_map, ACTION"
            expected = f"{self._mode('ACTION')!r}, as the normalizer has"
            faults.append(describe(place, repr(after), expected, remedy))
        faults += self._camera_faults()
        if self.embodiment is None and not self.config.camera_keys:
            remedy = "Name the embodiment, which declares its cameras."
            place = f"{where}, input_features"
            faults.append(describe(place, "no camera", "at least one of type VISUAL", remedy))
        return faults

    def statistics(self) -> FoundStatistics:
        """The statistics of state and action, or why they cannot be used."""
        widths = {
            STATE: len(self.conventions.state.names),
            ACTION: len(self.conventions.action.names),
        }
        parts = {STATE: "STATE", ACTION: "ACTION"}
        needed = [key for key in widths if self._kind(parts[key]) != "identity"]
        asset_ids = self.embodiment.asset_ids if self.embodiment else ()
        groups = [self.processors.groups.get(asset_id, {}) for asset_id in asset_ids]
        # of one data set alone: a state of one robot says nothing of another's actions
        own = self.processors.statistics
        complete = [group for group in (own, *groups) if group.keys() >= {*needed}]
        if not complete:
            missing = [key for key in needed if key not in own]
            is_unfit = bool(own) or (self.embodiment is not None and self.processors.has_statistics)
            return FoundStatistics(None, self._no_statistics(missing), is_unfit=is_unfit)
        used = {key: complete[0][key] for key in needed}
        damaged = [fault for columns in used.values() for fault in columns.faults]
        damaged += self._misshaped(used) if complete[0] is own else []
        if damaged:
            return damaged_statistics(damaged)
        unfit = list(self._unfit())
        if unfit:
            return FoundStatistics(None, "\n".join(unfit), is_unfit=True)
        chosen = {key: neutral_stats(width) for key, width in widths.items()}
        chosen |= {
            key: columns.values for key, columns in used.items() if columns.values is not None
        }
        stored = Statistics(
            fingerprint=f"lerobot {self.directory.name}",
            state=chosen[STATE],
            actions=chosen[ACTION],
        )
        return statistics_of_robot(stored, self.conventions, str(self.directory))

    def _misshaped(self, used: Table) -> list[str]:
        """Faults of statistics of other columns than config.json says."""
        faults = []
        for key, columns in used.items():
            feature = self._features.get(key)
            if feature is None or columns.values is None or columns.values.dim == feature.shape[0]:
                continue
            expected = f"{feature.shape[0]}, as config.json says"
            remedy = "Take all files from the same checkpoint."
            faults.append(
                describe(columns.place, f"{columns.values.dim} columns", expected, remedy)
            )
        return faults

    def notes(self) -> tuple[str, ...]:
        """What is decided here that no file says."""
        if self.embodiment is None or not self._trained_cameras():
            return ()
        trained, used = self._trained_cameras(), self.embodiment.cameras
        slots = max(len(trained), len(used))
        pairs = list(zip(_filled(used, slots), _filled(trained, slots), strict=True))
        if all(own == theirs for own, theirs in pairs):
            return ()
        said = [f"slot {i} {own} (trained as {theirs})" for i, (own, theirs) in enumerate(pairs)]
        return (f"cameras: {', '.join(said)}",)

    def _trained_cameras(self) -> tuple[str, ...]:
        """The robot's names of the cameras in the order of the slots, as they were trained."""
        return tuple(self._robot_name(key) for key in self.config.camera_keys)

    def _camera_faults(self) -> Iterator[str]:
        """Cameras that the embodiment puts into other slots than they were trained in."""
        if self.embodiment is None:
            return
        trained, used = self._trained_cameras(), self.embodiment.cameras
        if any(name in trained and trained.index(name) != slot for slot, name in enumerate(used)):
            yield describe(
                f"embodiment {self.embodiment.name}, cameras",
                f"{list(used)}",
                f"each where it was trained: {list(trained)}, as {self.directory} says",
                "Put the cameras in this order, with null for a slot that is to stay empty.",
            )

    def _relative_names(self) -> tuple[str, ...]:
        """The action columns that are relative to the state."""
        names = self.conventions.action.names
        mask = self._delta_mask(len(names))
        return tuple(name for name, is_relative in zip(names, mask, strict=True) if is_relative)

    def _unfit(self) -> Iterator[str]:
        """What the embodiment does to columns and LeRobot did not when it made its statistics."""
        robot = self.embodiment
        if robot is None:
            return
        beside = embodiment_beside(self.directory)
        if beside is not None and is_seen_alike(beside, robot):
            return  # what was written beside the statistics says what they are of
        where = f"embodiment {robot.name}"
        remedy = "Compute statistics from data (statistics: data), or correct the embodiment."
        for name in ("state_maps", "action_maps"):
            mapped = [column_map.column for column_map in getattr(robot, name)]
            if mapped:
                expected = f"none, for the statistics of {self.directory} are of unmapped columns"
                yield describe(f"{where}, {name}", f"maps of {mapped}", expected, remedy)
        relative = self._relative_names()
        if set(robot.delta_actions) != set(relative):
            found = f"{list(robot.delta_actions)}"
            expected = f"{list(relative)}, as {self.directory} was trained"
            yield describe(f"{where}, delta_actions", found, expected, remedy)
        states, actions = robot.conventions.state.names, robot.conventions.action.names
        moved = [n for n in relative if n in states and states.index(n) != actions.index(n)]
        if moved:
            expected = "in the same places, where LeRobot takes the one from the other"
            found = f"{moved} in other places of state and action"
            yield describe(f"{where}, columns", found, expected, remedy)

    def _no_statistics(self, missing: Sequence[str]) -> str:
        groups = sorted(self.processors.groups)
        remedy = "Compute them from data (statistics: data)"
        found = f"no statistics of {' and '.join(missing)}"
        if groups:
            remedy += ", or name an embodiment whose asset_ids has the dataset your robot is of"
            found += f", but some of the datasets {groups}"
        expected = "those the weights were trained with; LeRobot would pass raw numbers"
        return describe(f"{self.directory}, statistics", found, expected, f"{remedy}.")

    def _relative(self) -> StepSettings:
        return self.processors.of(RELATIVE_STEP)

    def _normalizer(self) -> StepSettings:
        return self.processors.of(NORMALIZER_STEP)

    def _unnormalizer(self) -> StepSettings:
        return self.processors.of(UNNORMALIZER_STEP)

    def _delta_mask(self, width: int) -> list[bool]:
        """Whether each of so many action columns is relative to the state.

        By position: the names that were stored at training decide, whatever the columns are called
        now, and columns beyond them are relative.
        Source: LeRobot, processor/relative_action_processor.py.
        """
        has_step = RELATIVE_STEP in self.processors.settings
        relative = self._relative()
        if not (relative.enabled if has_step else self.config.use_relative_actions):
            return [False] * width
        excluded = relative.exclude_joints
        if excluded is None:
            excluded = self.config.relative_exclude_joints
        names = relative.action_names or self.config.action_feature_names or ()
        mask = [not is_kept_absolute(name, excluded) for name in names[:width]]
        return mask + [True] * (width - len(mask))

    def _robot_name(self, key: str) -> str:
        """The robot's own name of a camera that the policy knows by a feature's key."""
        renamed = self.processors.of(RENAME_STEP).rename_map
        own = {theirs: ours for ours, theirs in renamed.items()}.get(key, key)
        return own.removeprefix(IMAGES)

    def _width(self, key: str) -> int:
        """Columns of the robot's own state or action."""
        if key in self._features:
            return self._features[key].shape[0]
        stored = self.processors.statistics.get(key)
        if stored is not None and stored.values is not None:
            return stored.values.dim
        return self.model.state_dim if key == STATE else self.model.action_dim

    @property
    def _features(self) -> dict[str, Feature]:
        """Every input and output of the policy."""
        return {**self.config.input_features, **self.config.output_features}

    def _mode(self, part: str) -> str:
        """LeRobot's name of a part's normalization; what it does without a choice is nothing."""
        keys = self._normalizer().normalize_observation_keys
        if part == "STATE" and keys is not None and STATE not in keys:
            return "IDENTITY"
        modes = self._normalizer().norm_map or self.config.normalization_mapping
        default = "QUANTILES" if self.config.family == "pi05" else "MEAN_STD"
        return modes.get(part, "IDENTITY") if modes or part == "VISUAL" else default

    def _kind(self, part: str) -> str:
        return NORMALIZATIONS[self._mode(part)]

    def _resize(self) -> Resize:
        if self.config.family == "smolvla":
            is_none = self.config.resize_imgs_with_padding is None
            return "none" if is_none else "torch_bilinear_lefttop_pad"
        if not self.processors.has_statistics:
            return "pil_bilinear_center_pad"
        return (
            "torch_bilinear_center_pad_minus_three" if self.is_old else "torch_bilinear_center_pad"
        )

    def _prompt(self) -> Prompt:
        match self.config.family:
            case "smolvla":
                return "smolvla"
            case "pi0":
                return "lerobot_pi0" if self.processors.has_statistics else "pi0"
        if not self.processors.of(PROMPT_STEP).include_state_in_prompt:
            return "pi05_no_state"
        return "pi05_padded_state" if self.is_old else "pi05"


def _filled(cameras: Sequence[str | None], slots: int) -> list[str]:
    """The camera of each slot, or that it is empty."""
    names = [name or "empty" for name in cameras]
    return names + ["empty"] * (slots - len(names))
