"""Weights between files and models: strict reading in one pass, writing, and a hash of them all."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from policy_ft.checkpoints.image_sizes import Regridded
from policy_ft.checkpoints.matching import Match, Names, match_tensors, own_tensors
from policy_ft.checkpoints.tensor_files import (
    MAX_SHARD_BYTES,
    TensorFiles,
    TensorStore,
    lend_tensors,
    write_tensors,
)
from policy_ft.config.resize import ModelResize
from policy_ft.errors import UserError, describe, raise_faults
from policy_ft.policy import LoadReport
from policy_ft.ranks import own_part, own_rows

PIECE = 2**20
"""Elements that are checked at a time: few enough to stay in the processor's cache."""


def write_weights(
    path: Path,
    model: nn.Module,
    replaced: Mapping[str, Tensor],
    max_shard_bytes: int | None = MAX_SHARD_BYTES,
) -> str:
    """Write all weights of a model, some replaced by others; returns their weights_hash.

    Where processes hold a part of each, all others call `lend_weights` meanwhile.

    Args:
        path: of the file, or of what `write_tensors` names shards after.
        model: whose parameters and saved buffers are written; tensors that share memory once.
        replaced: name -> tensor to write in place of the model's own, e.g. running averages.
        max_shard_bytes: as in `write_tensors`.
    """
    tensors = own_tensors(model)
    strangers = sorted(set(replaced) - set(model.state_dict()))
    if strangers:
        raise ValueError(
            f"weights {strangers} are not the model's; it has e.g. {list(tensors)[:3]}"
        )
    written = {name: replaced.get(name, tensor) for name, tensor in tensors.items()}
    with TensorFiles(write_tensors(path, written, max_shard_bytes)) as stored:
        return weights_hash({name: stored.tensor(name) for name in stored.headers})


def lend_weights(model: nn.Module) -> None:
    """What every other process does while the first writes the weights; see `write_weights`."""
    lend_tensors(own_tensors(model))


def read_weights(
    files: Sequence[Path | TensorStore],
    model: nn.Module,
    init_missing: Sequence[str] | None = (),
    rename: Callable[[str], str | None] = str,
    *,
    stored_name: Callable[[str], str] = str,
    resize: ModelResize | None = None,
    regrid: Mapping[str, Regridded] | None = None,
) -> LoadReport:
    """Fill a model from files, cast to the model's types, in one pass over the files.

    Each tensor goes from the mapped file into the model's memory; nothing else of its size is made.

    Args:
        files: safetensors files and stores that hold the tensors between them.
        model: left untouched when names, shapes or types do not match.
        init_missing: patterns of names that keep the model's random weights when the files lack
            them; None where nobody can give any.
        rename: name in the files -> name in the model, or None for a tensor that is known to be of
            no use here; such tensors are listed as dropped. Two names in the files may be one
            tensor of the model if they hold the same bits; the second is listed as tied.
        stored_name: name in the model -> name in the files, the inverse of rename, for messages.
        resize: the sizes that the model has by request, and the files need not have.
        regrid: as in `match_tensors`.

    Raises:
        UserError: no such file, a damaged file, or tensors that do not match, all of them; or the
            first tensor with values that are not finite.
    """
    with TensorFiles(files) as stored:
        match = match_tensors(
            stored.headers,
            model,
            stored.where,
            init_missing=init_missing,
            names=Names(rename, stored_name),
            resize=resize,
            regrid=regrid,
        )
        _require_equal_twins(stored, match)
        digest = _fill(own_tensors(model), stored, match, regrid or {})
    return replace(match.report, weights_sha256=digest)


def weights_hash(weights: nn.Module | Mapping[str, Tensor]) -> str:
    """SHA-256 in hex over name, type, shape and bytes of all weights, in the order of their names.

    Args:
        weights: a model, or its tensors by name; tensors that share memory count once.
    """
    tensors = own_tensors(weights) if isinstance(weights, nn.Module) else weights
    digest = hashlib.sha256()
    for name in sorted(tensors):
        _feed(digest, name, tensors[name])
    return digest.hexdigest()


def _feed(digest: "hashlib._Hash", name: str, tensor: Tensor) -> None:
    digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
    digest.update(_bytes(tensor.detach().cpu().contiguous()).numpy().data)


def _bytes(tensor: Tensor) -> Tensor:
    """uint8[n], the memory of a contiguous tensor."""
    return tensor.reshape(-1).view(torch.uint8)


def _fill(
    tensors: Mapping[str, Tensor],
    stored: TensorFiles,
    match: Match,
    regrid: Mapping[str, Regridded],
) -> str:
    """Copies every tensor into the model; returns the weights_hash of the stored ones.

    The hash is computed beside the copying, in the order of names, which is very nearly their order
    in a file. Its thread does not wait for the copies, so where memory is slower than the disk it
    reads ahead for them.
    """
    digest = hashlib.sha256()
    names = sorted(match.sources)
    beside = ThreadPoolExecutor(max_workers=1)

    def feed(name: str) -> None:
        _feed(digest, name, stored.tensor(match.sources[name][0]))

    try:
        hashed = [beside.submit(feed, name) for name in names]
        with torch.no_grad():
            for name in names:
                source = match.sources[name][0]
                tensor = stored.tensor(source)
                require_finite(tensor, f"{stored.path(source)}, {source}")
                _copy(tensors[name], regrid[name](tensor) if name in regrid else tensor)
        for each in hashed:
            each.result()
    finally:
        beside.shutdown(cancel_futures=True)
    return digest.hexdigest()


def _copy(target: Tensor, stored: Tensor) -> None:
    """Fills the target; where its shape differs, what both have, and zero beyond."""
    if target.shape != stored.shape:
        target.zero_()
        kept = [slice(min(sizes)) for sizes in zip(target.shape, stored.shape, strict=True)]
        target, stored = target[tuple(kept)], stored[tuple(kept)]
    own_part(target).copy_(stored[own_rows(target)] if target.ndim else stored)


def require_finite(tensor: Tensor, where: str) -> None:
    """UserError for values that no training leaves behind unnoticed."""
    if not tensor.is_floating_point():
        return
    # a sum is finite only if all it adds are; where a sum overflows, every value is looked at
    pieces = torch.split(tensor.reshape(-1), PIECE)
    wide = None if tensor.itemsize > 1 else torch.float32  # torch cannot add 8-bit floats
    doubtful = [each for each in pieces if not each.sum(dtype=wide).isfinite()]
    count = sum(int((~each.float().isfinite()).sum()) for each in doubtful)
    if count:
        found = f"{count} of {tensor.numel()} values that are not finite"
        remedy = "Use an earlier checkpoint, or copy this one again."
        raise UserError(describe(where, found, "finite weights", remedy))


def _require_equal_twins(stored: TensorFiles, match: Match) -> None:
    """UserError where names of one tensor hold different bits."""
    faults = []
    for name, (first, *others) in match.sources.items():
        for other in others:
            one, two = stored.tensor(first), stored.tensor(other)
            if one.dtype == two.dtype and torch.equal(_bytes(one), _bytes(two)):
                continue
            found = f"other values than in {first}"
            expected = f"the same, for both are {name} of the model"
            remedy = (
                "Remove from the file the one that was not trained; see how the checkpoint was "
                "saved."
            )
            faults.append(describe(f"{stored.path(other)}, {other}", found, expected, remedy))
    raise_faults(faults)
