"""What a converted checkpoint says otherwise than the one it was made of."""

from collections.abc import Iterator

from data_tools.stats import NormalizationStats
from policy_ft.checkpoints.conversion.contents import Contents
from policy_ft.checkpoints.published.record import Published
from policy_ft.config.model import ModelConfig
from policy_ft.config.transforms import TransformsConfig

_ELSEWHERE = {
    "state_maps": "apply them to the state before the policy reads it",
    "action_maps": "undo them on the actions it returns",
    "delta_actions": "set them where the other program is configured",
}
"""Settings that a format may have no place for -> what to do there."""


def differences(contents: Contents, written: Published) -> Iterator[str]:
    """A remark for each setting that reading the written files back gives otherwise.

    Args:
        contents: of the checkpoint that was converted.
        written: the new one, read without the help of an embodiment.
    """
    for name in ModelConfig.model_fields:
        ours, theirs = getattr(contents.config, name), getattr(written.config, name)
        if ours != theirs:
            yield f"{name} {_short(ours)}: the files say {_short(theirs)}"
    for name in TransformsConfig.model_fields:
        ours, theirs = (getattr(each.transforms_config, name) for each in (contents, written))
        if ours != theirs and name != "cameras":
            hint = f"; {_ELSEWHERE[name]}" if name in _ELSEWHERE else ""
            yield f"{name} {_short(ours)}: the files say {_short(theirs)}{hint}"
    yield from _statistics_differences(contents, written)
    if contents.conventions != written.conventions:
        yield (
            "conventions (names, units and limits of columns, cameras, control rate): the files "
            "do not say all of them; name the embodiment to load them again"
        )


def _statistics_differences(contents: Contents, written: Published) -> Iterator[str]:
    if written.statistics is None and "statistics" in contents.absent:
        yield f"no statistics: {contents.absent['statistics']}"
        return
    for part in ("state", "actions"):
        ours: NormalizationStats = getattr(contents.statistics, part)
        theirs = getattr(written.statistics, part, None)
        kept = theirs.present if theirs is not None else ()
        lost = [name for name in ours.present if name not in kept]
        changed = [n for n in kept if n not in lost and getattr(ours, n) != getattr(theirs, n)]
        if lost:
            yield f"statistics of {part}: the files have no place for {', '.join(lost)}"
        if changed:
            yield f"statistics of {part}: the files say {', '.join(changed)} otherwise"


def _short(value: object) -> str:
    """A value on one line of a page."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
