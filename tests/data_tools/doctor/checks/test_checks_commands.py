"""Commands that no robot followed: grippers that chatter, and targets clipped by the recorder."""

import numpy as np
import pytest

from data_tools.doctor.examination import examine, validate

ODD = 2


def with_column(column, change):
    def changed(array):
        array = array.copy()
        array[:, column] = change(array[:, column])
        return array

    return changed


def toggled(held, holds, start=30):
    """A gripper's command that turns over so many times, held for so many steps each."""

    def change(command):
        command = command.copy()
        low, high = command.min(), command.max()
        command[: start + holds * held + 12] = high
        for number in range(holds):
            place = slice(start + number * held, start + (number + 1) * held)
            command[place] = high if number % 2 else low
        return command

    return with_column(6, change)


def told(dataset, rule):
    return [each for each in validate(dataset) if each.rule == rule]


@pytest.mark.parametrize("kind", ["delta_ee", "joints"])
@pytest.mark.parametrize(("hz", "held"), [(5.0, 1), (10.0, 1), (20.0, 1), (20.0, 3), (50.0, 8)])
def test_a_gripper_that_chatters_is_told_at_its_first_turn(robot, kind, hz, held):
    dataset = robot(kind, hz=hz)
    (found,) = told(dataset.change(ODD, commands=toggled(held, 6, start=12)), "gripper_chatter")
    assert found.where == dataset.episodes[ODD].name
    assert abs(found.step - 12) <= 1
    assert "turning over 6 times within" in found.value


@pytest.mark.parametrize(("held", "holds"), [(4, 8), (10, 6), (1, 2)])
def test_a_grasp_tried_again_and_a_slip_of_the_finger_are_no_chatter(robot, held, holds):
    """At 20 Hz: 0.2 s and more, or twice in a row."""
    assert told(robot("joints").change(ODD, commands=toggled(held, holds)), "gripper_chatter") == []


def test_quick_fingers_that_follow_every_turn_are_no_chatter(robot):
    """A simulated gripper that closes within a step of 0.1 s."""
    dataset = robot("joints", hz=10.0)
    turned = dataset.change(ODD, commands=toggled(1, 6, start=12))
    followed = turned.change(
        ODD, states=with_column(6, lambda _: turned.episodes[ODD].commands[:, 6])
    )
    assert told(turned, "gripper_chatter") != []
    assert told(followed, "gripper_chatter") == []


def test_a_trigger_held_half_is_no_chatter(robot):
    rng = np.random.default_rng(0)
    half = robot("joints").change_all(
        commands=with_column(6, lambda a: np.clip(rng.normal(0.5, 0.08, len(a)), 0.3, 0.7))
    )
    assert told(half, "gripper_chatter") == []


def test_a_gripper_that_is_told_any_width_is_no_switch_that_chatters(robot):
    """Random exploration, say."""
    rng = np.random.default_rng(0)
    anywhere = robot("joints").change_all(
        commands=with_column(6, lambda a: rng.uniform(size=len(a)))
    )
    assert told(anywhere, "gripper_chatter") == []


def test_chatter_is_in_the_ledger_where_nothing_is_a_switch(robot):
    dataset = robot("joints").declare("action", grippers=())
    lines = {rule: line.why for line in examine(dataset).ledger for rule in line.rules}
    assert lines["gripper_chatter"] == "no gripper is declared that is told a place"


def clipped(bound, side="high"):
    limits = (None, bound) if side == "high" else (bound, None)
    return with_column(1, lambda a: np.clip(a, *limits))


@pytest.mark.parametrize("hz", [10.0, 20.0, 50.0])
@pytest.mark.parametrize("alpha_s", [0.02, 0.3])
@pytest.mark.parametrize("side", ["high", "low"])
def test_targets_that_the_recorder_clipped_are_told_with_the_bound(robot, hz, alpha_s, side):
    alpha = float(1 - np.exp(-1 / hz / alpha_s))
    dataset = robot("joints", hz=hz, alpha=alpha, delay=int(0.1 * hz), seconds=12.0)
    bound = 0.2 if side == "high" else -0.2
    found = told(dataset.change_all(commands=clipped(bound, side)), "clipped_targets")
    assert [f"action 'joint_1' at {bound:g} in" in each.value for each in found] == [True]


def test_a_robot_that_stays_at_the_bound_was_told_no_more(robot):
    """Clipped before the robot heard of it, as waypoints and limits of a controller are."""
    dataset = robot("joints", alpha=1.0)
    for commands, states in ((0.45, 0.45), (0.45, 0.455)):
        limited = dataset.change_all(commands=clipped(commands), states=clipped(states))
        assert told(limited, "clipped_targets") == []


def test_waypoints_that_a_slow_robot_nears_are_not_clipped(robot):
    """Targets that jump to places of which one is the farthest, again and again."""
    dataset = robot("joints", hz=20.0)
    for index, episode in enumerate(dataset.episodes):
        rng = np.random.default_rng(index)
        places = rng.choice([-0.6, -0.2, 0.3, 0.7], 1 + episode.num_steps // 25)
        target = np.repeat(places, 25)[: episode.num_steps]
        reached = [target[0]]
        for goal in target[:-1]:
            reached.append(reached[-1] + 0.25 * (goal - reached[-1]))
        dataset = dataset.change(
            index,
            commands=with_column(1, lambda _, target=target: target),
            states=with_column(1, lambda _, reached=reached: reached),
        )
    assert told(dataset, "clipped_targets") == []


def test_a_declared_bound_is_judged_by_the_rule_about_declared_bounds(robot):
    limited = robot("joints").declare("action", low=(-9.0,) * 7, high=(9.0, 0.45) + (9.0,) * 5)
    limited = limited.change_all(commands=clipped(0.45))
    assert told(limited, "clipped_targets") == []
    assert len(told(limited, "clipped_action")) == 1
