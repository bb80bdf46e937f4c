"""Checkpoints that hold only what differs from their base: adapters, and what learned beside them.

<directory>/
adapter.safetensors     every tensor that the base has not, or has with other bits
base.json               where the base is, and the hash of its weights
model.json, transforms.json, ...    as in every directory of ours
"""

from copy import deepcopy
from pathlib import Path
from typing import Final, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from policy_ft.checkpoints.native import ADAPTER_FILE, read_parts
from policy_ft.checkpoints.stored_model import DTYPES
from policy_ft.checkpoints.tensor_files import TensorFiles
from policy_ft.checkpoints.weights import weights_hash
from policy_ft.config.base import Settings
from policy_ft.config.edits import Edit
from policy_ft.config.model import ModelConfig
from policy_ft.errors import UserError, describe, raise_faults
from policy_ft.models.build import edit_model
from policy_ft.models.vla import VLAModel
from policy_ft.policy import LoadReport, Policy
from policy_ft.transforms.records import read_record

BASE_FILE: Final = "base.json"


class BaseRecord(Settings):
    """What an adapter stands on; base.json."""

    path: str = Field(description="Of the base, as it was given.")
    weights_sha256: str = Field(description="weights_hash of the base.")
    adapter_sha256: str = Field(description="weights_hash of adapter.safetensors.")


def is_adapter(directory: Path) -> bool:
    """Whether a directory of ours holds an adapter and no whole policy."""
    return (directory / BASE_FILE).is_file()


def read_base_record(directory: Path) -> BaseRecord:
    """What the adapter in a directory stands on; UserError where the file is damaged."""
    return read_record(directory / BASE_FILE, BaseRecord)


def extra_edits(config: ModelConfig, base: ModelConfig, where: str) -> tuple[Edit, ...]:
    """The edits of a model that its base has not.

    Raises:
        UserError: they differ in something else.
    """
    same = config.model_copy(update={"edits": base.edits}) == base
    if not same or config.edits[: len(base.edits)] != base.edits:
        found, expected = "a model of another architecture", "the base, or the base with edits"
        remedy = "Name the checkpoint that the policy was fine-tuned from."
        raise UserError(describe(where, found, expected, remedy))
    return config.edits[len(base.edits) :]


def on_base(
    directory: Path,
    base: Policy,
    dtype: Literal["float32", "bfloat16", "stored"] = "stored",
) -> Policy:
    """The policy of an adapter's directory; what it does not hold it shares with the base.

    The base stays as it is, and both may act side by side: several adapters on one base cost the
    memory of one base.

    Args:
        directory: of the adapter.
        base: that it stands on.
        dtype: of the adapter's own tensors, as in `load_policy`.

    Raises:
        UserError: it stands on another base, or its file is damaged.
    """
    record, parts = read_base_record(directory), read_parts(directory)
    found = base.provenance.get("weights_sha256")
    if found != record.weights_sha256:
        remedy = f"Give the base that it was cut from: {record.path}."
        expected = f"{record.weights_sha256}, on which this adapter learned"
        raise UserError(describe(f"{directory}, base", f"weights {found}", expected, remedy))
    edits = extra_edits(parts.config, base.config, f"{directory}, base")
    model = _sharing(base.model)
    changes = edit_model(model, edits, where=f"{directory}, edits", seed=0)
    with TensorFiles([directory / ADAPTER_FILE]) as stored:
        tensors = {name: stored.tensor(name) for name in stored.headers}
        if weights_hash(tensors) != record.adapter_sha256:
            remedy = "Copy the directory again; its files do not belong together."
            expected = f"those that {BASE_FILE} records"
            raise UserError(describe(stored.where, "other bytes", expected, remedy))
        _require_complete(model, tensors, changes.added, stored.where)
        kept_float32 = model.float32_names()
        for name, tensor in tensors.items():
            own = tensor.clone()
            if dtype != "stored" and own.is_floating_point():
                own = own.to(torch.float32 if name in kept_float32 else DTYPES[dtype])
            _put(model, name, own)
    model.autocast_dtype = parts.autocast_dtype
    kept = (name for name in changes.names.values() if name not in tensors)
    note = f"{len(tensors)} tensors of {directory} on those of {record.path}"
    report = LoadReport(
        loaded=(*kept, *tensors),
        weights_sha256=parts.provenance["weights_sha256"],
        notes=(note,),
    )
    return Policy(
        model.eval(),
        parts.transforms,
        parts.config,
        report,
        parts.provenance,
        source=parts.source,
        unused=base.unused,
    )


def _sharing(model: VLAModel) -> VLAModel:
    """The model again, of modules of its own and the same tensors."""
    tensors = (*model.parameters(), *model.buffers())
    return deepcopy(model, {id(tensor): tensor for tensor in tensors})


def _require_complete(
    model: VLAModel, tensors: dict[str, Tensor], added: tuple[str, ...], where: str
) -> None:
    own = model.state_dict(keep_vars=True)
    wrong = [
        name for name, tensor in tensors.items() if name in own and tensor.shape != own[name].shape
    ]
    remedy = "Copy the directory again."
    raise_faults(
        describe(where, found, "the tensors that its settings ask for", remedy)
        for found in (
            *(f"no {name!r}" for name in added if name not in tensors),
            *(f"the unknown {name!r}" for name in tensors if name not in own),
            *(f"another shape of {name!r}" for name in wrong),
        )
    )


def _put(model: VLAModel, name: str, tensor: Tensor) -> None:
    """A tensor of its own in place of the one that is shared."""
    owner, _, last = name.rpartition(".")
    module = model.get_submodule(owner)
    old = getattr(module, last)
    tensor = tensor.to(old.device)
    if isinstance(old, nn.Parameter):
        setattr(module, last, nn.Parameter(tensor, requires_grad=old.requires_grad))
    else:
        module._buffers[last] = tensor
