"""Unusable: files whose layout is not known or holds nothing to train on, told once for many."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.errors import UserError, describe
from data_tools.formats.layouts import native
from data_tools.formats.layouts.evidence import OpenFile, claim, is_mark, proof
from data_tools.formats.layouts.native import NATIVE_LAYOUT
from data_tools.formats.layouts.preset import presets
from data_tools.formats.layouts.sidecar import FOLDER_SIDECAR, SIDECAR_SUFFIX
from data_tools.rules import UNKNOWN_LAYOUT
from data_tools.storage.hdf5.links import member_names
from data_tools.storage.hdf5.outline import told_of_names


@dataclass(frozen=True)
class Unusable:
    """A file that cannot be read for what it is.

    Attributes:
        path: the file.
        top: the folder whose sidecar would speak for it.
        found: what it shows.
        expected: what files that are read show.
        remedy: what to do about this file alone.
        remedy_for_all: what to do about all such files below `top`.
    """

    path: Path
    top: Path
    found: str
    expected: str
    remedy: str
    remedy_for_all: str


class UnusableLayoutError(UserError):
    """A file cannot be read for what it is.

    Attributes:
        file: which, and why.
    """

    def __init__(self, file: Unusable) -> None:
        super().__init__(describe(str(file.path), file.found, file.expected, file.remedy))
        self.file = file

    def __reduce__(self) -> tuple[Any, Any]:
        """Rebuild from the file, which the sentence alone would lose."""
        return type(self), (self.file,)


def unrecognized(look: OpenFile, top: Path) -> Unusable:
    """A file of no known layout: what it has, and what comes nearest."""
    expected = (
        f"the marks of a known layout{_nearest_layout(look)}, the attribute "
        f"{native.CONVENTIONS_ATTRIBUTE!r} on /{NATIVE_LAYOUT.root}, or a sidecar"
    )
    rest = (
        "and say in it where things are and what they mean: nothing in the numbers says which way "
        "is open, up or absolute. `robot-data inspect {} --draft` writes it, with blanks."
    )
    names = ", ".join(told_of_names(member_names(look.file)))
    return Unusable(
        path=look.path,
        top=top,
        found=f"no conventions (in its root: {names or 'nothing'})",
        expected=expected,
        remedy=f"Write {look.path.name}{SIDECAR_SUFFIX} beside it {rest.format(look.path)}",
        remedy_for_all=f"Write {top / FOLDER_SIDECAR}, for all files below {top}, "
        f"{rest.format(top)}",
    )


def _nearest_layout(look: OpenFile) -> str:
    """The known layout of whose marks most are there, in words; '' where there is none of any.

    What must be absent counts as no mark: most layouts lack most things.
    """
    known = presets().values()
    met = {p.name: [proof(test, look) for test in p.evidence if is_mark(test)] for p in known}
    share = {name: sum(map(bool, proofs)) / len(proofs) for name, proofs in met.items() if proofs}
    general = {name for preset in known for name in preset.special_case_of}
    best = max(share, key=lambda name: (share[name], len(met[name]), name in general))
    if not share[best]:
        return ""
    has = ", ".join(filter(None, met[best]))
    lacks = "; ".join(claim(t) for t in presets()[best].evidence if proof(t, look) is None)
    return f" ({best} is nearest: the file {has}, but not {lacks})"


def told_together(errors: Iterable[UserError]) -> list[str]:
    """The faults of several files, such of a sidecar that speaks for them once.

    Those that are unusable in one way are told once, too, at the end.
    """
    faults: dict[str, None] = {}
    kinds: dict[tuple[Path, str], list[Unusable]] = {}
    for error in errors:
        if isinstance(error, UnusableLayoutError):
            kinds.setdefault((error.file.top, error.file.expected), []).append(error.file)
        else:
            faults |= dict.fromkeys(error.faults)
    return [*faults, *map(_told, kinds.values())]


def _told(alike: list[Unusable]) -> str:
    first, rule = alike[0], UNKNOWN_LAYOUT.name
    if len(alike) == 1:
        return describe(str(first.path), first.found, first.expected, first.remedy, rule)
    where = f"{first.path} and {len(alike) - 1} more files below {first.top}"
    return describe(where, first.found, first.expected, first.remedy_for_all, rule)
