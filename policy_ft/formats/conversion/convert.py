"""Any checkpoint -> a directory of our own, openpi's or LeRobot's; tensors go from file to file."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from policy_ft.checkpoints.native import save_policy
from policy_ft.checkpoints.stored_model import DTYPES
from policy_ft.checkpoints.weights import weights_hash
from policy_ft.errors import UserError, describe
from policy_ft.formats.adapters import is_adapter
from policy_ft.formats.conversion.contents import (
    Contents,
    LazyTensors,
    open_contents,
)
from policy_ft.formats.conversion.merging import merged
from policy_ft.formats.conversion.writing import Converted, is_statistic, write_checkpoint
from policy_ft.formats.embodiments import load_embodiment
from policy_ft.formats.load import load_policy
from policy_ft.formats.locating import CheckpointFormat, locate

StoredDtype = Literal["stored", "float32", "bfloat16"]


def convert(
    checkpoint: str | Path,
    to: CheckpointFormat,
    directory: str | Path,
    *,
    dtype: StoredDtype = "stored",
    embodiment: str | None = None,
    tokenizer: str | Path | None = None,
    merge: bool = False,
    base: str | Path | None = None,
) -> Converted:
    """Write a checkpoint in another format, complete or not at all.

    No model is made: tensors go from file to file. Where the documents of a published checkpoint
    still describe the policy, they are written as they were; else new ones are.

    Args:
        checkpoint: of any format; as in `load_policy`.
        to: the format to write.
        directory: must not hold files yet.
        dtype: of the weights; "stored" keeps each tensor's own, "bfloat16" leaves in float32 what
            stays so in every model.
        embodiment: as in `load_policy`.
        tokenizer: as in `load_policy`.
        merge: whether adapters become part of the weights they stand beside.
        base: of a checkpoint that holds an adapter alone, as in `load_policy`.

    Raises:
        UserError: the checkpoint is not complete or damaged, the format has no place for such a
            policy, or the directory holds files or lies in the checkpoint.
    """
    robot = None if embodiment is None else load_embodiment(embodiment)
    if dtype not in ("stored", *DTYPES):
        expected = f"one of {['stored', *DTYPES]}"
        raise UserError(describe("dtype", repr(dtype), expected, "Choose one of these."))
    located, target = locate(checkpoint), Path(directory)
    _refuse_inside(target, located.directory)
    if is_adapter(located.directory):
        return _made_whole(
            located.directory, to, target, base, is_plain=dtype == "stored" and not merge
        )
    with open_contents(located, robot, tokenizer) as contents:
        contents = _in_dtype(merged(contents) if merge else contents, dtype)
        return write_checkpoint(contents, to, target, robot)


def _made_whole(
    adapter: Path, to: CheckpointFormat, target: Path, base: str | Path | None, *, is_plain: bool
) -> Converted:
    """An adapter and its base as one policy of our own."""
    if to != "native" or not is_plain:
        remedy = "Make it whole first: policy-ft convert ADAPTER DIRECTORY --to native."
        found = "an adapter without its base"
        raise UserError(describe(str(adapter), found, "a whole policy for this", remedy))
    policy = load_policy(adapter, dtype="stored", base=base)
    save_policy(policy, target)
    return Converted(target, policy.load_report.weights_sha256, ())


def _refuse_inside(target: Path, checkpoint: Path) -> None:
    """UserError for a place in the checkpoint, whose files would be read as parts of it."""
    if target.resolve().is_relative_to(checkpoint.resolve()):
        found, expected = f"a place in {checkpoint}", "one outside the checkpoint"
        raise UserError(describe(str(target), found, expected, "Choose another directory."))


def _in_dtype(contents: Contents, dtype: StoredDtype) -> Contents:
    """The contents with weights, and heads that go with them, of another type."""
    if dtype == "stored":
        return contents
    kept = contents.model.float32_names()
    tensors = {
        name: partial(tensor.to, torch.float32 if name in kept else DTYPES[dtype])
        for name, tensor in contents.tensors.items()
    }
    unused = {
        name: partial(tensor.to, tensor.dtype if is_statistic(name) else DTYPES[dtype])
        for name, tensor in contents.unused.items()
    }
    digest = weights_hash(LazyTensors(tensors))
    return replace(
        contents,
        tensors=LazyTensors(tensors),
        unused=LazyTensors(unused),
        weights_sha256=digest,
        is_of_other_dtype=True,
    )
