"""YAML file and `a.b=value` overrides -> RunConfig: all faults at once, every value's origin."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from policy_ft.config.data import DataConfig
from policy_ft.config.run import RunConfig
from policy_ft.errors import KeyPath, UserError, describe, dotted, raise_faults, validation_faults

MAX_VALUES: Final = 100_000


@dataclass(frozen=True)
class ConfigDocument:
    """What a file and its overrides say, before it is known to be a valid run.

    Attributes:
        path: of the file.
        values: the mapping the file holds, overrides applied.
        lines: key path -> line of the file, counted from 1.
        overrides: key paths set on the command line.
    """

    path: Path
    values: dict[str, Any]
    lines: dict[KeyPath, int]
    overrides: tuple[KeyPath, ...]

    def origin(self, key: KeyPath) -> str:
        """Where the value at a key path comes from: '--set', 'file:line' or 'default'."""
        if not _is_given(self.values, key):
            return "default"
        return "--set" if self._overridden(key) else f"{self.path}{self._line(key)}"

    def place(self, key: KeyPath) -> str:
        """How messages call a key path: '--set optimizer.lr' or 'runs/a.yaml:12, optimizer.lr'."""
        if not key:
            return str(self.path)
        if self._overridden(key):
            return f"--set {dotted(key)}"
        below = next((each for each in self.overrides if each[: len(key)] == key), None)
        if below is not None and key not in self.lines:
            return f"--set {dotted(below)}"
        return f"{self.path}{self._line(key)}, {dotted(key)}"

    def _overridden(self, key: KeyPath) -> bool:
        return any(key[:end] in self.overrides for end in range(1, len(key) + 1))

    def _line(self, key: KeyPath) -> str:
        """The line of the nearest enclosing key, as ':12'; '' when the file holds none."""
        known = (key[:end] for end in range(len(key), 0, -1) if key[:end] in self.lines)
        return next((f":{self.lines[each]}" for each in known), "")


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The validated run of a YAML file.

    Args:
        path: YAML file.
        overrides: "a.b=value" with a YAML value, applied after the file; a number walks into a
            list.

    Raises:
        UserError: a missing or malformed file, a duplicate or unknown key, a refused value; all of
            them at once.
    """
    return validate_config(read_config(path, overrides))


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> ConfigDocument:
    """The file with its overrides applied, not yet validated; raises UserError like load_config."""
    path = Path(path)
    values, lines = _read_yaml(path)
    keys = tuple(_apply(values, override) for override in overrides)
    return ConfigDocument(path, values, lines, keys)


def validate_config(source: ConfigDocument) -> RunConfig:
    """The run that a source describes; UserError names file, line and key path of every fault."""
    try:
        return RunConfig.model_validate(source.values)
    except ValidationError as error:
        raise UserError(validation_faults(error, RunConfig, source.place)) from None


def data_alone(source: ConfigDocument) -> tuple[DataConfig, int] | None:
    """The settings of the data and the seed, where other settings are refused; None if these are.

    Args:
        source: whose settings as a whole are not valid.
    """
    seed = source.values.get("seed", 0)
    try:
        data = DataConfig.model_validate(source.values.get("data"))
    except ValidationError:
        return None
    return data, seed if isinstance(seed, int) else 0


