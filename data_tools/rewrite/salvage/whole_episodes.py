"""Which episodes of a surveyed file are whole, and what each of the others lost."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from data_tools.rewrite.salvage.damage_survey import Item

EPISODE_NAME: Final = re.compile(r"(demo|traj|trajectory|episode|ep)?_?\d+")
ACTION_NAMES: Final = ("actions", "action")
_SHOWN_RANGES: Final = 6


@dataclass(frozen=True)
class Judged:
    """One episode: where it is, how long, and what is wrong with it; whole when nothing is."""

    group: str
    num_steps: int | None
    losses: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether everything of it was read."""
        return not self.losses


def find_groups(items: Mapping[str, Item]) -> list[str]:
    """Groups that are episodes: demo_3, traj_0, ... of the root or of `data`; else the file, ''."""
    found = [
        path
        for path, item in items.items()
        if item.is_group
        and path.rpartition("/")[0] in ("", "data")
        and EPISODE_NAME.fullmatch(path.rpartition("/")[2])
    ]
    return sorted(found, key=_natural) or [""]


def judge(items: Mapping[str, Item], num_samples: Mapping[str, int]) -> list[Judged]:
    """Every episode with its losses.

    An episode is whole when all its objects were read, it has every dataset that more than half of
    the episodes have, with as many rows (or as many beyond its actions) as theirs, and as many
    actions as its attribute `num_samples` says.

    Args:
        items: of the file, by path.
        num_samples: the attribute `num_samples` of the episodes' groups that have one.
    """
    groups = find_groups(items)
    members = {group: _below(items, group) for group in groups}
    usual = _usual_names(members.values())
    rows, beyond = _usual_rows(members, usual)
    judged = []
    for group, inside in members.items():
        losses = [loss for key, item in inside.items() for loss in _item_losses(key, item)]
        lacking = sorted(usual - set(inside))
        losses += [f"has no {key!r}, which most episodes have" for key in lacking]
        num_actions = _num_actions(inside)
        for key, item in inside.items():
            expected = {rows.get(key)}
            if num_actions is not None and key in beyond:
                expected.add(num_actions + beyond[key])
            if key in rows and not item.is_group and item.num_rows not in expected:
                losses.append(f"{key}: {item.num_rows} rows, unlike in most episodes")
        if num_actions is not None and num_samples.get(group, num_actions) != num_actions:
            losses.append(f"{num_actions} actions where num_samples says {num_samples[group]}")
        if not any(not item.is_group for item in inside.values()):
            losses.append("holds no data")
        judged.append(Judged(group, num_actions, tuple(dict.fromkeys(losses))))
    return judged


def row_ranges(rows: Iterable[int]) -> str:
    """Row numbers as ranges: '3-7, 9'; the first six, then how many more rows."""
    ranges: list[list[int]] = []
    ordered = sorted(rows)
    for row in ordered:
        if ranges and ranges[-1][1] == row - 1:
            ranges[-1][1] = row
        else:
            ranges.append([row, row])
    words = [f"{a}" if a == b else f"{a}-{b}" for a, b in ranges[:_SHOWN_RANGES]]
    more = len(ordered) - sum(b - a + 1 for a, b in ranges[:_SHOWN_RANGES])
    return ", ".join(words) + (f" and {more} more" if more else "")


def _item_losses(key: str, item: Item) -> list[str]:
    where = key or "the group"
    losses = [f"{where}: {fault}" for fault in item.faults]
    reasons: dict[str, list[int]] = {}
    for row, reason in item.lost.items():
        reasons.setdefault(reason.split(" (")[0].split(":")[0], []).append(row)
    kept = item.num_rows - len(item.lost)
    for reason, lost in reasons.items():
        losses.append(f"{where}: {kept} of {item.num_rows} rows left; {row_ranges(lost)} {reason}")
    return losses


def _below(items: Mapping[str, Item], group: str) -> dict[str, Item]:
    """What an episode holds, by path from its group; '' is the group itself."""
    if group == "":
        return dict(items)
    prefix = f"{group}/"
    inside = {path.removeprefix(prefix): x for path, x in items.items() if path.startswith(prefix)}
    return {"": items[group]} | inside


def _usual_names(members: Iterable[Mapping[str, Item]]) -> set[str]:
    counts = Counter(key for inside in members for key in inside)
    total = len(list(members))
    return {key for key, count in counts.items() if 2 * count > total}


def _usual_rows(
    members: Mapping[str, Mapping[str, Item]], usual: set[str]
) -> tuple[dict[str, int], dict[str, int]]:
    """For each usual dataset the rows most episodes have, and how many beyond their actions."""
    rows: dict[str, int] = {}
    beyond: dict[str, int] = {}
    for key in usual:
        having = [
            (inside[key].num_rows, _num_actions(inside))
            for inside in members.values()
            if key in inside and not inside[key].is_group
        ]
        if len(having) < 2:
            continue
        rows[key] = Counter(count for count, _ in having).most_common(1)[0][0]
        differences = Counter(count - steps for count, steps in having if steps is not None)
        if differences:
            beyond[key] = differences.most_common(1)[0][0]
    return rows, beyond


def _num_actions(inside: Mapping[str, Item]) -> int | None:
    return next((inside[name].num_rows for name in ACTION_NAMES if name in inside), None)


def _natural(path: str) -> tuple[str, int]:
    number = re.search(r"\d+$", path)
    return (path[: number.start()], int(number[0])) if number else (path, 0)
