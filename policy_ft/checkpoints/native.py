"""Our own checkpoint: one directory that holds the whole policy."""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from data_tools.conventions import Conventions
from policy_ft.checkpoints.atomic import atomic_directory, is_unfinished
from policy_ft.checkpoints.image_sizes import resized_config
from policy_ft.checkpoints.matching import own_tensors
from policy_ft.checkpoints.stored_model import read_model
from policy_ft.checkpoints.tensor_files import (
    INDEX_SUFFIX,
    MAX_SHARD_BYTES,
    WEIGHTS_FILE,
    TensorFiles,
    copy_tensors,
    tensor_files,
)
from policy_ft.checkpoints.weights import weights_hash, write_weights
from policy_ft.config.model import ModelConfig
from policy_ft.config.resize import ModelResize
from policy_ft.errors import UserError, describe, raise_faults, read_json
from policy_ft.models.build import build_model
from policy_ft.policy import Policy, PublishedRecord
from policy_ft.transforms import ModelShape, Transforms
from policy_ft.transforms.records import FILES, read_record, write_record
from policy_ft.transforms.tokenization import TOKENIZER_FILE

__all__ = ["load_native", "save_policy", "weight_files", "weights_hash", "write_policy"]

FORMAT = "policy_ft/1"
MODEL_FILE = "model.json"
PROVENANCE_FILE = "provenance.json"
ADAPTER_FILE = "adapter.safetensors"
"""In place of the weights where a directory holds only what differs from a base."""
SOURCE_FILE = "source.json"
UNUSED_FILE = "unused_tensors.safetensors"
LOAD_REPORT_FILE = "load_report.json"
WEIGHTS_HASH, UNUSED_HASH = "weights_sha256", "unused_sha256"
"""Where the provenance has the weights_hash of the weights and of the tensors beside them."""
PRECISION = "precision"
"""Where it says what `act` computes in."""
AUTOCAST = {"fp32": None, "bf16": torch.bfloat16}
"""Precision of a run -> the type its matrix products are cast to."""

NEEDED_FILES = (MODEL_FILE, PROVENANCE_FILE, *FILES, TOKENIZER_FILE)


