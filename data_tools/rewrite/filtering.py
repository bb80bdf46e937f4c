"""filter: which steps and episodes to train on, by the rules of OpenVLA, DROID and RDT."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from data_tools.conventions import ActionSpec
from data_tools.episode import Dataset, Episode
from data_tools.errors import UserError, describe, nearest, raise_faults
from data_tools.formats.keep_files import ranges_of

NoopRule = Literal["openvla", "droid", "rdt"]
NOOP_RULES: Final[tuple[NoopRule, ...]] = get_args(NoopRule)

OPENVLA_MAX_MOTION: Final = 1e-4
DROID_MAX_CHANGE: Final = 1e-3
DROID_MIN_IDLE: Final = 7
DROID_MIN_MOVING: Final = 16
DROID_CUT_LAST: Final = 10
RDT_MIN_DISTANCE: Final = 1e-2
# Of an episode; a filter that removes more has usually met a unit or a task it was not made for.
MAX_REMOVED: Final = 0.5

Kept = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rules:
    """What to leave out.

    Attributes:
        noops: steps in which nothing happens, by the rule of one project; None keeps them.
        drop_failures: whether episodes judged a failure are left out; those nobody judged stay.
        min_steps: episodes with fewer are left out.
        max_steps: episodes with more are left out; None keeps them.
        max_mads: episodes whose length is further from the median than this many median absolute
            deviations (scaled to a standard deviation) are left out; None keeps them.
        allow_most: whether a no-op rule may remove more than half of an episode.
        leave_out: names of episodes to leave out, as `validate` tells them or the ends of these:
            'demo_3', 'pick.hdf5:data/demo_3'.
    """

    noops: NoopRule | None = None
    drop_failures: bool = False
    min_steps: int = 1
    max_steps: int | None = None
    max_mads: float | None = None
    allow_most: bool = False
    leave_out: tuple[str, ...] = ()

    def faults(self) -> list[str]:
        """What no episode could mean."""
        least, most, mads = self.min_steps, self.max_steps, self.max_mads
        faults = []
        if least < 1:
            expected, remedy = "1 or more", "1 keeps every episode."
            faults.append(describe("min_steps", str(least), expected, remedy))
        if most is not None and most < max(least, 1):
            expected, remedy = f"{max(least, 1)} or more", "Leave it out to keep long episodes."
            faults.append(describe("max_steps", str(most), expected, remedy))
        if mads is not None and not 0 < mads < np.inf:
            expected, remedy = "a number above 0", "3 is usual."
            faults.append(describe("max_mads", str(mads), expected, remedy))
        if self.allow_most and self.noops is None:
            remedy = "Name a no-op rule (--noops), or leave it out."
            faults.append(describe("allow_most", "no rule that removes steps", "one", remedy))
        return faults

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in vars(self).items())


def kept_steps(dataset: Dataset, rules: Rules) -> list[Kept]:
    """bool[t] for each episode, true where a step is kept; all false where an episode is left out.

    Raises:
        UserError: a number is out of its range, a no-op rule removes more than half of an episode
            and may not, it does not suit the actions, or nothing is left.
    """
    names = [dataset[index].name for index in range(len(dataset))]
    raise_faults([*rules.faults(), *_name_faults(names, rules.leave_out)])
    is_noop = _noop_rule(rules.noops, dataset)
    lengths = np.array([dataset[index].num_steps for index in range(len(dataset))])
    kept, faults = [], []
    for index in range(len(dataset)):
        episode = dataset[index]
        is_named = any(_is_called(episode.name, name) for name in rules.leave_out)
        if is_named or not _is_wanted(episode, rules, lengths):
            kept.append(np.zeros(episode.num_steps, dtype=bool))
            continue
        steps = is_noop(episode)
        removed = 1 - steps.mean()
        if removed > MAX_REMOVED and not rules.allow_most:
            found = f"{removed:.0%} of the steps that the rule {rules.noops!r} removes"
            remedy = "Look at the episode; allow it (--allow-most) if it is right."
            faults.append(describe(episode.name, found, f"at most {MAX_REMOVED:.0%}", remedy))
        kept.append(steps)
    raise_faults(faults)
    if not any(steps.any() for steps in kept):
        remedy = "Loosen the rules."
        raise UserError(describe("filter", "no step left", "at least one", remedy))
    return kept


def _is_called(episode: str, name: str) -> bool:
    return episode == name or episode.endswith((f"/{name}", f":{name}"))


def _name_faults(episodes: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    """Names that are no episode's, or several ones'."""
    for name in names:
        called = [episode for episode in episodes if _is_called(episode, name)]
        if len(called) != 1:
            ends = [episode.rpartition(":")[2].rpartition("/")[2] for episode in episodes]
            found = f"{len(called)} episodes of that name, first {called[:3]}" if called else "none"
            hint = nearest(name, ends) if not called else "say which by more of its name."
            remedy = f"Correct the name{f'; {hint}' if hint else '.'}"
            yield describe(f"leave_out {name!r}", found, "one episode", remedy)


def openvla_kept(actions: npt.NDArray[np.floating], grippers: Sequence[int]) -> Kept:
    """bool[t], false where a delta action neither moves the arm nor changes the gripper.

    A step is a no-op when the norm of its motion columns is below 1e-4 and its gripper command is
    that of the last step kept. Of [0 | 1], [.1 | 1], [0 | 1], [0 | -1], [0 | -1] the second and
    fourth stay: before the second, nothing was kept that the gripper could differ from.
    Source: regenerate_libero_dataset.py of openvla/openvla.

    Args:
        actions: float[t, a].
        grippers: indices of the gripper columns; the others are motion.
    """
    is_still = np.linalg.norm(np.delete(actions, grippers, axis=1), axis=1) < OPENVLA_MAX_MOTION
    kept = np.zeros(len(actions), dtype=bool)
    last = None
    for step, gripper in enumerate(actions[:, list(grippers)]):
        kept[step] = not is_still[step] or (last is not None and bool((gripper != last).any()))
        if kept[step]:
            last = gripper
    return kept


def droid_kept(velocities: npt.NDArray[np.floating]) -> Kept:
    """bool[t], true in the ranges that openpi's DROID configuration trains on.

    A step is idle when no commanded velocity differs by 1e-3 or more from the step before. Runs of
    at least 7 idle steps go; of what is left, ranges shorter than 16 go, and of each longer one the
    last 10 steps, whose action chunks would reach into the idle run.
    Source: examples/droid/compute_droid_nonidle_ranges.py of Physical-Intelligence/openpi.

    Args:
        velocities: float[t, d], commanded joint velocities in rad/s.
    """
    change = np.abs(np.diff(velocities, axis=0, prepend=np.inf))
    is_idle: Kept = np.all(change < DROID_MAX_CHANGE, axis=1)
    moving = np.ones(len(velocities), dtype=bool)
    for start, stop in ranges_of(is_idle):
        if stop - start >= DROID_MIN_IDLE:
            moving[start:stop] = False
    kept = np.zeros(len(velocities), dtype=bool)
    for start, stop in ranges_of(moving):
        if stop - start >= DROID_MIN_MOVING:
            kept[start : stop - DROID_CUT_LAST] = True
    return kept


def rdt_kept(state: npt.NDArray[np.floating]) -> Kept:
    """bool[t], true from the step before the state first leaves its start by more than 1e-2.

    An episode that never leaves it is all false. Source: data/hdf5_vla_dataset.py of
    thu-ml/RoboticsDiffusionTransformer, which also drops episodes below 128 steps (`min_steps`).

    Args:
        state: float[t, s], joint positions in rad.
    """
    has_left = (np.abs(state - state[:1]) > RDT_MIN_DISTANCE).any(axis=1)
    if not has_left.any():
        return np.zeros(len(state), dtype=bool)
    return np.arange(len(state)) >= int(np.argmax(has_left)) - 1


def _noop_rule(name: NoopRule | None, dataset: Dataset) -> Callable[[Episode], Kept]:
    action = dataset.conventions.action
    grippers = [action.names.index(gripper.column) for gripper in action.grippers]
    motion = [column for column in range(len(action.names)) if column not in grippers]
    match name:
        case None:
            return lambda episode: np.ones(episode.num_steps, dtype=bool)
        case "openvla":
            _require_references(name, action, motion, ("delta", "velocity"))
            return lambda episode: openvla_kept(episode.actions(), grippers)
        case "droid":
            _require_references(name, action, motion, ("velocity",))
            return lambda episode: droid_kept(episode.actions()[:, motion])
        case "rdt":
            return lambda episode: rdt_kept(episode.state())
        case _:
            hint = nearest(str(name), NOOP_RULES)
            remedy = f"Choose one of these{f'; {hint}' if hint else '.'}"
            found, expected = repr(name), f"one of {list(NOOP_RULES)}"
            raise UserError(describe("no-op rule", found, expected, remedy))


def _require_references(
    rule: str, action: ActionSpec, motion: Sequence[int], allowed: Sequence[str]
) -> None:
    raise_faults(
        describe(
            f"no-op rule {rule!r}, action column {action.names[column]!r}",
            f"reference {action.references[column]!r}",
            f"{' or '.join(allowed)}",
            "Choose a rule for such actions (rdt looks at the state), or correct the declaration.",
        )
        for column in motion
        if action.references[column] not in allowed
    )


def _is_wanted(episode: Episode, rules: Rules, lengths: npt.NDArray[np.int64]) -> bool:
    """Whether the rules about whole episodes keep this one."""
    if rules.drop_failures and episode.is_success is False:
        return False
    if rules.max_steps is not None and episode.num_steps > rules.max_steps:
        return False
    median = float(np.median(lengths))
    spread = 1.4826 * float(np.median(np.abs(lengths - median)))
    far = rules.max_mads is not None and (
        abs(episode.num_steps - median) > rules.max_mads * max(spread, 1.0)
    )
    return episode.num_steps >= rules.min_steps and not far
