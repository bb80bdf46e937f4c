"""Broken numbers, columns, rotations and clocks: each breaks one rule, and clean data none."""

import re
from dataclasses import replace

import numpy as np
import pytest

from data_tools.doctor.examination import examine, validate


class Unreadable:
    """An episode of which the numbers do not decompress."""

    def __init__(self, episode):
        self._episode = episode

    def __getattr__(self, name):
        return getattr(self._episode, name)

    def state(self):
        raise OSError("inflate() failed")


def unreadable(dataset):
    return replace(dataset, episodes=[Unreadable(dataset.episodes[0]), *dataset.episodes[1:]])


def held(state):
    """The driver hangs for a second and a half."""
    return np.concatenate([state[:20], np.repeat(state[20:21], 30, axis=0), state[20:-30]])


def wrapped(state):
    """A wrist that turns through pi, written within one turn."""
    state = state.copy()
    state[:, 5] = np.linspace(0, 2 * np.pi, len(state)) % (2 * np.pi)
    state[:, 5] = (state[:, 5] + np.pi / 2) % (2 * np.pi) - np.pi
    return state


def flipped(state):
    state = state.copy()
    state[60:, 3:7] *= -1
    return state


def clipped(array):
    array = array.copy()
    array[:, 2] = np.clip(array[:, 2], None, 0.2)
    return array


def rarely_moved(state):
    state = state.copy()
    state[:, 2] = 1e-3 * np.sin(np.arange(len(state)) / 5)
    state[[40, 90], 2] = (0.06, -0.06)
    return state


def moved_at_33(state):
    return state + np.eye(7)[1] * 2.0 * (np.arange(len(state)) >= 33)[:, None]


def with_column(column, change):
    def changed(array):
        array = array.copy()
        array[:, column] = change(array[:, column])
        return array

    return changed


def uneven(clock):
    steps = np.random.default_rng(0).choice([0.02, 1.0, 1.45], len(clock), p=[0.45, 0.35, 0.2])
    return np.cumsum(steps) / 20.0


EPISODE = [
    ("unreadable_numbers", "delta_ee", unreadable),
    ("lengths", "delta_ee", lambda d: d.change(2, states=lambda s: s[:-3])),
    ("not_finite", "delta_ee", lambda d: d.set("states", 2, 7, 1, np.nan)),
    ("not_finite", "delta_ee", lambda d: d.set("commands", 2, 7, 1, -np.inf)),
    ("action_out_of_range", "delta_ee", lambda d: d.set("commands", 1, 9, 0, 1.5)),
    ("zero_state", "joints", lambda d: d.change(3, states=lambda s: 0 * s)),
    ("stuck_state", "joints", lambda d: d.set("states", 3, slice(None), 2, 0.1)),
    ("frozen_state", "delta_ee", lambda d: d.change(3, states=held)),
    ("joint_jump", "joints", lambda d: d.set("states", 3, 33, 1, 2.2)),
    ("position_jump", "delta_ee", lambda d: d.set("states", 3, 33, 1, 0.7)),
    ("angle_wrap", "joints", lambda d: d.change(3, states=wrapped)),
    (
        "quaternion_norm",
        "delta_ee",
        lambda d: d.change(2, states=lambda s: s * ([1.0] * 3 + [1.02] * 4 + [1.0])),
    ),
    ("quaternion_flip", "delta_ee", lambda d: d.change(2, states=flipped)),
    (
        "quaternion_hemisphere",
        "delta_ee",
        lambda d: d.change(2, states=lambda s: s * ([1.0] * 3 + [-1.0] * 4 + [1.0])),
    ),
]
COLUMNS = [
    (
        "near_constant_column",
        "delta_ee",
        lambda d: d.change_all(states=with_column(7, lambda width: 0 * width + 0.02)),
    ),
    ("outlier", "joints", lambda d: d.set("commands", 3, 30, 4, 60.0)),
    ("degrees", "joints", lambda d: d.change_all(states=with_column(5, lambda q: 5 * q))),
    (
        "clipped_action",
        "joints",
        lambda d: d.declare(
            "action", low=(-9.0,) * 7, high=(9.0, 9.0, 0.2, 9.0, 9.0, 9.0, 9.0)
        ).change_all(commands=clipped),
    ),
    ("clipped_state", "joints", lambda d: d.change_all(states=clipped)),
    ("narrow_quantiles", "delta_ee", lambda d: d.change_all(states=rarely_moved)),
]
TIME = [
    (
        "short_episode",
        "delta_ee",
        lambda d: d.change(1, states=lambda s: s[:3], commands=lambda a: a[:3], clock=None),
    ),
    ("time_backwards", "delta_ee", lambda d: d.change(1, clock=lambda c: np.append(c[:-1], 0.0))),
    ("control_rate", "delta_ee", lambda d: d.change(1, clock=lambda c: 1.2 * c)),
    (
        "dropped_steps",
        "delta_ee",
        lambda d: d.change(1, clock=lambda c: c + 2.0 * (np.arange(len(c)) > 50)),
    ),
    ("time_jitter", "delta_ee", lambda d: d.change(1, clock=uneven)),
]


