"""A policy that has its weights, changed by edits."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from policy_ft.config.edits import Edit
from policy_ft.models.build import edit_model
from policy_ft.policy import Policy


def edited(policy: Policy, edits: Sequence[Edit], *, where: str = "edits", seed: int = 0) -> Policy:
    """The policy with edits behind those that it has; they are saved and loaded with it.

    Args:
        policy: its model is changed in place.
        edits: in order.
        where: how messages call the list.
        seed: of what is new.

    Raises:
        UserError: an edit that does not fit the model as those before it have left it.
    """
    if not edits:
        return policy
    changes = edit_model(policy.model, edits, where=where, seed=seed)
    config = policy.config.model_copy(update={"edits": (*policy.config.edits, *edits)})
    own, names = policy.load_report, changes.names
    report = replace(
        own,
        loaded=_renamed(own.loaded, names),
        missing=_renamed(own.missing, names),
        tied=tuple(names.get(name, name) for name in own.tied),
        reshaped=tuple(
            each._replace(name=names[each.name]) for each in own.reshaped if each.name in names
        ),
        dropped=(*own.dropped, *(name for name in changes.removed if name in own.loaded)),
        added=(*_renamed(own.added, names), *changes.added),
    )
    return replace(policy, config=config, load_report=report)


def _renamed(names: Iterable[str], changed: Mapping[str, str]) -> tuple[str, ...]:
    """The names after the edits, without those that are gone."""
    return tuple(changed[name] for name in names if name in changed)
