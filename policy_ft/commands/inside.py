"""What `policy-ft show` prints of a checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table

from data_tools.view.tables import numbers, print_table
from policy_ft.checkpoints.provenance import in_brief
from policy_ft.checkpoints.stored_model import read_model
from policy_ft.commands.options import require_none
from policy_ft.errors import UserError, describe, nearest
from policy_ft.formats.embodiments import PRESETS, load_embodiment
from policy_ft.formats.hub import is_remote
from policy_ft.formats.load import load_policy, published_provenance, read_published
from policy_ft.formats.locating import Located, locate
from policy_ft.formats.published import Published
from policy_ft.models.vla import VLAModel
from policy_ft.policy import LoadReport
from policy_ft.transforms.held import still_notes


def show_inside(path: str, only_hash: bool, embodiment: str | None, tokenizer: str | None) -> None:
    """Prints what is in a checkpoint.

    Args:
        path: its directory, or its id on the hub.
        only_hash: whether to print only the SHA-256 over all weights.
        embodiment: preset or YAML file of the robot it is used for.
        tokenizer: tokenizer.json, its directory or a hub id.

    Raises:
        UserError: there is no such checkpoint, it cannot be read, or it brings what was named.
    """
    _require_checkpoint(path)
    located = locate(path)
    inside = _inside(located, embodiment, tokenizer)
    if only_hash:
        print(inside.report.weights_sha256)
    else:
        _show_checkpoint(path, located, inside)


@dataclass(frozen=True)
class _Inside:
    """What a checkpoint holds, though it may lack what a policy needs; `parts` are told as YAML."""

    model: VLAModel
    report: LoadReport
    parts: Mapping[str, Any]


def _require_checkpoint(path: str) -> None:
    """UserError where a path is neither a directory nor an id of the hub."""
    if Path(path).is_dir() or is_remote(path):
        return
    parent = Path(path).parent
    beside = [each.name for each in parent.iterdir()] if parent.is_dir() else []
    hint = nearest(Path(path).name, beside)
    expected = "a config (a YAML file), a checkpoint directory or a hub id"
    remedy = f"Correct the path{f'; {hint}' if hint else '.'}"
    raise UserError(describe(path, "no such file or directory", expected, remedy))


def _inside(located: Located, embodiment: str | None, tokenizer: str | None) -> _Inside:
    if located.format != "native":
        robot = None if embodiment is None else load_embodiment(embodiment)
        return _inside_published(read_published(located, robot, tokenizer))
    given = {"--embodiment": embodiment, "--tokenizer": tokenizer}
    require_none(given, str(located.directory), "a published checkpoint, which may lack them")
    policy = load_policy(located.directory)
    parts = {
        "format": "policy_ft",
        "model": policy.config.model_dump(mode="json"),
        "conventions": policy.conventions.model_dump(mode="json"),
        "provenance": in_brief(policy.provenance),
        "still_columns": list(policy.transforms.still_notes),
        "unused_tensors": sorted(policy.unused),
    }
    return _Inside(policy.model, policy.load_report, parts)


def _inside_published(published: Published) -> _Inside:
    """A checkpoint as it is: neither statistics nor a tokenizer are needed to look at it."""
    names = published.names
    model, report = read_model(
        published.config,
        published.files,
        rename=names.live_name,
        stored_name=names.stored_name,
    )
    said = {
        part: "present" if part not in published.absent else _found(published.absent[part])
        for part in ("statistics", "tokenizer")
    }
    if "statistics" in published.absent:
        said["embodiment"] = f"may be named with --embodiment: {', '.join(PRESETS)} or a YAML file"
    parts = {
        "format": published.format,
        "family": published.config.family,
        **said,
        "model": published.config.model_dump(mode="json"),
        "transforms": published.transforms_config.model_dump(mode="json"),
        "conventions": published.conventions.model_dump(mode="json"),
        "provenance": published_provenance(published),
        "still_columns": _still_notes(published),
        "unused_tensors": sorted(report.dropped),
    }
    return _Inside(model, replace(report, notes=published.all_notes), parts)


def _still_notes(published: Published) -> list[str]:
    """What becomes of the columns that never move, as far as there are statistics."""
    if published.statistics is None:
        return []
    robot = published.conventions
    return still_notes(published.transforms_config, robot, published.statistics)


def _found(fault: str) -> str:
    """What a fault found, without what to do about it, which here is nothing."""
    return "; ".join(line.partition("; expected")[0] for line in fault.split("\n"))


def _show_checkpoint(path: str, located: Located, inside: _Inside) -> None:
    counts = numbers("tensors", "parameters")
    groups = Table("group", *counts, title=path, title_justify="left")
    tensors = dict(inside.model.named_parameters())
    for group, names in inside.model.groups().items():
        sizes = [tensors[name].numel() for name in names]
        groups.add_row(group, str(len(sizes)), f"{sum(sizes):,}")
    groups.add_row("all", str(len(tensors)), f"{sum(each.numel() for each in tensors.values()):,}")
    print_table(groups)
    print("\n".join(inside.report.lines()))
    parts = {**inside.parts, "weights_sha256": inside.report.weights_sha256}
    print(yaml.safe_dump(parts, sort_keys=False, width=100))