@pytest.mark.parametrize(
    ("rule", "kind", "broken"), [*EPISODE, *COLUMNS, *TIME], ids=lambda value: str(value)[:24]
)
def test_broken_numbers_break_exactly_one_rule(robot, rules, rule, kind, broken):
    assert rules(robot(kind)) == []
    assert rules(broken(robot(kind))) == [rule]


def test_units_are_doubted_for_speeds_that_no_arm_has_and_not_for_places(robot, rules):
    """A joint may turn on and on, and the origin of a frame lie anywhere."""
    far = robot("delta_ee").change_all(states=with_column(2, lambda z: z + 70.0))
    assert rules(far) == []
    why = [line.why for line in examine(far).ledger if "millimetres" in line.rules]
    assert len(why) == 1
    assert "'eef_z' reaching 70.15 m is no faster than arms" in why[0]
    millimetres = robot("delta_ee").change_all(states=with_column(2, lambda z: 1000 * z))
    (found,) = [each for each in validate(millimetres) if each.rule == "millimetres"]
    assert re.search(r"'eef_z' reaching 1\d\d(.\d)? m and moving at \d+ m/s", found.value)
    turning = robot("joints").change_all(states=with_column(5, lambda q: q + 40.0))
    assert rules(turning) == []
    degrees = robot("joints").change_all(states=with_column(5, np.rad2deg))
    (found,) = [each for each in validate(degrees) if each.rule == "degrees"]
    assert re.search(
        r"'joint_5' reaching \d+(.\d+)? rad and moving at \d+(.\d+)? rad/s", found.value
    )


def test_four_columns_that_are_no_rotation_have_no_sign_to_repair(robot, rules):
    """Named as a quaternion is, and of any length."""
    scaled = robot("delta_ee").change(
        2, states=lambda s: flipped(s) * ([1.0] * 3 + [1.5] * 4 + [1.0])
    )
    assert rules(scaled) == ["quaternion_norm"]
    opposite = robot("delta_ee").change(2, states=lambda s: s * ([1.0] * 3 + [-1.5] * 4 + [1.0]))
    assert rules(opposite) == ["quaternion_norm"]


def test_a_finding_says_where_when_what_and_what_to_do(robot):
    (finding,) = validate(robot("joints").change(3, states=moved_at_33))
    assert (finding.where, finding.step) == ("arm.hdf5:data/demo_3", 33)
    assert "'joint_1' moving" in finding.value
    assert finding.threshold == "at most 0.5 rad or 6.28 rad/s a step"
    assert "Look for a glitch" in str(finding)


def test_a_gripper_held_open_or_closed_all_along_is_no_constant_column(robot, rules):
    held_closed = robot("delta_ee").change_all(commands=with_column(6, lambda a: 0 * a + 1.0))
    assert "near_constant_column" not in rules(held_closed)
    between = robot("delta_ee").change_all(commands=with_column(6, lambda a: 0 * a + 0.5))
    assert "near_constant_column" in rules(between)


def test_an_unknown_control_rate_leaves_out_only_what_needs_it(robot):
    dataset = robot("joints")
    unknown = replace(
        dataset, conventions=dataset.conventions.model_copy(update={"control_hz": None})
    )
    (finding,) = validate(unknown)
    assert (finding.rule, finding.value) == ("undeclared", "no control_hz")
    assert [f.rule for f in validate(unknown.change(3, states=moved_at_33))] == [
        "joint_jump",
        "undeclared",
    ]


def test_each_fault_of_the_numbers_is_told_in_its_episode(robot):
    dataset = robot("delta_ee")
    broken = dataset.set("states", 2, 7, 1, np.nan).set("commands", 3, 9, 0, 1.5)
    broken = unreadable(broken.change(4, states=lambda s: s[:-3]))
    assert [(f.rule, f.step) for f in validate(broken) if f.severity == "error"] == [
        ("unreadable_numbers", None),
        ("not_finite", 7),
        ("action_out_of_range", 9),
        ("lengths", None),
    ]
