"""What the declaration, or the number of episodes and cameras, leaves the checks without."""

from collections.abc import Iterator, Sequence

import numpy as np

from data_tools.doctor.checks import collection, leakage, looks, numbers, optics, rotations, spreads
from data_tools.doctor.checks.pictures import DUPLICATED_CAMERA
from data_tools.doctor.checks.pictures import RULES as FRAME_RULES
from data_tools.doctor.checks.recording import Declared, Labels
from data_tools.finding import DATASET, NotChecked, Rule, not_checked


def undeclared_needs(declared: Declared) -> Iterator[NotChecked]:
    """Rules about columns and cameras of a kind of which none is declared."""
    roles, action, cameras = (
        declared.roles,
        declared.conventions.action,
        declared.conventions.cameras,
    )
    has_limits = bool(np.isfinite([*action.low, *action.high]).any())
    is_timed = "unknown" not in action.references and declared.control_hz is not None
    needs: tuple[tuple[object, str, tuple[Rule, ...]], ...] = (
        (roles.joints, "no state column is declared as a joint in rad", (numbers.JOINT_JUMP,)),
        (roles.angles, "no state column is declared in rad", (numbers.ANGLE_WRAP, spreads.DEGREES)),
        (
            roles.positions,
            "no state column is declared in m",
            (numbers.POSITION_JUMP, spreads.MILLIMETRES),
        ),
        (roles.quaternions, "no four columns are named as a quaternion", rotations.RULES),
        (
            has_limits,
            "no limits of the actions are declared",
            (numbers.ACTION_OUT_OF_RANGE, spreads.CLIPPED_ACTION),
        ),
        (
            is_timed,
            "nobody declares control_hz and what every action refers to",
            (collection.IDLE_EPISODE, collection.NO_OPS),
        ),
        (cameras, "no camera is declared", (*FRAME_RULES, *looks.RULES, *optics.RULES)),
        (
            len(cameras) != 1,
            "there is one camera",
            (DUPLICATED_CAMERA, looks.EXCHANGED_CAMERAS),
        ),
    )
    for is_there, why, rules in needs:
        if not is_there:
            yield not_checked(DATASET, why, *rules)


def unrecorded_needs(episodes: Sequence[Labels], seen: int) -> Iterator[NotChecked]:
    """Rules about what no episode says of itself, or that too few episodes show.

    Args:
        episodes: that can be read.
        seen: how many of them have pictures that decode.
    """
    if 0 < seen < looks.MIN_EPISODES:
        why = f"fewer than {looks.MIN_EPISODES} episodes have pictures to compare"
        rules = (looks.TURNED_FRAMES, looks.EXCHANGED_CAMERAS, looks.SWAPPED_COLORS)
        yield not_checked(DATASET, why, *rules)
    counts: dict[str, int] = {}
    for each in episodes:
        counts[each.instruction] = counts.get(each.instruction, 0) + 1
    few = collection.MIN_EPISODES
    for each in episodes:
        if counts[each.instruction] < few:
            why = f"fewer than {few} episodes have its sentence"
            yield not_checked(each.name, why, collection.LENGTH_OUTLIER)
    if all(each.is_success is None for each in episodes):
        why = "no episode says whether it succeeded"
        yield not_checked(DATASET, why, collection.NO_SUCCESS, collection.FAILED_EPISODES)
    if not any(each.is_success and collection.LAST_REWARD in each.attributes for each in episodes):
        why = "no success was kept with its last reward"
        yield not_checked(DATASET, why, collection.SUCCESS_WITHOUT_REWARD)
    if not any(leakage.SPLIT_ATTRIBUTE in each.attributes for each in episodes):
        why = "no episode says to which split it belongs (--validation compares with other data)"
        yield not_checked(DATASET, why, *leakage.RULES)
