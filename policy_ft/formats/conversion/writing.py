"""The contents of a checkpoint to a directory of a format; tensors go from file to file."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from policy_ft.checkpoints.atomic import atomic_directory
from policy_ft.checkpoints.native import UNUSED_FILE, write_records
from policy_ft.checkpoints.tensor_files import WEIGHTS_FILE, write_tensors
from policy_ft.errors import UserError, describe, raise_faults
from policy_ft.formats.conversion.card import Written, model_card
from policy_ft.formats.conversion.contents import (
    Contents,
    LazyTensors,
    main_dtype,
)
from policy_ft.formats.conversion.differences import (
    differences,
    has_statistics,
    says_robot,
)
from policy_ft.formats.conversion.merging import require_plain
from policy_ft.formats.conversion.write_lerobot import lerobot_documents
from policy_ft.formats.conversion.write_openpi import openpi_documents
from policy_ft.formats.conversion.write_robot import robot_yaml
from policy_ft.formats.embodiments import Embodiment
from policy_ft.formats.embodiments.robot_beside import EMBODIMENT_FILE
from policy_ft.formats.lerobot.read_lerobot import TOKENIZER_DIRECTORY
from policy_ft.formats.lerobot.tensor_document import tensors_of
from policy_ft.formats.load import read_published
from policy_ft.formats.locating import CheckpointFormat, Located
from policy_ft.formats.openpi.read_openpi import statistics_fingerprint
from policy_ft.formats.published import CONFIG_FILE
from policy_ft.formats.tensor_names import (
    EMBEDDING,
    LEROBOT_ROOT,
    NAMES,
    STATISTICS_ROOTS,
    PublishedFamily,
    dead_head_shape,
)
from policy_ft.policy import Policy
from policy_ft.transforms import ModelShape, Transforms
from policy_ft.transforms.tokenization import TOKENIZER_FILE

DEFAULT_ASSET_ID: Final = "robot"
"""The folder of statistics in openpi's layout of a robot that nobody named."""


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        directory: of the new checkpoint.
        weights_sha256: weights_hash of its weights, under our names.
        remarks: what the format cannot say or says otherwise, and what was made up.
    """

    directory: Path
    weights_sha256: str
    remarks: tuple[str, ...]


def write_checkpoint(
    contents: Contents,
    to: CheckpointFormat,
    directory: str | Path,
    robot: Embodiment | None = None,
) -> Converted:
    """Write contents as a directory of a format, complete or not at all.

    Args:
        contents: open.
        to: the format.
        directory: must not hold files yet.
        robot: whose files stand beside a published checkpoint.

    Raises:
        UserError: as `convert`.
    """
    target = Path(directory)
    if to != "native":
        _published_family(contents, to)  # else merging would be advised, and refused then
        require_plain(contents, to)
    if to != "native" and contents.has_unfit_statistics:
        raise_faults([contents.absent["statistics"]])
    with atomic_directory(target) as unfinished:
        if to == "native":
            written = _write_native(contents, unfinished)
        else:
            written = _write_published(contents, to, unfinished, robot)
        card = model_card(contents, to, written)
        (unfinished / "README.md").write_text(card, encoding="utf-8")
    return Converted(target, contents.weights_sha256, written.remarks)


def _write_native(contents: Contents, directory: Path) -> Written:
    """Our own directory; unused tensors keep the names they have in the published files."""
    policy = policy_of(contents)
    write_tensors(directory / WEIGHTS_FILE, contents.tensors)
    root = contents.source.prefix if contents.source is not None else ""
    if contents.unused:
        unused = {_rooted(n, root): _getter(contents.unused, n) for n in contents.unused}
        write_tensors(directory / UNUSED_FILE, LazyTensors(unused), max_shard_bytes=None)
    write_records(policy, directory, contents.weights_sha256)
    return Written()


def policy_of(contents: Contents) -> Policy:
    """All of a policy but the values of its tensors; UserError for parts that are absent."""
    raise_faults(contents.absent.values())
    assert contents.statistics is not None
    assert contents.tokenizer_json is not None
    transforms = Transforms(
        config=contents.transforms_config,
        conventions=contents.conventions,
        shape=ModelShape.of(contents.config),
        statistics=contents.statistics,
        tokenizer_json=contents.tokenizer_json,
    )
    return Policy(
        contents.model,
        transforms,
        contents.config,
        contents.report,
        contents.provenance,
        source=contents.source,
    )


def _write_published(
    contents: Contents,
    to: Literal["openpi", "lerobot"],
    directory: Path,
    robot: Embodiment | None,
) -> Written:
    """The directory of another format; what there is to say of it."""
    family = _published_family(contents, to)
    is_verbatim = contents.is_as_published and contents.layout == to
    asset_ids = _asset_ids(contents, to, robot, is_verbatim=is_verbatim)
    if to == "openpi":
        documents = openpi_documents(contents, asset_ids[0])
    else:
        documents = {} if is_verbatim else lerobot_documents(contents, family)
    if is_verbatim and contents.source is not None:
        verbatim = _with_dtype(contents, contents.source.documents, to)
        # sizes that openpi's own files do not say are kept in a config.json of ours
        added = {n: d for n, d in documents.items() if n not in verbatim and "/" not in n}
        documents = {**verbatim, **added}
    for name, document in documents.items():
        _write_document(directory, name, document)
    if contents.tokenizer_json is not None:
        place = directory / (TOKENIZER_DIRECTORY if to == "lerobot" else "")
        place.mkdir(exist_ok=True)
        (place / TOKENIZER_FILE).write_text(contents.tokenizer_json, encoding="utf-8")
    tensors, remarks = _stored_tensors(contents, to, family, is_verbatim=is_verbatim)
    write_tensors(directory / WEIGHTS_FILE, tensors, max_shard_bytes=None)
    written = read_published(Located(directory, to))
    has_robot = not says_robot(contents, written)
    if has_robot:
        text = robot_yaml(contents, robot, asset_ids)
        (directory / EMBODIMENT_FILE).write_text(text, encoding="utf-8")
    return Written(
        remarks=(*remarks, *differences(contents, written)),
        has_statistics=has_statistics(written),
        has_robot=has_robot,
        can_act=written.statistics is not None
        and (has_robot or "statistics" not in written.absent),
    )


def _asset_ids(
    contents: Contents,
    to: Literal["openpi", "lerobot"],
    robot: Embodiment | None,
    *,
    is_verbatim: bool,
) -> tuple[str, ...]:
    """Under which names the statistics are written; for openpi at least one, of its folder."""
    asset_ids = robot.asset_ids if robot is not None else ()
    if to == "lerobot":
        return asset_ids
    if is_verbatim and contents.source is not None and contents.statistics is not None:
        kept = contents.statistics.fingerprint
        names = [n for n in contents.source.documents if statistics_fingerprint(n) == kept]
        asset_ids = tuple(Path(n).parent.relative_to("assets").as_posix() for n in names)
    return asset_ids or (DEFAULT_ASSET_ID,)


def _with_dtype(
    contents: Contents, documents: Mapping[str, Any], to: Literal["openpi", "lerobot"]
) -> dict[str, Any]:
    """The documents, in which config.json says the type that the weights have now."""
    key = {"openpi": "precision", "lerobot": "dtype"}[to]
    config = documents.get(CONFIG_FILE, {})
    stored = main_dtype(contents)
    if not contents.is_of_other_dtype or config.get(key) in (None, stored):
        return dict(documents)
    return {**documents, CONFIG_FILE: {**config, key: stored}}


def _published_family(contents: Contents, to: Literal["openpi", "lerobot"]) -> PublishedFamily:
    """The family of the policy; UserError where the format does not know it."""
    families = ("pi0", "pi05") if to == "openpi" else tuple(NAMES)
    family = contents.config.family
    if family == "own" or family not in families:
        remedy = "Convert it to native, or serve it as it is; other programs cannot run this model."
        expected = f"one of {list(families)} for {to}"
        where = f"{contents.directory}, model family"
        raise UserError(describe(where, repr(family), expected, remedy))
    return family


def _stored_tensors(
    contents: Contents, to: str, family: PublishedFamily, *, is_verbatim: bool
) -> tuple[Mapping[str, Tensor], list[str]]:
    """Published name -> tensor, all that a strict loader needs, and remarks about the rest."""
    table, unused = NAMES[family], contents.unused
    root = LEROBOT_ROOT if to == "lerobot" else ""
    if is_verbatim and contents.source is not None:
        root = contents.source.prefix
    names = {live: table.stored_name(live) for live in contents.tensors}
    has_twins = bool(table.tied) and table.tied[0] in unused
    if has_twins and (is_verbatim or to == "lerobot"):
        names[EMBEDDING] = table.tied[1]
    makers = {root + name: _getter(contents.tensors, live) for live, name in names.items()}
    remarks = []
    for name in unused:
        if is_verbatim or name == table.dead or (to == "lerobot" and not is_statistic(name)):
            makers[_rooted(name, root)] = _getter(unused, name)
        elif not is_statistic(name):
            remarks.append(f"{name}: left out, for {to} has one tensor for both of its names")
    if table.dead not in unused:
        shape = dead_head_shape(contents.config)
        zeros = torch.zeros(shape, dtype=getattr(torch, main_dtype(contents)))
        makers[root + table.dead] = lambda: zeros
        remarks.append(f"{table.dead}: zeros, for it never was there; no computation uses it")
    return LazyTensors(makers), remarks


def _getter(tensors: Mapping[str, Tensor], name: str) -> Callable[[], Tensor]:
    return partial(tensors.__getitem__, name)


def is_statistic(name: str) -> bool:
    """Whether a tensor of a published checkpoint holds normalization statistics."""
    return name.startswith(STATISTICS_ROOTS)


def _rooted(name: str, root: str) -> str:
    """The name in a file; statistics among old weights stand without LeRobot's root."""
    return name if is_statistic(name) else root + name


def _write_document(directory: Path, name: str, document: Any) -> None:
    """One JSON file or small tensor file of a published checkpoint."""
    path = directory / name
    is_inside = path.resolve().is_relative_to(directory.resolve())
    if not is_inside or path.suffix not in (".json", ".safetensors"):
        remedy = "Convert the published checkpoint again; source.json was changed."
        expected = "a path below the checkpoint, of a .json or .safetensors file"
        raise UserError(describe("source.json, documents", repr(name), expected, remedy))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(tensors_of(document, f"source.json, documents, {name}"), path)
    else:
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