def save_policy(
    policy: Policy,
    directory: str | Path,
    weights: dict[str, Tensor] | None = None,
    card: str = "",
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a checkpoint directory, complete or not at all.

    Args:
        policy: what is saved.
        directory: must not hold files yet.
        weights: parameter name -> tensor to save in place of the model's own, e.g. averages.
        card: text of README.md; no such file when empty.
        max_shard_bytes: weights that are larger go to several files and an index.

    Raises:
        UserError: the directory holds files, or a file that holds unused tensors of the policy is
            gone.
    """
    with atomic_directory(Path(directory)) as unfinished:
        write_policy(policy, unfinished, weights, card, max_shard_bytes)


def write_policy(
    policy: Policy,
    directory: Path,
    weights: dict[str, Tensor] | None = None,
    card: str = "",
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write the files of a checkpoint into an existing directory; for use in atomic_directory."""
    _require_loadable(policy)
    digest = write_weights(
        directory / WEIGHTS_FILE, policy.model, weights or {}, max_shard_bytes=max_shard_bytes
    )
    if policy.unused:
        copy_tensors(policy.unused, directory / UNUSED_FILE)
        if UNUSED_HASH in policy.provenance:
            found, where = _unused_hash(directory), min(policy.unused.values())
            require_recorded(where, UNUSED_HASH, found, policy.provenance)
    write_records(policy, directory, digest, card)


def _require_loadable(policy: Policy) -> None:
    """UserError for a model that is not what its own settings build: nobody could load it."""
    with torch.device("meta"):
        built = own_tensors(build_model(policy.config))
    own = own_tensors(policy.model)
    shapes = [{name: tuple(t.shape) for name, t in each.items()} for each in (own, built)]
    strange = sorted(n for n in own.keys() | built.keys() if shapes[0].get(n) != shapes[1].get(n))
    if strange:
        found = f"{len(strange)} tensors that its settings do not build, e.g. {strange[0]!r}"
        remedy = (
            "Change a model by edits in its settings, which are saved with it "
            "(policy_ft.checkpoints.edited), not by hand."
        )
        raise UserError(describe("policy.model", found, "the model of policy.config", remedy))


def write_records(policy: Policy, directory: Path, weights_sha256: str, card: str = "") -> None:
    """Write all of a checkpoint but its tensors, into an existing directory.

    Args:
        policy: what is saved.
        directory: holds the tensors.
        weights_sha256: weights_hash of the weights there.
        card: text of README.md; no such file when empty.
    """
    write_record(directory / MODEL_FILE, policy.config)
    policy.transforms.save(directory)
    provenance = {**policy.provenance, "format": FORMAT, WEIGHTS_HASH: weights_sha256}
    provenance[PRECISION] = policy.precision
    provenance.pop(UNUSED_HASH, None)
    if (directory / UNUSED_FILE).is_file():
        provenance[UNUSED_HASH] = _unused_hash(directory)
    _write_json(directory / PROVENANCE_FILE, {**provenance, **_versions()})
    if policy.source is not None:
        write_record(directory / SOURCE_FILE, policy.source)
    if policy.load_report.loaded:
        _write_json(directory / LOAD_REPORT_FILE, asdict(policy.load_report))
    if card:
        (directory / "README.md").write_text(card, encoding="utf-8")


def load_native(
    path: str | Path,
    device: torch.device | str = "cpu",
    dtype: Literal["float32", "bfloat16", "stored"] = "float32",
    init_missing: tuple[str, ...] = (),
    *,
    resize: ModelResize | None = None,
) -> Policy:
    """The policy of a checkpoint directory, in evaluation mode.

    Args:
        path: of the directory.
        device: where the weights go.
        dtype: of the weights in memory, but for VLAModel.float32_names; "stored" keeps each
            tensor's own.
        init_missing: patterns of parameter names that may be absent and start at random.
        resize: other sizes than those it was saved with; new columns start at zero.

    Raises:
        UserError: a file is missing or damaged, a tensor is missing, unexpected or misshaped, or
            the parts do not fit one another; names every one of them.
    """
    parts = read_parts(Path(path))
    config, transforms = parts.config, parts.transforms
    if resize is not None:
        config = resized_config(config, resize)
        transforms = replace(
            transforms,
            shape=ModelShape.of(config),
            conventions=_as_large(transforms, (config.image_height, config.image_width)),
        )
    model, report = read_model(
        config,
        weight_files(parts.directory),
        device=device,
        dtype=dtype,
        init_missing=init_missing,
        resize=resize,
        stored=parts.config,
    )
    model.autocast_dtype = parts.autocast_dtype
    if not report.missing and report.weights_sha256 != parts.provenance.get(WEIGHTS_HASH):
        _require_unconverted(parts)
        require_recorded(parts.directory, WEIGHTS_HASH, report.weights_sha256, parts.provenance)
    return Policy(
        model,
        transforms,
        config,
        report,
        parts.provenance,
        source=parts.source,
        unused=parts.unused,
    )


def _as_large(transforms: Transforms, size: tuple[int, int]) -> Conventions:
    """The declaration of who sends images that no transform resizes: they have the model's size."""
    own = transforms.conventions
    if transforms.config.resize != "none":
        return own
    update = dict(zip(("height", "width"), size, strict=True))
    return own.model_copy(
        update={"cameras": tuple(c.model_copy(update=update) for c in own.cameras)}
    )


class Parts(NamedTuple):
    """What a checkpoint directory holds beside the weights; see Policy."""

    directory: Path
    config: ModelConfig
    transforms: Transforms
    provenance: dict[str, Any]
    source: PublishedRecord | None
    unused: dict[str, Path]

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """See VLAModel; None in checkpoints of before it was recorded."""
        return AUTOCAST[self.provenance.get(PRECISION, "fp32")]


def read_parts(directory: Path) -> Parts:
    """All of a checkpoint but its weights; UserError for files that are missing or damaged."""
    raise_faults(_directory_faults(directory))
    provenance = _read_provenance(directory / PROVENANCE_FILE)
    if UNUSED_HASH in provenance and not (directory / UNUSED_FILE).is_file():
        expected = f"the tensors beside the weights, which {PROVENANCE_FILE} records"
        remedy = "Copy the whole directory again."
        raise UserError(describe(str(directory), f"no {UNUSED_FILE}", expected, remedy))
    return Parts(
        directory,
        read_record(directory / MODEL_FILE, ModelConfig),
        Transforms.load(directory),
        provenance,
        _read_source(directory / SOURCE_FILE),
        _unused_tensors(directory / UNUSED_FILE),
    )


def weight_files(directory: Path) -> list[Path]:
    """The files that hold the weights of a checkpoint directory."""
    return tensor_files(directory / WEIGHTS_FILE)


def require_recorded(where: Path, key: str, found: str, provenance: Mapping[str, Any]) -> None:
    """UserError when tensors are not those the provenance was written with.

    Args:
        where: how messages call their place.
        key: WEIGHTS_HASH or UNUSED_HASH.
        found: the weights_hash of the tensors.
        provenance: of the checkpoint.
    """
    recorded = provenance.get(key)
    if found != recorded:
        expected = f"{recorded}, as {PROVENANCE_FILE} records"
        remedy = "Copy the checkpoint again; its files do not belong together."
        raise UserError(describe(f"{where}, {key}", found, expected, remedy))


def _require_unconverted(parts: Parts) -> None:
    """UserError that names the tensors, of weights whose hash is not as recorded, of another type.

    A policy has float32 weights, and one that acts in bfloat16 may have some of that type.
    """
    is_low = parts.provenance.get(PRECISION) == "bf16"
    usual = (torch.float32, torch.bfloat16) if is_low else (torch.float32,)
    with TensorFiles(weight_files(parts.directory)) as stored:
        types = {name: stored.tensor(name).dtype for name in stored.headers}
    other = {
        name: each for name, each in types.items() if each.is_floating_point and each not in usual
    }
    if other:
        name, kind = next(iter(other.items()))
        more = f" and {len(other) - 1} more" if len(other) > 1 else ""
        found = f"{kind} in {name!r}{more} of {len(types)} tensors, so {WEIGHTS_HASH} differs"
        remedy = "Copy the checkpoint again: the weights were converted after they were saved."
        expected = " or ".join(map(str, usual))
        raise UserError(describe(str(parts.directory / WEIGHTS_FILE), found, expected, remedy))


def _read_source(path: Path) -> PublishedRecord | None:
    return read_record(path, PublishedRecord) if path.is_file() else None


def _unused_hash(directory: Path) -> str:
    with TensorFiles([directory / UNUSED_FILE]) as stored:
        return weights_hash({name: stored.tensor(name) for name in stored.headers})


def _unused_tensors(path: Path) -> dict[str, Path]:
    if not path.is_file():
        return {}
    with TensorFiles([path]) as stored:
        return dict.fromkeys(stored.headers, path)


def _directory_faults(directory: Path) -> list[str]:
    if not directory.is_dir():
        remedy = "Correct the path."
        return [describe(str(directory), "no such directory", "a checkpoint directory", remedy)]
    missing = [name for name in NEEDED_FILES if not (directory / name).is_file()]
    weights = (WEIGHTS_FILE, WEIGHTS_FILE + INDEX_SUFFIX, ADAPTER_FILE)
    if not any((directory / name).is_file() for name in weights):
        missing.insert(0, WEIGHTS_FILE)
    if not missing:
        return []
    places = (each.parent for each in directory.glob(f"**/{MODEL_FILE}"))
    below = sorted(str(each) for each in places if not is_unfinished(each))
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
    precision = provenance.get(PRECISION, "fp32")
    if precision not in AUTOCAST:
        remedy = "Copy the file again, or read it with the version of policy_ft that wrote it."
        expected = f"one of {list(AUTOCAST)}"
        raise UserError(describe(f"{path}, {PRECISION}", repr(precision), expected, remedy))
    return dict(provenance)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    path.write_text(text, encoding="utf-8")


def _versions() -> dict[str, str]:
    return {
        "policy_ft_version": version("policy_ft"),
        "torch_version": torch.__version__,
        "python_version": platform.python_version(),
    }
