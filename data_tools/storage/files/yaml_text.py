"""YAML that a person wrote, or that came with data somebody else made."""

from collections import Counter
from typing import Any

import yaml

from data_tools.errors import UserError, describe, shown

MAX_BYTES = 1 << 17
# What PyYAML raises of text: its own errors, and those of a number, date or tag that is none.
_UNREADABLE = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError)


class _NotPlainError(ValueError):
    """YAML that is well formed and not taken; says what to do besides."""

    def __init__(self, found: str, mark: Any, remedy: str) -> None:
        super().__init__(f"line {mark.line + 1}: {found}")
        self.remedy = remedy


class _PlainLoader(yaml.SafeLoader):
    """Each key once, and no aliases: ten lines of them stand for more than memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise _NotPlainError("an alias (*name)", mark, "Write each value out.")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        counts = Counter(key.value for key in keys)
        repeated = [key for key in keys if counts[key.value] > 1]
        if repeated:
            name, mark = repeated[0].value, repeated[1].start_mark
            remedy = f"Join what stands below the two keys {name!r} under one."
            raise _NotPlainError(f"the key {name!r} again", mark, remedy)
        return super().construct_mapping(node, deep)


def mapping_in(where: str, text: bytes, keys: list[str]) -> dict[Any, Any]:
    """The mapping in a YAML text of at most 128 KiB; every key and value stands where it counts.

    Args:
        where: how messages call the text.
        text: UTF-8.
        keys: what may be in it, for messages; that nothing else is, is not checked.

    Raises:
        UserError: it is too long, no YAML or no mapping, or has a key twice or aliases (`*name`).
    """
    if len(text) > MAX_BYTES:
        found, remedy = f"{len(text)} bytes", "Keep what declares the data, and nothing else."
        raise UserError(describe(where, found, f"at most {MAX_BYTES}", remedy))
    try:
        content = yaml.load(text.decode("utf-8"), Loader=_PlainLoader)
    except _UNREADABLE as error:
        expected = "a mapping with each key once and without aliases"
        remedy = error.remedy if isinstance(error, _NotPlainError) else "Mend the file there."
        raise UserError(describe(where, _told(error), expected, remedy)) from error
    if not isinstance(content, dict):
        remedy = f"Write the keys {keys}."
        found = "nothing" if content is None else shown(content)
        raise UserError(describe(where, found, "a mapping", remedy))
    return content


def _told(error: Exception) -> str:
    """What is wrong and in which line, without the library's excerpt of the text."""
    if isinstance(error, _NotPlainError):
        return str(error)
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        problem = getattr(error, "problem", "what no YAML has")
        return f"no readable YAML (line {mark.line + 1}, column {mark.column + 1}: {problem})"
    return f"no readable YAML ({type(error).__name__}: {shown(' '.join(str(error).split()))})"
