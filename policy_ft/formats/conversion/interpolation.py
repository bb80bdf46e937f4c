"""Weights between those of several checkpoints of one policy: interpolation and soups."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from policy_ft.checkpoints.provenance import INSTRUCTIONS, noted_instructions, old_instructions
from policy_ft.checkpoints.weights import weights_hash
from policy_ft.errors import UserError, describe, nearest, raise_faults
from policy_ft.formats.conversion.contents import Contents, LazyTensors, open_contents
from policy_ft.formats.conversion.writing import Converted, write_checkpoint
from policy_ft.formats.locating import locate
from policy_ft.models.leaves import matches

EVERYTHING: Final = "*"


def merge(
    checkpoints: Sequence[str | Path],
    directory: str | Path,
    alphas: Mapping[str, float] | None = None,
) -> Converted:
    """Write the policy between two checkpoints, or the mean of several, as a native directory.

    Two with alpha: (1 - alpha) * first + alpha * second, group by group (RETAIN, 2512.08333); ends
    are bit-equal to the checkpoints. Without: the mean of all with equal shares (model soups,
    Wortsman et al. 2022). Sums are taken in float64 and rounded once, a tensor at a time.

    Args:
        checkpoints: of one architecture, robot, statistics and tokenizer; two or more.
        directory: must not hold files yet.
        alphas: pattern of groups or parameters -> share of the second; the first that matches
            decides, and what none matches has that of '*', or 0.5. None for a mean.

    Raises:
        UserError: the checkpoints do not belong together, a pattern names nothing, or an alpha is
            not between 0 and 1; all of it at once.
    """
    _require_shares(checkpoints, alphas)
    with ExitStack() as stack:
        parts = [stack.enter_context(open_contents(locate(path))) for path in checkpoints]
        raise_faults([*_differences(parts), *_unmatched(parts[0], alphas)])
        return write_checkpoint(_between(parts, alphas), "native", directory)


def _require_shares(checkpoints: Sequence[str | Path], alphas: Mapping[str, float] | None) -> None:
    faults = []
    if len(checkpoints) < 2:
        found = f"{len(checkpoints)} checkpoints"
        faults.append(describe("merge", found, "at least two", "Name another."))
    if alphas is not None and len(checkpoints) > 2:
        found = f"--alpha for {len(checkpoints)} checkpoints"
        faults.append(describe("merge", found, "two", "Leave --alpha out for the mean of all."))
    for pattern, alpha in (alphas or {}).items():
        if not 0.0 <= alpha <= 1.0:
            remedy = "0 is the first checkpoint, 1 the second."
            faults.append(describe(f"--alpha {pattern}", str(alpha), "0 to 1", remedy))
    raise_faults(faults)


def _differences(parts: Sequence[Contents]) -> list[str]:
    """What the checkpoints must share and do not."""
    first, faults = parts[0], []
    for other in parts[1:]:
        pairs = {
            "architecture": (first.config, other.config),
            "transforms": (first.transforms_config, other.transforms_config),
            "conventions": (first.conventions, other.conventions),
            "statistics": (first.statistics, other.statistics),
            "tokenizer": (first.tokenizer_json, other.tokenizer_json),
        }
        remedy = "Merge checkpoints of one policy, fine-tuned with `policy.statistics: checkpoint`."
        faults += [
            describe(f"{other.directory}, {name}", "another", f"that of {first.directory}", remedy)
            for name, (own, its) in pairs.items()
            if own != its
        ]
    return faults


def _unmatched(contents: Contents, alphas: Mapping[str, float] | None) -> list[str]:
    leaf_of = _leaves(contents)
    tops = sorted({leaf.split(".")[0] for leaf in leaf_of.values()})
    return [
        describe(
            f"--alpha {pattern}",
            "a pattern that names nothing",
            f"a name or pattern of a group, below {tops}",
            f"Correct it. {nearest(pattern, sorted({*tops, *leaf_of.values()}))}".strip(),
        )
        for pattern in alphas or {}
        if not any(matches(pattern, leaf, name) for name, leaf in leaf_of.items())
    ]


def _between(parts: Sequence[Contents], alphas: Mapping[str, float] | None) -> Contents:
    leaf_of = _leaves(parts[0])

    def shares(name: str) -> tuple[float, ...]:
        if alphas is None:
            return (1.0 / len(parts),) * len(parts)
        leaf = leaf_of.get(name, "")
        hits = (alpha for pattern, alpha in alphas.items() if matches(pattern, leaf, name))
        share = next(hits, 0.5)
        return (1.0 - share, share)

    tensors = LazyTensors(
        {name: partial(_sum, parts, name, shares(name)) for name in parts[0].tensors}
    )
    known = {
        text
        for part in parts
        for text in (*part.provenance.get(INSTRUCTIONS, ()), *old_instructions(part.provenance))
    }
    origin = [
        {"path": str(part.directory), "weights_sha256": part.weights_sha256} for part in parts
    ]
    kept = {key: v for key, v in parts[-1].provenance.items() if key == "replan_steps"}
    return replace(
        parts[0],
        tensors=tensors,
        weights_sha256=weights_hash(tensors),
        report=replace(parts[0].report, loaded=tuple(tensors)),
        provenance={
            **kept,
            INSTRUCTIONS: noted_instructions(known),
            "merged": {"of": origin, "alphas": None if alphas is None else dict(alphas)},
        },
        is_of_other_dtype=True,
    )


def _sum(parts: Sequence[Contents], name: str, shares: Sequence[float]) -> Tensor:
    tensors = [part.tensors[name] for part in parts]
    whole = [tensor for tensor, share in zip(tensors, shares, strict=True) if share == 1.0]
    if whole:
        return whole[0]
    if all(torch.equal(tensors[0], other) for other in tensors[1:]):
        return tensors[0]
    if not tensors[0].is_floating_point():
        remedy = "Merge checkpoints of one run or of one base."
        found = f"whole numbers that differ in {name!r}"
        raise UserError(describe("merge", found, "equal ones, which have no middle", remedy))
    total = torch.zeros_like(tensors[0], dtype=torch.float64)
    for tensor, share in zip(tensors, shares, strict=True):
        total += share * tensor.double()
    return total.to(tensors[0].dtype)


def _leaves(contents: Contents) -> dict[str, str]:
    """Parameter -> its leaf group."""
    return {name: leaf for leaf, names in contents.model.groups().items() for name in names}
