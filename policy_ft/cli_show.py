"""`policy-ft show`: a config with the origin of every value, or what is inside a checkpoint."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table

from policy_ft.checkpoints.hub import is_remote
from policy_ft.checkpoints.load import (
    Located,
    load_policy,
    locate,
    published_provenance,
    read_published,
)
from policy_ft.checkpoints.model import read_model
from policy_ft.checkpoints.published.record import Published
from policy_ft.config.loader import read_config, resolved_with_origin, validate_config
from policy_ft.embodiments import PRESETS, load_embodiment
from policy_ft.errors import UserError, describe, nearest
from policy_ft.models.vla import VLAModel
from policy_ft.policy import LoadReport

Overrides = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a setting, e.g. --set optimizer.lr=1e-4."
    ),
]
EmbodimentName = Annotated[
    str | None, typer.Option(help="Preset or YAML file of the robot it is used for.")
]
TokenizerPath = Annotated[
    str | None, typer.Option(help="tokenizer.json, its directory or a hub id.")
]
_CONFIG_SUFFIXES = (".yaml", ".yml")


def show(
    path: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG|CHECKPOINT", help="YAML file, checkpoint directory or hub id."
        ),
    ],
    overrides: Overrides = [],  # noqa: B006 - typer reads the default and never changes it
    only_hash: Annotated[
        bool, typer.Option("--hash", help="Print only the SHA-256 over all weights in name order.")
    ] = False,
    embodiment: EmbodimentName = None,
    tokenizer: TokenizerPath = None,
) -> None:
    """Show a config with the origin of every value, or what is inside a checkpoint."""
    if _is_config(path):
        given = {"--hash": only_hash, "--embodiment": embodiment, "--tokenizer": tokenizer}
        _require_none(given, path, "a checkpoint")
        _show_config(path, overrides)
        return
    _require_none({"--set": overrides}, path, "a config file")
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


def _is_config(path: str) -> bool:
    """Whether a path is a config's; UserError where it is neither that nor a checkpoint's."""
    if path.endswith(_CONFIG_SUFFIXES) or Path(path).is_file():
        return True
    if not Path(path).is_dir() and not is_remote(path):
        parent = Path(path).parent
        beside = [each.name for each in parent.iterdir()] if parent.is_dir() else []
        hint = nearest(Path(path).name, beside)
        expected = "a config (a YAML file), a checkpoint directory or a hub id"
        remedy = f"Correct the path{f'; {hint}' if hint else '.'}"
        raise UserError(describe(path, "no such file or directory", expected, remedy))
    return False


def _inside(located: Located, embodiment: str | None, tokenizer: str | None) -> _Inside:
    if located.format != "native":
        robot = None if embodiment is None else load_embodiment(embodiment)
        return _inside_published(read_published(located, robot, tokenizer))
    given = {"--embodiment": embodiment, "--tokenizer": tokenizer}
    _require_none(given, str(located.directory), "a published checkpoint, which may lack them")
    policy = load_policy(located.directory)
    parts = {
        "format": "policy_ft",
        "model": policy.config.model_dump(mode="json"),
        "conventions": policy.conventions.model_dump(mode="json"),
        "provenance": policy.provenance,
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
        "unused_tensors": sorted(report.dropped),
    }
    return _Inside(model, replace(report, notes=published.all_notes), parts)


def _found(fault: str) -> str:
    """What a fault found, without what to do about it, which here is nothing."""
    return "; ".join(line.partition("; expected")[0] for line in fault.split("\n"))


def _show_config(path: str, overrides: Sequence[str]) -> None:
    source = read_config(path, overrides)
    table = Table("setting", "value", "origin", title=path, title_justify="left")
    for key, value, origin in resolved_with_origin(validate_config(source), source):
        table.add_row(key, json.dumps(value), origin)
    Console().print(table)


def _show_checkpoint(path: str, located: Located, inside: _Inside) -> None:
    console = Console()
    groups = Table("group", "tensors", "parameters", title=path, title_justify="left")
    tensors = dict(inside.model.named_parameters())
    for group, names in inside.model.groups().items():
        sizes = [tensors[name].numel() for name in names]
        groups.add_row(group, str(len(sizes)), f"{sum(sizes):,}")
    groups.add_row("all", str(len(tensors)), f"{sum(each.numel() for each in tensors.values()):,}")
    console.print(groups)
    print("\n".join(inside.report.lines()))
    parts = {**inside.parts, "weights_sha256": inside.report.weights_sha256}
    print(yaml.safe_dump(parts, sort_keys=False, width=100))


def _require_none(given: Mapping[str, object], path: str, needed: str) -> None:
    for option, value in given.items():
        if value:
            raise UserError(describe(option, path, needed, f"Leave {option} out."))