def dump_config(config: RunConfig) -> str:
    """All settings of a run as YAML that load_config reads back to an equal RunConfig."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, width=120)


def resolved_with_origin(config: RunConfig, source: ConfigDocument) -> list[tuple[str, Any, str]]:
    """Every setting as (key, value, origin): origin is '--set', 'file:line' or 'default'."""
    return [
        (dotted(key), value, source.origin(key))
        for key, value in _leaves(config.model_dump(mode="json"))
    ]


class _Yaml12Loader(yaml.SafeLoader):
    """SafeLoader whose only booleans are true and false, as in YAML 1.2: `off` is a word."""


_Yaml12Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag != "tag:yaml.org,2002:bool" or first in "tTfF"
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    text = _read_text(path)
    try:
        node = yaml.compose(text, Loader=_Yaml12Loader)
        _require_bounded(node, path)
        values = yaml.load(text, Loader=_Yaml12Loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number or a date that is none
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UserError(
            describe(
                where,
                f"malformed YAML ({getattr(error, 'problem', str(error)[:200])})",
                "YAML",
                "Correct the line.",
            )
        ) from None
    if node is None or not isinstance(values, dict):
        raise UserError(
            describe(
                str(path),
                "nothing" if values is None else f"{values!r}",
                "a mapping of settings",
                "Write `key: value` lines; see configs/.",
            )
        )
    lines: dict[KeyPath, int] = {}
    raise_faults(_index_lines(node, (), lines, path))
    return values, lines


def _require_bounded(node: yaml.Node | None, path: Path) -> None:
    """UserError where aliases in aliases stand for more values than memory holds."""
    if node is not None and _num_values(node, {}) > MAX_VALUES:
        found, remedy = "aliases (*name) that repeat without end", "Write the values out."
        raise UserError(describe(str(path), found, f"at most {MAX_VALUES} values", remedy))


def _num_values(node: yaml.Node, known: dict[int, float]) -> float:
    """Values below a node with every alias written out; infinite where one leads to itself."""
    if id(node) not in known:
        known[id(node)] = math.inf
        below: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            below = [each for pair in node.value for each in pair]
        elif isinstance(node, yaml.SequenceNode):
            below = node.value
        known[id(node)] = 1 + sum(_num_values(each, known) for each in below)
    return known[id(node)]


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            describe(
                str(path),
                error.strerror or str(error),
                "a YAML file",
                "Correct the path of the settings file.",
            )
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(
            describe(
                str(path),
                f"bytes that are not UTF-8 text ({error})",
                "a YAML file",
                "Give a text file.",
            )
        ) from None


def _index_lines(
    node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], file: Path
) -> Iterator[str]:
    """Fill `lines`; yield a fault for every key that a mapping holds twice."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            line = key.start_mark.line + 1
            if here in lines:
                yield describe(
                    f"{file}:{line}, {dotted(here)}",
                    f"the key {key.value!r} again (first on line {lines[here]})",
                    "each key once",
                    "Remove one of the two lines.",
                )
            lines[here] = line
            yield from _index_lines(value, here, lines, file)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            yield from _index_lines(item, (*path, index), lines, file)


def _apply(values: dict[str, Any], override: str) -> KeyPath:
    """Set one "a.b=value" in place; the key path it set."""
    name, equals, text = override.partition("=")
    if not equals or not all(name.split(".")):
        raise UserError(
            describe(
                f"--set {override}",
                repr(override),
                "key.path=value",
                "Write e.g. --set optimizer.lr=1e-4.",
            )
        )
    key: KeyPath = tuple(int(part) if part.isdigit() else part for part in name.split("."))
    try:
        value = yaml.load(text, Loader=_Yaml12Loader)
    except (yaml.YAMLError, ValueError):
        raise UserError(
            describe(
                f"--set {name}", repr(text), "a YAML value", "Quote it, e.g. --set 'a.b=[1, 2]'."
            )
        ) from None
    target: Any = values
    for depth, part in enumerate(key[:-1]):
        if isinstance(target, dict):
            target = target.setdefault(part, {})
        else:
            target = _item(target, part, override, key[:depth])
    _store(target, key, value, override)
    return key


def _store(target: Any, key: KeyPath, value: Any, override: str) -> None:
    if not isinstance(target, dict):
        _item(target, key[-1], override, key[:-1])
    target[key[-1]] = value


def _item(target: Any, part: str | int, override: str, parent: KeyPath) -> Any:
    if isinstance(target, list) and isinstance(part, int) and part < len(target):
        return target[part]
    size = f"a list of {len(target)}" if isinstance(target, list) else repr(target)
    raise UserError(
        describe(
            f"--set {override}",
            f"{size} at {dotted(parent)}",
            f"a block that holds {part!r}",
            f"Set {dotted(parent)} as a whole, e.g. --set '{dotted(parent)}={{...}}'.",
        )
    )


def _is_given(values: Any, key: KeyPath) -> bool:
    """Whether the source holds this key, or a plain value where the settings have a block."""
    for part in key:
        if isinstance(values, dict):
            if part not in values:
                return False
            values = values[part]
        elif isinstance(values, list) and isinstance(part, int):
            values = values[part]
        else:
            return True
    return True


def _leaves(value: Any, key: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Scalars, and lists without blocks in them, with their key paths."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _leaves(item, (*key, name))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(item, (*key, index))
    else:
        yield key, value
