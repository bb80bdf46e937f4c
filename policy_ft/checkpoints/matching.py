"""Which tensor of a file belongs to which of a model, and every reason why they do not match."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn

from policy_ft.checkpoints.image_sizes import Regridded
from policy_ft.checkpoints.tensor_files import StoredTensor
from policy_ft.config.resize import ModelResize
from policy_ft.errors import describe, nearest, raise_faults
from policy_ft.models.leaves import adapted_names
from policy_ft.policy import LoadReport, Reshaped

MAX_NAMED_FAULTS = 8
"""Of one kind; more are told as one fault, for they have one cause: another model's file."""

ONE_CHECKPOINT = "Take weights and settings (model.json, config.json) from one checkpoint"

RESIZED_AXES: dict[str, dict[str, int]] = {
    "action_dim": {
        "expert.action_in_proj.weight": 1,
        "expert.action_out_proj.weight": 0,
        "expert.action_out_proj.bias": 0,
    },
    "state_dim": {"expert.state_proj.weight": 1, "backbone.state_proj.weight": 1},
    "num_cameras": {"backbone.image_positions": 0},
}
"""Size of a ModelResize -> tensors that depend on it, and on which axis."""


@dataclass(frozen=True)
class Names:
    """How the tensors of a model are called in a file, in both directions.

    Attributes:
        live: name in the file -> name in the model, None for a tensor that is of no use in it. Two
            names in the file may be one tensor of the model.
        stored: name in the model -> name in the file; for messages.
    """

    live: Callable[[str], str | None] = str
    stored: Callable[[str], str] = str


@dataclass(frozen=True)
class Match:
    """Model tensor name -> names in the file to read it from, and the report about all of them.

    Several names are one tied tensor that was stored more than once.
    """

    sources: dict[str, tuple[str, ...]]
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
    stored: Mapping[str, StoredTensor],
    model: nn.Module,
    where: str,
    *,
    init_missing: Sequence[str] | None = (),
    names: Names | None = None,
    resize: ModelResize | None = None,
    regrid: Mapping[str, Regridded] | None = None,
) -> Match:
    """The source of every tensor of the model.

    Args:
        stored: what the file holds.
        model: what is to be filled.
        where: how messages call the file.
        init_missing: patterns of names of the model that may be absent from the file; None where
            nobody can give any.
        names: how the file calls the model's tensors; the same if not given.
        resize: the sizes that the model has by request and the file need not have.
        regrid: name in the model -> how it is read for another image size.

    Raises:
        UserError: a tensor is missing, unexpected, of another shape or kind of number, or a pattern
            of init_missing fits no missing tensor; all of them, with the nearest names.
    """
    names = names or Names()
    sources, unexpected, dropped = _sources(stored, model, names.live)
    tensors = own_tensors(model)
    missing = [name for name in tensors if name not in sources]
    allowed = [n for n in missing if any(fnmatchcase(n, pattern) for pattern in init_missing or ())]
    comparison = _Comparison(
        where,
        stored,
        tensors,
        names,
        _resizable_axes(resize),
        regrid or {},
        init_missing is not None,
    )
    raise_faults(
        [
            *comparison.missing_faults([n for n in missing if n not in allowed], unexpected),
            *comparison.unexpected_faults(unexpected, missing),
            *comparison.shape_faults(sources),
            *_pattern_faults(init_missing or (), missing),
        ]
    )
    aliases = [name for all_names in _names_by_tensor(model).values() for name in all_names[1:]]
    aliases += [name for all_names in sources.values() for name in all_names[1:]]
    report = LoadReport(
        loaded=tuple(name for name in tensors if name in sources),
        missing=tuple(allowed),
        tied=tuple(dict.fromkeys(aliases)),
        reshaped=comparison.reshaped(sources),
        dropped=tuple(dropped),
    )
    return Match(sources, report)


def _sources(
    stored: Mapping[str, StoredTensor], model: nn.Module, live: Callable[[str], str | None]
) -> tuple[dict[str, tuple[str, ...]], list[str], list[str]]:
    """Model tensor -> names in the file; names the model does not know; names of no use."""
    first_name = {name: first for first, names in _names_by_tensor(model).items() for name in names}
    sources: dict[str, tuple[str, ...]] = {}
    unexpected, dropped = [], []
    for name in stored:
        target = live(name)
        if target is None:
            dropped.append(name)
        elif target not in first_name:
            unexpected.append(name)
        else:
            first = first_name[target]
            sources[first] = (*sources.get(first, ()), name)
    return sources, unexpected, dropped


