"""What a checkpoint notes of where it comes from, and of what it was taught."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from policy_ft.checkpoints.native import UNUSED_HASH
from policy_ft.policy import Policy

INSTRUCTIONS: Final = "instructions"
"""Where the provenance has the sentences that a policy was trained on, each once, sorted."""
MAX_INSTRUCTIONS: Final = 10_000
"""Of one run; of more, evenly spread ones are noted."""

PARENT_KEYS = (
    "weights_sha256",
    "command",
    "data",
    "data_fingerprint",
    INSTRUCTIONS,
    "seed",
    "train_step",
    "parent",
)


def descended(policy: Policy, **origin: str) -> Policy:
    """The policy a run starts from, what made it noted as its parent's.

    One that was never saved has no hash to be called by, and keeps what its maker noted.
    """
    own = policy.provenance
    if "weights_sha256" not in own:
        return policy
    parent = {**origin, **{key: own[key] for key in PARENT_KEYS if key in own}}
    kept = {key: own[key] for key in ("replan_steps", UNUSED_HASH) if key in own}
    return replace(policy, provenance={**kept, "parent": parent})


def noted_instructions(instructions: Iterable[str]) -> list[str]:
    """What the provenance holds of a run's sentences."""
    unique = sorted(set(instructions))
    every = -(-len(unique) // MAX_INSTRUCTIONS)
    return unique[:: max(every, 1)]


def in_brief(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The provenance as people read it: of the sentences how many, and one."""
    brief = dict(provenance)
    if said := brief.get(INSTRUCTIONS):
        brief[INSTRUCTIONS] = f"{len(said)}, e.g. {said[0]!r}"
    if "parent" in brief:
        brief["parent"] = in_brief(brief["parent"])
    return brief


def old_instructions(provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """The sentences that a policy knew before the run that it is of: its parents', each once.

    Args:
        provenance: of a policy that a run trains or has trained.
    """
    found: dict[str, None] = {}
    parent = provenance.get("parent")
    while parent is not None:
        found |= dict.fromkeys(parent.get(INSTRUCTIONS, ()))
        parent = parent.get("parent")
    own = set(provenance.get(INSTRUCTIONS, ()))
    return tuple(text for text in found if text not in own)
