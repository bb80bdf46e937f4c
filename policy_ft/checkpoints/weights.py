"""Tensors in safetensors files: strict reading, and a hash of all weights."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from policy_ft.checkpoints.matching import StoredTensor, match_tensors, own_tensors
from policy_ft.errors import UserError, describe
from policy_ft.policy import LoadReport

GIT_LFS_HEAD = b"version https://git-lfs"


def write_weights(path: Path, model: nn.Module, replaced: Mapping[str, Tensor]) -> str:
    """Write all weights of a model, some replaced by others; returns their weights_hash.

    Args:
        path: of the file.
        model: whose parameters and saved buffers are written; tensors that share memory once.
        replaced: name -> tensor to write in place of the model's own, e.g. running averages.
    """
    tensors = own_tensors(model)
    strangers = sorted(set(replaced) - set(model.state_dict()))
    if strangers:
        raise ValueError(
            f"weights {strangers} are not the model's; it has e.g. {list(tensors)[:3]}"
        )
    written = {
        name: replaced.get(name, tensor).detach().cpu().contiguous()
        for name, tensor in tensors.items()
    }
    save_file(written, path)
    return weights_hash(written)


def read_weights(
    files: Sequence[Path],
    model: nn.Module,
    init_missing: Sequence[str] = (),
    rename: Callable[[str], str | None] = str,
) -> LoadReport:
    """Fill a model from files, cast to the model's types.

    Args:
        files: safetensors files that hold the tensors between them.
        model: in host memory; left untouched when names, shapes or types do not match.
        init_missing: patterns of names that keep the model's random weights when the files lack
            them.
        rename: name in the files -> name in the model, or None for a tensor that is known to be of
            no use here; such tensors are listed as dropped.

    Raises:
        UserError: no such file, a damaged file, or tensors that do not match, all of them; or the
            first tensor with values that are not finite.
    """
    origin: dict[str, tuple[Any, str]] = {}
    dropped: list[str] = []
    with ExitStack() as stack:
        for path in files:
            file = _open_weights(path, stack)
            for name in file.keys():  # noqa: SIM118 - a safetensors file is not a mapping
                target = rename(name)
                if target is None:
                    dropped.append(name)
                else:
                    origin[target] = (file, name)
        stored = {target: _stored(file.get_slice(name)) for target, (file, name) in origin.items()}
        match = match_tensors(stored, model, init_missing, files[0])
        tensors = own_tensors(model)
        with torch.no_grad():
            for name, source in match.sources.items():
                file, original = origin[source]
                tensors[name].copy_(_finite(file.get_tensor(original), f"{files[0]}, {original}"))
    return replace(match.report, dropped=tuple(dropped))


def _finite(tensor: Tensor, where: str) -> Tensor:
    """The tensor; UserError when it holds values that no training leaves behind unnoticed."""
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        count = int((~tensor.isfinite()).sum())
        found = f"{count} of {tensor.numel()} values that are not finite"
        remedy = "Use an earlier checkpoint, or copy this one again."
        raise UserError(describe(where, found, "finite weights", remedy))
    return tensor


def _open_weights(path: Path, stack: ExitStack) -> Any:
    _check_is_weights(path)
    try:
        return stack.enter_context(safe_open(path, framework="pt"))
    except SafetensorError as error:
        found = f"a damaged file of {path.stat().st_size} bytes ({error})"
        raise UserError(
            describe(str(path), found, "complete safetensors", "Copy or download it again.")
        ) from None


def weights_hash(weights: nn.Module | Mapping[str, Tensor]) -> str:
    """SHA-256 in hex over name, type, shape and bytes of all weights, in the order of their names.

    Args:
        weights: a model, or its tensors by name; tensors that share memory count once.
    """
    tensors = own_tensors(weights) if isinstance(weights, nn.Module) else weights
    return _digest((name, tensors[name]) for name in sorted(tensors))


def stored_weights_hash(path: Path) -> str:
    """The weights_hash of a safetensors file's tensors, one of them in memory at a time."""
    with ExitStack() as stack:
        file = _open_weights(path, stack)
        return _digest((name, file.get_tensor(name)) for name in sorted(file.keys()))


def _digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, each in tensors:
        tensor = each.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _check_is_weights(path: Path) -> None:
    if not path.is_file():
        raise UserError(
            describe(
                str(path),
                "no such file",
                "the weights",
                "Copy the whole checkpoint directory again.",
            )
        )
    with path.open("rb") as file:
        head = file.read(len(GIT_LFS_HEAD))
    if head == GIT_LFS_HEAD:
        raise UserError(
            describe(
                str(path),
                "a Git LFS pointer",
                "the weights themselves",
                "Run `git lfs pull` there.",
            )
        )


def _stored(header: object) -> StoredTensor:
    shape, kind = header.get_shape(), header.get_dtype()  # type: ignore[attr-defined]
    return StoredTensor(tuple(shape), is_floating_point=kind.startswith(("F", "BF")))
