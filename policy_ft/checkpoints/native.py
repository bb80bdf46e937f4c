"""Our own checkpoint: one directory that holds the whole policy."""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from policy_ft.checkpoints.atomic import atomic_directory
from policy_ft.checkpoints.weights import (
    read_weights,
    stored_weights_hash,
    weights_hash,
    write_weights,
)
from policy_ft.config.model import ModelConfig
from policy_ft.errors import UserError, describe, raise_faults, read_json
from policy_ft.models.build import build_model
from policy_ft.models.vla import VLAModel
from policy_ft.policy import Policy
from policy_ft.transforms import Transforms
from policy_ft.transforms.records import FILES, TOKENIZER_FILE, read_record, write_record

__all__ = ["load_policy", "save_policy", "weights_hash", "write_policy"]

FORMAT = "policy_ft/1"
MODEL_FILE = "model.json"
WEIGHTS_FILE = "model.safetensors"
PROVENANCE_FILE = "provenance.json"
NEEDED_FILES = (WEIGHTS_FILE, MODEL_FILE, PROVENANCE_FILE, *FILES, TOKENIZER_FILE)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def save_policy(
    policy: Policy,
    directory: str | Path,
    weights: dict[str, Tensor] | None = None,
    card: str = "",
) -> None:
    """Write a checkpoint directory, complete or not at all.

    Args:
        policy: what is saved.
        directory: must not hold files yet.
        weights: parameter name -> tensor to save in place of the model's own, e.g. averages.
        card: text of README.md; no such file when empty.

    Raises:
        UserError: the directory holds files.
    """
    with atomic_directory(Path(directory)) as unfinished:
        write_policy(policy, unfinished, weights, card)


def write_policy(
    policy: Policy, directory: Path, weights: dict[str, Tensor] | None = None, card: str = ""
) -> None:
    """Write the files of a checkpoint into an existing directory; for use in atomic_directory."""
    write_record(directory / MODEL_FILE, policy.config)
    policy.transforms.save(directory)
    digest = write_weights(directory / WEIGHTS_FILE, policy.model, weights or {})
    provenance = {**policy.provenance, "format": FORMAT, "weights_sha256": digest, **_versions()}
    text = json.dumps(provenance, indent=1, sort_keys=True) + "\n"
    (directory / PROVENANCE_FILE).write_text(text, encoding="utf-8")
    if card:
        (directory / "README.md").write_text(card, encoding="utf-8")


def load_policy(
    path: str | Path,
    device: torch.device | str = "cpu",
    dtype: Literal["float32", "bfloat16"] = "float32",
    init_missing: tuple[str, ...] = (),
) -> Policy:
    """The policy of a checkpoint directory, in evaluation mode.

    Args:
        path: of the directory.
        device: where the weights go.
        dtype: of the weights in memory, but for the heads, which stay float32; training needs
            float32.
        init_missing: patterns of parameter names that may be absent and start at random.

    Raises:
        UserError: a file is missing or damaged, a tensor is missing, unexpected or misshaped, or
            the parts do not fit one another; names every one of them.
    """
    directory = Path(path)
    if dtype not in DTYPES:
        remedy = "Choose one of these."
        raise UserError(describe("dtype", repr(dtype), f"one of {list(DTYPES)}", remedy))
    raise_faults(_directory_faults(directory))
    config = read_record(directory / MODEL_FILE, ModelConfig)
    provenance = _read_provenance(directory / PROVENANCE_FILE)
    transforms = Transforms.load(directory)
    model = _cast(build_model(config), DTYPES[dtype])
    report = read_weights([directory / WEIGHTS_FILE], model, init_missing)
    if not report.missing:
        _require_recorded_weights(directory, provenance)
    policy = Policy(model.eval(), transforms, config, report, provenance)
    return policy.to(device)


def _require_recorded_weights(directory: Path, provenance: dict[str, Any]) -> None:
    """UserError when the weights are not those the provenance was written with."""
    found = stored_weights_hash(directory / WEIGHTS_FILE)
    recorded = provenance.get("weights_sha256")
    if found != recorded:
        raise UserError(
            describe(
                str(directory / WEIGHTS_FILE),
                f"weights with the SHA-256 {found}",
                f"{recorded}, as {PROVENANCE_FILE} records",
                "Copy the checkpoint again; its files do not belong together.",
            )
        )


def _cast(model: VLAModel, dtype: torch.dtype) -> VLAModel:
    """The model in another type, its small heads kept in float32: they hold actions and times.

    Source: pi0's dtype policy, `to_bfloat16_for_selected_params` in openpi's PyTorch code.
    """
    parameters = dict(model.named_parameters())
    for group, names in model.groups().items():
        if not group.startswith("heads."):
            for name in names:
                parameters[name].data = parameters[name].data.to(dtype)
    return model


def _directory_faults(directory: Path) -> list[str]:
    if not directory.is_dir():
        remedy = "Correct the path."
        return [describe(str(directory), "no such directory", "a checkpoint directory", remedy)]
    missing = [name for name in NEEDED_FILES if not (directory / name).is_file()]
    if not missing:
        return []
    below = sorted(str(each.parent) for each in directory.glob(f"**/{MODEL_FILE}"))
    remedy = "Copy the whole directory again."
    if MODEL_FILE in missing and below:
        remedy = f"Give a directory that has them, e.g. {below[-1]}."
    found = f"no {', '.join(missing)}"
    return [describe(str(directory), found, "a complete checkpoint directory", remedy)]


def _read_provenance(path: Path) -> dict[str, Any]:
    provenance = read_json(path)
    found = provenance.get("format") if isinstance(provenance, dict) else None
    if found != FORMAT:
        remedy = "Read it with the version of policy_ft that wrote it."
        raise UserError(describe(f"{path}, format", repr(found), repr(FORMAT), remedy))
    return dict(provenance)


def _versions() -> dict[str, str]:
    return {
        "policy_ft_version": version("policy_ft"),
        "torch_version": torch.__version__,
        "python_version": platform.python_version(),
    }
