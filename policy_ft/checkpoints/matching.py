"""Which tensor of a file belongs to which of a model, and every reason why they do not match."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from torch import Tensor, nn

from policy_ft.errors import describe, nearest, raise_faults
from policy_ft.policy import LoadReport


@dataclass(frozen=True)
class StoredTensor:
    """What a file's header says about a tensor."""

    shape: tuple[int, ...]
    is_floating_point: bool


@dataclass(frozen=True)
class Match:
    """Model tensor name -> name in the file to read it from, and the report about all of them."""

    sources: dict[str, str]
    report: LoadReport


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and saved buffers by name; of tensors that share memory, the first name alone."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor
    return tensors


def match_tensors(
    stored: Mapping[str, StoredTensor], model: nn.Module, init_missing: Sequence[str], path: Path
) -> Match:
    """The source of every tensor of the model.

    Args:
        stored: what the file holds.
        model: what is to be filled.
        init_missing: patterns of names that may be absent from the file.
        path: how messages call the file.

    Raises:
        UserError: a tensor is missing, unexpected, of another shape or kind of number, or a pattern
            of init_missing fits no missing tensor; all of them, with the nearest names.
    """
    names_of = _names_by_tensor(model)
    tensors = own_tensors(model)
    sources, missing = {}, []
    for name in tensors:
        found = [each for each in names_of[name] if each in stored]
        if found:
            sources[name] = found[0]
        else:
            missing.append(name)
    known = {name for names in names_of.values() for name in names}
    unexpected = [name for name in stored if name not in known]
    allowed = [n for n in missing if any(fnmatchcase(n, pattern) for pattern in init_missing)]
    raise_faults(
        [
            *_missing_faults([n for n in missing if n not in allowed], unexpected, tensors, path),
            *_unexpected_faults(unexpected, missing, path),
            *_shape_faults(sources, stored, tensors, path),
            *_pattern_faults(init_missing, missing),
        ]
    )
    tied = [name for names in names_of.values() for name in names[1:]]
    return Match(sources, LoadReport(tuple(sources), missing=tuple(allowed), tied=tuple(tied)))


def _names_by_tensor(model: nn.Module) -> dict[str, list[str]]:
    """First name of every tensor -> all of its names."""
    first_name: dict[int, str] = {}
    names: dict[str, list[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        names.setdefault(first_name.setdefault(id(tensor), name), []).append(name)
    return names


def _missing_faults(
    missing: Sequence[str], unexpected: Sequence[str], tensors: Mapping[str, Tensor], path: Path
) -> list[str]:
    faults = []
    for name in missing:
        hint = nearest(name, unexpected)
        remedy = "Use a complete checkpoint, or allow random weights there with init_missing"
        remedy += f"; {hint}" if hint else "."
        expected = f"one of shape {list(tensors[name].shape)}"
        faults.append(describe(f"{path}, {name}", "no such tensor", expected, remedy))
    return faults


def _unexpected_faults(unexpected: Sequence[str], missing: Sequence[str], path: Path) -> list[str]:
    faults = []
    for name in unexpected:
        hint = nearest(name, missing)
        remedy = "Use the model.json these weights belong to, or remove the tensor"
        remedy += f"; {hint}" if hint else "."
        found, expected = "a tensor of that name", "none, for the model has no such parameter"
        faults.append(describe(f"{path}, {name}", found, expected, remedy))
    return faults


def _shape_faults(
    sources: Mapping[str, str],
    stored: Mapping[str, StoredTensor],
    tensors: Mapping[str, Tensor],
    path: Path,
) -> list[str]:
    faults = []
    for name, source in sources.items():
        found = stored[source]
        expected = StoredTensor(tuple(tensors[name].shape), tensors[name].is_floating_point())
        if found != expected:
            remedy = "Use the model.json these weights belong to."
            where = f"{path}, {source}"
            faults.append(describe(where, _in_words(found), _in_words(expected), remedy))
    return faults


def _in_words(tensor: StoredTensor) -> str:
    return f"{'floats' if tensor.is_floating_point else 'integers'} {list(tensor.shape)}"


def _pattern_faults(patterns: Sequence[str], missing: Sequence[str]) -> list[str]:
    faults = []
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in missing):
            found = f"{pattern!r}, which fits none of the {len(missing)} missing tensors"
            remedy = "Remove the pattern or correct it; nothing it names is missing."
            faults.append(describe("init_missing", found, "patterns that fit some", remedy))
    return faults