def _names_by_tensor(model: nn.Module) -> dict[str, list[str]]:
    """First name of every tensor -> all of its names."""
    first_name: dict[int, str] = {}
    names: dict[str, list[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        names.setdefault(first_name.setdefault(id(tensor), name), []).append(name)
    return names


def _resizable_axes(resize: ModelResize | None) -> dict[str, int]:
    """Tensor -> the axis on which it may differ from the file."""
    asked = resize.asked if resize is not None else {}
    axes = {name: axis for size in asked for name, axis in RESIZED_AXES.get(size, {}).items()}
    return axes | {adapted: a for name, a in axes.items() for adapted in adapted_names(name, a)}


@dataclass(frozen=True)
class _Comparison:
    """A file and a model, and what is wrong between them."""

    where: str
    stored: Mapping[str, StoredTensor]
    tensors: Mapping[str, Tensor]
    names: Names
    axes: Mapping[str, int]
    regrid: Mapping[str, Regridded]
    may_lack: bool

    def missing_faults(self, missing: Sequence[str], unexpected: Sequence[str]) -> list[str]:
        """Faults of model tensors that the file lacks; unexpected: its names that are left."""
        remedy = "Use a complete checkpoint: copy this one again, or take another"
        if self.may_lack:
            remedy += "; only training may start there at random (policy.init_missing in a run)"
        if len(missing) > MAX_NAMED_FAULTS:
            found = f"nothing for {len(missing)} of the model's {len(self.tensors)} tensors, e.g. "
            found += self._listed([self.names.stored(name) for name in missing], unexpected)
            return [describe(self.where, found, "all of them", f"{remedy}.")]
        faults = []
        for name in missing:
            original = self.names.stored(name)
            expected = f"one of shape {list(self.tensors[name].shape)}"
            hint = nearest(original, unexpected)
            full = f"{remedy}; {hint}" if hint else f"{remedy}."
            faults.append(describe(self._place(original, name), "no such tensor", expected, full))
        return faults

    def unexpected_faults(self, unexpected: Sequence[str], missing: Sequence[str]) -> list[str]:
        """Faults of file tensors that the model lacks; missing: its tensors that are left."""
        candidates = [self.names.stored(name) for name in missing]
        remedy = f"{ONE_CHECKPOINT}, or remove the tensor"
        if len(unexpected) > MAX_NAMED_FAULTS:
            found = f"{len(unexpected)} of {len(self.stored)} tensors that the model does not have"
            found += f", e.g. {self._listed(unexpected, candidates)}"
            expected = "only tensors of the model"
            return [describe(self.where, found, expected, f"{remedy}s.")]
        faults = []
        for name in unexpected:
            hint = nearest(name, candidates)
            full = f"{remedy}; {hint}" if hint else f"{remedy}."
            found, expected = "a tensor of that name", "none, for the model has no such parameter"
            place = self._place(name, self.names.live(name) or name)
            faults.append(describe(place, found, expected, full))
        return faults

    def shape_faults(self, sources: Mapping[str, Sequence[str]]) -> list[str]:
        """Faults of tensors that are there in another shape or kind of number."""
        wrong = [
            (name, source)
            for name, originals in sources.items()
            for source in originals
            if not self._fits(name, self.stored[source])
        ]
        remedy = f"{ONE_CHECKPOINT}."
        if any(name in axes for name, _ in wrong for axes in RESIZED_AXES.values()):
            remedy += " For other sizes of actions, state or cameras, ask with resize."
        if len(wrong) > MAX_NAMED_FAULTS:
            examples = [
                f"{source} {self._found(source)} for {self._expected(name)}"
                for name, source in wrong[:3]
            ]
            found = f"{len(wrong)} tensors of other shapes, e.g. {'; '.join(examples)}"
            return [describe(self.where, found, "the shapes of the model", remedy)]
        return [
            describe(self._place(source, name), self._found(source), self._expected(name), remedy)
            for name, source in wrong
        ]

    def reshaped(self, sources: Mapping[str, Sequence[str]]) -> tuple[Reshaped, ...]:
        """The tensors whose shape differs from the file's because that was asked for."""
        shapes = [
            Reshaped(name, self.stored[originals[0]].shape, tuple(self.tensors[name].shape))
            for name, originals in sources.items()
        ]
        return tuple(each for each in shapes if each.stored != each.live)

    def _fits(self, name: str, found: StoredTensor) -> bool:
        wanted, axis = tuple(self.tensors[name].shape), self.axes.get(name)
        if found.is_floating_point != self.tensors[name].is_floating_point():
            return False
        if len(found.shape) != len(wanted):
            return False
        free = set() if axis is None else {axis}
        grid = self.regrid.get(name)
        if grid is not None:
            free.add(grid.axis)
        sizes = enumerate(zip(found.shape, wanted, strict=True))
        is_as_wanted = all(a == b or place in free for place, (a, b) in sizes)
        is_gridded = grid is None or grid.fits(found.shape[grid.axis], wanted[grid.axis])
        return is_as_wanted and is_gridded

    def _found(self, source: str) -> str:
        return _in_words(self.stored[source])

    def _expected(self, name: str) -> str:
        tensor = self.tensors[name]
        return _in_words(StoredTensor(tuple(tensor.shape), tensor.is_floating_point()))

    def _place(self, original: str, live: str) -> str:
        """Where a tensor is: the file, its name there and, when it differs, its name here."""
        here = "" if original == live else f" ({live} in the model)"
        return f"{self.where}, {original}{here}"

    def _listed(self, names: Sequence[str], candidates: Sequence[str]) -> str:
        """The first three names, each with the nearest candidate."""
        shown = []
        for name in names[:3]:
            hint = nearest(name, candidates)
            shown.append(f"{name!r} ({hint})" if hint else repr(name))
        return ", ".join(shown)


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
