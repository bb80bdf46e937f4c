"""A whole policy cut down to what differs from its base: an adapter's directory."""

from dataclasses import dataclass
from pathlib import Path

import torch

from policy_ft.checkpoints.atomic import atomic_directory
from policy_ft.checkpoints.native import ADAPTER_FILE, write_records
from policy_ft.checkpoints.tensor_files import write_tensors
from policy_ft.checkpoints.weights import weights_hash
from policy_ft.errors import UserError, describe
from policy_ft.formats.adapters import BASE_FILE, BaseRecord, extra_edits
from policy_ft.formats.conversion.contents import Contents, open_contents, without_values
from policy_ft.formats.conversion.writing import policy_of
from policy_ft.formats.locating import locate
from policy_ft.models.build import edit_model
from policy_ft.transforms.records import write_record


@dataclass(frozen=True)
class Cut:
    """What was written.

    Attributes:
        directory: of the adapter.
        num_tensors: in it.
        share: of its bytes among those of the whole policy's weights.
    """

    directory: Path
    num_tensors: int
    share: float


def cut_adapter(
    checkpoint: str | Path, directory: str | Path, base: str | Path | None = None
) -> Cut:
    """Write what a policy has that its base has not, bound to the base by its hash.

    `load_policy` of the directory reads the base from where it was, or takes it as `base=`.

    Args:
        checkpoint: of our own, fine-tuned from the base.
        directory: must not hold files yet.
        base: of any format; where the checkpoint's run began if not given.

    Raises:
        UserError: the checkpoint is not of the base's architecture, notes no base, or nothing is
            left to share.
    """
    with open_contents(locate(checkpoint)) as whole:
        place = _base_of(whole) if base is None else str(base)
        with open_contents(locate(place)) as under:
            names = _names_on_base(whole, under)
            own = {
                name: tensor
                for name, tensor in whole.tensors.items()
                if name not in names or not _is_same(tensor, under.tensors[names[name]])
            }
            if own.keys() == whole.tensors.keys():
                remedy = "Keep the whole checkpoint: there is nothing that it shares."
                found = f"no tensor that is bit-equal in {place}"
                raise UserError(
                    describe(str(whole.directory), found, "some, the frozen ones", remedy)
                )
            record = BaseRecord(
                path=place, weights_sha256=under.weights_sha256, adapter_sha256=weights_hash(own)
            )
            with atomic_directory(Path(directory)) as unfinished:
                write_tensors(unfinished / ADAPTER_FILE, own, max_shard_bytes=None)
                write_record(unfinished / BASE_FILE, record)
                write_records(policy_of(whole), unfinished, whole.weights_sha256)
            sizes = {name: t.numel() * t.element_size() for name, t in whole.tensors.items()}
    share = sum(sizes[name] for name in own) / sum(sizes.values())
    return Cut(Path(directory), len(own), share)


def _base_of(whole: Contents) -> str:
    """Where the run of a checkpoint began."""
    path = whole.provenance.get("parent", {}).get("path")
    if path is None:
        found, expected = "no note of a checkpoint that it was fine-tuned from", "one"
        remedy = "Name the base: --base DIRECTORY."
        raise UserError(describe(str(whole.directory), found, expected, remedy))
    return str(path)


def _names_on_base(whole: Contents, base: Contents) -> dict[str, str]:
    """Tensor of the whole policy -> the base's that it was."""
    edits = extra_edits(whole.config, base.config, f"{whole.directory}, base {base.directory}")
    model = without_values(base.config)
    with torch.device("meta"):
        changes = edit_model(model, edits, where="edits", seed=0)
    return {after: before for before, after in changes.names.items() if before in base.tensors}


def _is_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)
