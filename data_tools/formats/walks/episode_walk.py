"""The walk over one episode: where its numbers and frames are, and what is wrong with them."""

import dataclasses
import json
import math
from collections import Counter
from numbers import Real
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from data_tools.conventions import Conventions
from data_tools.errors import UserError, shown
from data_tools.finding import Finding, Rule, ruled
from data_tools.formats.layouts import native
from data_tools.formats.layouts.layout import Layout
from data_tools.formats.layouts.places import Place
from data_tools.formats.layouts.texts import (
    UnreadableFactError,
    attribute,
    attribute_text,
    fact,
    sentence,
    truth,
)
from data_tools.formats.reading.records import ArraySource, ColumnSource, EpisodeRecord
from data_tools.formats.walks.column_walk import columns_of
from data_tools.formats.walks.streams import TRIM_REMEDY, Streams
from data_tools.rules import (
    CONTRADICTION,
    LENGTHS,
    NO_INSTRUCTION,
    NO_STEPS,
    TRIMMED_ROWS,
    UNREADABLE_EPISODE,
    UNREADABLE_FACT,
    WRONG_FORM,
    damaged_episode,
)
from data_tools.storage.hdf5.soundness import UNREADABLE, storage_fault


class EpisodeWalk:
    """Collects the facts and the faults of one episode's group.

    Attributes:
        streams: its datasets, with the faults and the rules found so far.
        warnings: what does not forbid reading it.
        num_action_rows: rows of the actions as stored.
    """

    def __init__(
        self,
        group: h5py.Group,
        path: Path,
        layout: Layout,
        conventions: Conventions,
        name: str = "",
    ) -> None:
        self.group = group
        self.path = path
        self.streams = Streams(group, path, layout, name)
        self.layout = layout
        self.conventions = conventions
        self.warnings: list[Finding] = []
        self.num_action_rows = -1

    @property
    def faults(self) -> list[str]:
        """What forbids reading the episode."""
        return self.streams.faults

    @property
    def rules(self) -> Counter[str]:
        """What was done to rows, with the number of rows it was done to."""
        return self.streams.rules

    def record(self) -> EpisodeRecord | None:
        """The record of the episode, None when anything is wrong with it."""
        try:
            return self._record()
        except UserError as error:  # data in another file
            self.streams.faults += ruled(error.faults, UNREADABLE_EPISODE)
        except UNREADABLE as error:
            self.streams.faults.append(damaged_episode(self.streams.where, error))
        return None

    def _fault(self, rule: Rule, found: str, expected: str, remedy: str, *, at: str = "") -> None:
        where = f"{self.streams.where}, {at}" if at else self.streams.where
        self.streams.fault(rule, where, found, expected, remedy)

    def rows(self, whole: EpisodeRecord, start: int, stop: int) -> EpisodeRecord:
        """The episode in these rows of a record that covers all of them."""
        return dataclasses.replace(
            whole,
            group=f"rows {start} to {stop - 1}",
            num_steps=stop - start,
            actions=dataclasses.replace(whole.actions, first=whole.actions.first + start),
            state=dataclasses.replace(whole.state, first=whole.state.first + start),
            images={
                name: dataclasses.replace(source, first=source.first + start)
                for name, source in whole.images.items()
            },
            columns={
                name: dataclasses.replace(source, first=source.first + start)
                for name, source in whole.columns.items()
            },
        )

    def _record(self) -> EpisodeRecord | None:
        layout, conventions = self.layout, self.conventions
        paths = layout.action_paths
        what = paths[0] if len(paths) == 1 else "the actions"
        self.num_action_rows = self.streams.low_dim(
            what, layout.actions, paths, conventions.action.names
        )
        state_rows = self.streams.low_dim(
            "the state", layout.state, layout.state_paths, conventions.state.names
        )
        frames = {camera.name: self.streams.frames(camera) for camera in conventions.cameras}
        num_steps = self._num_steps(state_rows, {n: rows for n, (_, rows) in frames.items()})
        kept = self._kept(num_steps)
        times = self._times(num_steps)
        columns = columns_of(self.streams, (self.num_action_rows, state_rows))
        instruction = self._instruction()
        attributes = self._attributes()
        success = None if layout.success is None else truth(self._fact("success", layout.success))
        self._check_header()
        if self.streams.faults:
            return None
        return EpisodeRecord(
            path=str(self.path),
            group=self.streams.name,
            num_steps=num_steps if kept is None else len(kept),
            instruction=instruction,
            is_success=success,
            attributes=attributes,
            actions=self.streams.array(layout.actions, paths, first=layout.action_shift),
            state=self.streams.array(layout.state, layout.state_paths),
            images={name: source for name, (source, _) in frames.items() if source is not None},
            times=times,
            simulator=self._simulator(num_steps),
            kept=kept,
            columns=columns.rows,
            values=columns.values,
        )

    def _num_steps(self, state_rows: int, frame_rows: dict[str, int]) -> int:
        """T; -1 when it cannot be told. A fault for every stream that does not fit."""
        actions, layout = self.num_action_rows, self.layout
        if -1 in (actions, state_rows, *frame_rows.values()):
            return -1
        allowed = {"same": {0}, "one_more": {1}, "either": {0, 1}}[layout.observation_rows]
        streams = {"states": state_rows, **{f"frames of {n}": r for n, r in frame_rows.items()}}
        misfits = {
            name: rows
            for name, rows in streams.items()
            if rows - actions not in allowed and abs(rows - actions) > layout.surplus_rows
        }
        for name, rows in misfits.items():
            self._length_fault(name, rows)
        num_steps = min(actions - layout.action_shift, *streams.values())
        if num_steps <= 0 and not misfits:
            found = f"{actions} actions" if actions <= 0 else f"only {actions} actions"
            self._fault(NO_STEPS, found, "at least one step", "Delete this episode.")
        if not misfits:
            self._note_rules(streams, actions)
        return -1 if misfits else num_steps

    def _length_fault(self, name: str, rows: int) -> None:
        actions, kind = self.num_action_rows, self.layout.observation_rows
        is_frames = name.startswith("frames")
        found = f"{rows} frames for {actions} actions" if is_frames else ""
        found = found or f"{actions} actions and {rows} states"
        expected = "one frame an action" if is_frames else "as many of each"
        if kind != "same":
            expected = f"{'one more than actions' if kind == 'one_more' else 'as many or one more'}"
        camera = name.partition(" of ")[2] if is_frames else ""
        self._fault(LENGTHS, found, expected, TRIM_REMEDY, at=camera)

    def _note_rules(self, streams: dict[str, int], actions: int) -> None:
        surplus = max(actions, *streams.values()) - min(actions, *streams.values())
        is_one_more = self.layout.observation_rows != "same" and surplus == 1
        if is_one_more:
            self.streams.rules["the observation after the last action is dropped"] += 1
        elif surplus:
            self.warnings.append(
                TRIMMED_ROWS.found(self.streams.where, f"{actions} actions, {streams}")
            )
        if self.layout.action_shift:
            shift = self.layout.action_shift
            rule = f"the observation in row t is paired with the action in row t + {shift}"
            self.streams.rules[rule] += actions - shift

    def _kept(self, num_steps: int) -> npt.NDArray[np.int64] | None:
        """The rows that are steps; None when all are."""
        if not self.layout.skip or num_steps == -1:
            return None
        dataset = self.streams.dataset(self.layout.skip)
        if dataset is None:
            return None
        is_marks = dataset.ndim == 1 and dataset.dtype.kind in "biuf"
        if not is_marks or len(dataset) < num_steps or storage_fault(dataset):
            found = f"{dataset.name} as {dataset.dtype}{list(dataset.shape or ())}"
            self._fault(WRONG_FORM, found, f"one mark for {num_steps} rows", TRIM_REMEDY)
            return None
        kept = np.flatnonzero(~np.asarray(dataset[:num_steps]).astype(bool))
        if not len(kept):
            found = f"{num_steps} rows, all marked by {self.layout.skip}"
            self._fault(NO_STEPS, found, "at least one step", "Delete this episode.")
        self.streams.rules[f"rows marked by {self.layout.skip} are left out"] += num_steps - len(
            kept
        )
        return kept

    def _times(self, num_steps: int) -> tuple[ArraySource, float] | None:
        clock = self.layout.times
        dataset = None if clock is None else self.streams.find(clock.dataset)
        if clock is None or dataset is None or not self.streams.is_usable(dataset):
            return None
        if len(dataset) < num_steps:
            found = f"{len(dataset)} clock readings for {num_steps} steps"
            self._fault(LENGTHS, found, "one a step", TRIM_REMEDY)
        path = self.streams.path_in_file(clock.dataset)
        return ArraySource((ColumnSource(path),)), clock.unit_s

    def _simulator(self, num_steps: int) -> ArraySource | None:
        """Evidence for a check, so what is absent or does not fit is no fault."""
        name, first = self.layout.simulator_states, self.layout.action_shift
        found = self.streams.find(name) if name else None
        if found is None or found.ndim != 2 or len(found) < first + num_steps:
            return None
        if found.dtype.kind != "f" or storage_fault(found):
            return None
        return ArraySource((ColumnSource(self.streams.path_in_file(name)),), first)

    def _instruction(self) -> str:
        if not self.layout.instruction:
            return ""
        for place in self.layout.instruction:
            try:
                found = sentence(
                    place, self.group, self.path, may_leave=self.layout.allow_external_links
                )
            except UnreadableFactError as error:
                remedy = "Mend it, or name another place in layout.instruction."
                self._fault(UNREADABLE_FACT, str(error), "a sentence", remedy, at="instruction")
                return ""
            if found:
                return found
        places = " or ".join(_in_words(place.model_dump()) for place in self.layout.instruction)
        self._fault(
            NO_INSTRUCTION,
            self._without_sentence(),
            f"the task's sentence in {places}",
            "Write it there, or name the right place, or one text for the file, in a sidecar's "
            "layout.instruction.",
        )
        return ""

    def _without_sentence(self) -> str:
        """What is there in place of an instruction: a text without words, or nothing."""
        may_leave = self.layout.allow_external_links
        for place in self.layout.instruction:
            value = fact(place, self.group, self.path, may_leave=may_leave)
            if value is not None:
                there = _in_words(place.model_dump())
                return f"no instruction; {there} is there and holds no words: {str(value)[:40]!r}"
        return f"no instruction; the attributes are {sorted(self.group.attrs)}"

    def _fact(self, name: str, place: Place) -> object:
        try:
            return fact(place, self.group, self.path, may_leave=self.layout.allow_external_links)
        except UnreadableFactError as error:
            self._fault(UNREADABLE_FACT, str(error), "a value", "Mend or delete it.", at=name)
            return None

    def _attributes(self) -> dict[str, object]:
        extra: dict[str, object] = {}
        for name, place in self.layout.attributes.items():
            value = self._fact(name, place)
            if value is not None:
                extra[name] = value
        source = attribute(self.group, native.SOURCE_ATTRIBUTE)
        if source is not None:
            extra["source"] = str(source)
        stored = attribute_text(self.group, native.EXTRA_ATTRIBUTE) or "{}"
        try:
            extra.update(json.loads(stored))
        except (ValueError, TypeError, RecursionError) as error:
            found, at = f"{shown(stored, 40)} ({error})", f"attribute {native.EXTRA_ATTRIBUTE!r}"
            self._fault(UNREADABLE_FACT, found, "a JSON object", "Mend or delete it.", at=at)
        return extra

    def _check_header(self) -> None:
        """What the episode's attributes say about its length and rate."""
        rows = self.num_action_rows
        is_shared = self.streams.name != self.streams.place
        name = native.NUM_SAMPLES_ATTRIBUTE
        declared = None if is_shared else attribute(self.group, name)
        if rows != -1 and declared not in (None, rows, [rows]):
            found = f"num_samples {declared} and {rows} actions"
            remedy = "Correct the attribute or record it again."
            self._fault(CONTRADICTION, found, "the same number", remedy)
        fps, control_hz = attribute(self.group, native.FPS_ATTRIBUTE), self.conventions.control_hz
        if fps is None or control_hz is None:
            return
        if not (isinstance(fps, Real) and math.isclose(fps, control_hz, rel_tol=1e-5)):
            found = f"fps {fps}, and control_hz {control_hz} in the conventions"
            self._fault(CONTRADICTION, found, "the same rate", "Correct the one that is wrong.")


def _in_words(place: dict[str, object]) -> str:
    return " of ".join(f"the {name} {value!r}" for name, value in place.items() if value)
