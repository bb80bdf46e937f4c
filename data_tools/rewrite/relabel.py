"""relabel: other sentences, gripper values or action references, with the declaration to match."""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from data_tools.actions import to_absolute, to_delta
from data_tools.conventions import ActionSpec, Conventions
from data_tools.episode import Dataset
from data_tools.errors import UserError, describe, nearest, raise_faults, shown
from data_tools.formats.keep_files import relative_names
from data_tools.rewrite.edited import Change, Edit, EditedDataset

GripperChange = Literal["binarize", "flip"]
ActionChange = Literal["delta", "absolute", "next-state"]
ACTION_CHANGES: Final[tuple[ActionChange, ...]] = get_args(ActionChange)
MAX_SENTENCE: Final = 1000

Pairs = Sequence[tuple[int, int]]
Floats = npt.NDArray[np.float32]


def from_attribute(dataset: Dataset, name: str) -> list[str]:
    """The sentence of each episode, from an attribute of the episode."""
    return [str(dataset[index].attributes.get(name, "")) for index in range(len(dataset))]


def from_name(dataset: Dataset, pattern: str) -> list[str]:
    r"""The sentence of each episode, from its file's path: what the group of a pattern matches.

    Underscores and dashes become spaces: '(\w+)_demo' makes 'pick up the cup' of
    'pick_up_the_cup_demo.hdf5'.

    Raises:
        UserError: the pattern is no regular expression with one group.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        remedy = r"Write one group around the words, as in '(\w+)_demo'."
        found, expected = f"{pattern!r} ({error})", "a regular expression"
        raise UserError(describe("pattern", found, expected, remedy)) from error
    if compiled.groups != 1:
        remedy = r"Put brackets around the words, as in '(\w+)_demo'."
        found = f"{pattern!r} with {compiled.groups} groups"
        raise UserError(describe("pattern", found, "one group", remedy))
    sentences = []
    for index in range(len(dataset)):
        match = compiled.search(dataset[index].name.rpartition(":")[0] or dataset[index].name)
        sentences.append(re.sub(r"[_\-]+", " ", match[1]).strip() if match else "")
    return sentences


def from_table(dataset: Dataset, path: Path) -> list[str]:
    """The sentence of each episode, from a table by its name: JSON {name: text} or CSV name,text.

    A name is 'pick.hdf5:data/demo_3', or 'pick.hdf5' for every episode of that file. A CSV may
    begin with the line 'name,text'.

    Raises:
        UserError: the table cannot be read, or names an episode that is not there.
    """
    table = _read_table(path)
    names = relative_names([dataset[index].name for index in range(len(dataset))])
    files = [name.rpartition(":")[0] or name for name in names]
    known = {*names, *files}
    faults = []
    for name in table:
        if name not in known:
            hint = nearest(name, known)
            remedy = f"Correct the name{f'; {hint}' if hint else '.'}"
            faults.append(describe(str(path), f"the episode {name!r}", "one in the data", remedy))
    raise_faults(faults)
    return [table.get(name, table.get(file, "")) for name, file in zip(names, files, strict=True)]


def sentences_of(
    dataset: Dataset, text: str | None, attribute: str | None, name: str | None, table: Path | None
) -> list[str] | None:
    """A sentence for each episode, from the first source that is given; None where none is."""
    if text is not None:
        return [text] * len(dataset)
    if attribute is not None:
        return from_attribute(dataset, attribute)
    if name is not None:
        return from_name(dataset, name)
    return None if table is None else from_table(dataset, table)


def relabel(
    dataset: Dataset,
    *,
    instructions: Sequence[str] | None = None,
    gripper: GripperChange | None = None,
    actions: ActionChange | None = None,
    pairs: Mapping[str, str] | None = None,
) -> EditedDataset:
    """The dataset with other labels; nothing is written until it is converted.

    Args:
        dataset: what is relabelled.
        instructions: one sentence an episode.
        gripper: binarize sets every command to the declared open or closed value that is nearer;
            flip mirrors values and declaration, so that what was open is open still.
        actions: delta makes each absolute target relative to the state of its step, absolute the
            inverse, next-state takes the state that follows as the absolute target (the last step,
            which nothing follows, is left out).
        pairs: action column -> state column it is a target of; those of the same name that are no
            gripper when not given. The two must have one unit, and actions and state one frame.
            Columns of a rotation cannot be subtracted and must not be among them.

    Raises:
        UserError: a sentence is missing, or the declaration does not allow a change.
    """
    spec = dataset.conventions.action
    changes: list[Change] = []
    if instructions is not None:
        _require_sentences(dataset, instructions)
    if pairs is not None and actions is None:
        remedy = "Say what they are for (--actions), or leave them out."
        raise UserError(describe("pairs", f"{dict(pairs)}", "none without actions", remedy))
    if actions is not None:
        change, spec = _action_change(dataset.conventions, actions, pairs)
        changes.append(change)
    if gripper is not None:
        change, spec = _gripper_change(spec, gripper)
        changes.append(change)
    num_dropped = int(actions == "next-state")
    edits = [
        (
            index,
            Edit(
                rows=np.arange(dataset[index].num_steps - num_dropped),
                instruction=None if instructions is None else instructions[index],
                changes=tuple(changes),
            ),
        )
        for index in range(len(dataset))
    ]
    conventions = dataset.conventions.model_copy(update={"action": spec})
    return EditedDataset(dataset, edits, conventions)


def _action_change(
    conventions: Conventions, kind: ActionChange, pairs: Mapping[str, str] | None
) -> tuple[Change, ActionSpec]:
    """What to do with the actions of an episode, and what they are then."""
    action = conventions.action
    columns = _pairs(conventions, kind, pairs)
    references, low, high = list(action.references), list(action.low), list(action.high)
    for column, _ in columns:
        references[column] = "delta" if kind == "delta" else "absolute"
        low[column], high[column] = -np.inf, np.inf
    changed = action.model_copy(
        update={"references": tuple(references), "low": tuple(low), "high": tuple(high)}
    )
    match kind:
        # transposed, a column of the state is all its steps: each action relative to its own
        case "delta":
            return lambda actions, state: to_delta(actions, state.T, columns), changed
        case "absolute":
            return lambda actions, state: to_absolute(actions, state.T, columns), changed
        case "next-state":
            return partial(_next_state, columns), changed


def _next_state(
    pairs: Pairs, actions: npt.NDArray[np.floating], state: Floats
) -> npt.NDArray[np.floating]:
    """float64[t, a]: the paired columns are the state one step later; the last row stays."""
    changed = np.array(actions, dtype=np.float64)
    for action_column, state_column in pairs:
        changed[:-1, action_column] = state[1:, state_column]
    return changed


def _gripper_change(spec: ActionSpec, kind: GripperChange) -> tuple[Change, ActionSpec]:
    """What to do with the gripper columns, and what they are then."""
    if not spec.grippers:
        remedy = "Declare the gripper column with its open_value and closed_value."
        raise UserError(describe("action.grippers", "no gripper", "at least one", remedy))
    limits = [
        (spec.names.index(each.column), each.open_value, each.closed_value)
        for each in spec.grippers
    ]
    if kind == "binarize":
        return partial(_binarize, limits), spec
    grippers = tuple(
        each.model_copy(update={"open_value": each.closed_value, "closed_value": each.open_value})
        for each in spec.grippers
    )
    low, high = list(spec.low), list(spec.high)
    for column, opened, closed in limits:
        ends = opened + closed - high[column], opened + closed - low[column]
        low[column], high[column] = ends
    mirrored = {"grippers": grippers, "low": tuple(low), "high": tuple(high)}
    return partial(_mirror, limits), spec.model_copy(update=mirrored)


def _binarize(
    limits: Sequence[tuple[int, float, float]], actions: npt.NDArray[np.floating], state: Floats
) -> npt.NDArray[np.floating]:
    changed = np.array(actions, dtype=np.float64)
    for column, opened, closed in limits:
        is_open = np.abs(changed[:, column] - opened) < np.abs(changed[:, column] - closed)
        changed[:, column] = np.where(is_open, opened, closed)
    return changed


def _mirror(
    limits: Sequence[tuple[int, float, float]], actions: npt.NDArray[np.floating], state: Floats
) -> npt.NDArray[np.floating]:
    changed = np.array(actions, dtype=np.float64)
    for column, opened, closed in limits:
        changed[:, column] = opened + closed - changed[:, column]
    return changed


def _pairs(
    conventions: Conventions, kind: ActionChange, pairs: Mapping[str, str] | None
) -> list[tuple[int, int]]:
    """(action column, state column) by index; UserError for what cannot be changed so."""
    action, state = conventions.action, conventions.state
    if kind not in ACTION_CHANGES:
        hint = nearest(str(kind), ACTION_CHANGES)
        remedy = f"Choose one of these{f'; {hint}' if hint else '.'}"
        found, expected = repr(kind), f"one of {list(ACTION_CHANGES)}"
        raise UserError(describe("actions", found, expected, remedy))
    grippers = {each.column for each in action.grippers}
    if pairs is None:
        if action.rotation != "none" and kind != "next-state":
            found = f"rotation columns ({action.rotation})"
            remedy = "Name the columns that are positions or joints (--pair x=x --pair y=y)."
            expected = "columns that can be subtracted"
            raise UserError(describe("action.rotation", found, expected, remedy))
        pairs = {name: name for name in action.names if name in {*state.names} - grippers}
    faults = [
        describe(
            f"pair {a}={s}", f"no column {name!r}", f"one of {list(names)}", _hint(name, names)
        )
        for a, s in pairs.items()
        for name, names in ((a, action.names), (s, state.names))
        if name not in names
    ]
    if not pairs:
        found = f"no name that actions {list(action.names)} and state {list(state.names)} share"
        faults.append(describe("pairs", found, "at least one pair", "Name them (--pair a=s)."))
    raise_faults(faults)
    known = [(action.names.index(a), state.names.index(s)) for a, s in pairs.items()]
    wanted = {"delta": "absolute", "absolute": "delta"}.get(kind)
    remedy = "Leave the column out, or correct its declaration."
    raise_faults(
        describe(
            f"action column {action.names[a]!r}",
            f"reference {action.references[a]!r}",
            repr(wanted),
            remedy,
        )
        for a, _ in known
        if wanted is not None and action.references[a] != wanted
    )
    raise_faults(_unit_faults(conventions, known))
    return known


def _unit_faults(conventions: Conventions, pairs: Pairs) -> list[str]:
    """Paired columns that cannot be subtracted or exchanged, for they are measured differently."""
    action, state = conventions.action, conventions.state
    remedy = "Map the columns to one unit and frame first, or correct the declaration."
    faults = [
        describe(
            f"action column {action.names[a]!r}",
            f"unit {action.units[a]!r}",
            f"{state.units[s]!r} as the state column {state.names[s]!r} has, and a known one",
            remedy,
        )
        for a, s in pairs
        if action.units[a] != state.units[s] or action.units[a] == "unknown"
    ]
    if action.frame != state.frame:
        found, expected = f"frame {action.frame!r}", f"{state.frame!r} as the state has"
        faults.append(describe("actions", found, expected, remedy))
    return faults


def _hint(name: str, names: Sequence[str]) -> str:
    hint = nearest(name, names)
    return f"Correct the name{f'; {hint}' if hint else '.'}"


def _require_sentences(dataset: Dataset, sentences: Sequence[str]) -> None:
    remedy = "Give every episode a sentence, or leave it out first (robot-data filter)."
    raise_faults(
        describe(dataset[index].name, shown(sentence), "a sentence", remedy)
        for index, sentence in enumerate(sentences)
        if not 0 < len(sentence.strip()) <= MAX_SENTENCE
    )


def _rows(text: str) -> list[list[str]]:
    """The rows of a CSV, without blank ones and without a first one that names the columns."""
    rows = [row for row in csv.reader(text.splitlines()) if row]
    return rows[1:] if rows[:1] == [["name", "text"]] else rows


def _read_table(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8")
        table = json.loads(text) if path.suffix == ".json" else dict(_rows(text))
    except (OSError, ValueError) as error:
        expected, remedy = "JSON {name: text}, or CSV lines of name,text", "Mend the table."
        raise UserError(describe(str(path), str(error), expected, remedy)) from error
    is_text = isinstance(table, dict) and all(isinstance(v, str) for v in table.values())
    if not is_text:
        remedy = "Write one sentence a name."
        raise UserError(describe(str(path), shown(table), "names with sentences", remedy))
    return table
