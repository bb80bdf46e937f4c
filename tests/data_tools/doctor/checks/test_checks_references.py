"""Targets, displacements and speeds are told apart by their numbers, whatever is declared."""

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from data_tools.doctor.examination import validate

JOINTS = slice(0, 6)
SHAPES = ("minjerk", "sine")


def path(shape, rng, steps, hz):
    """float64[steps, 6] in rad: reaches of 0.8 s between random places, or joints that swing."""
    if shape == "sine":
        phase = np.arange(steps)[:, None] / hz * 2.5 * (1 + 0.2 * rng.uniform(size=6))
        return 0.5 * np.sin(phase + rng.uniform(0, 1, 6))
    num = max(2, int(0.8 * hz))
    places = rng.uniform(-1, 1, (steps // num + 2, 6))
    s = np.linspace(0, 1, num)[:, None]
    s = 10 * s**3 - 15 * s**4 + 6 * s**5
    return np.concatenate([a + (b - a) * s for a, b in pairwise(places)])


def act(robot, make, shape="minjerk", hz=20.0, seconds=8.0, columns=JOINTS, names=None):
    """Episodes whose state follows a path, with the actions that `make` makes of it in `columns`.

    Where it makes none, actions are the state of the next step.
    """
    dataset = robot("joints", hz=hz, seconds=seconds, episodes=5)
    for index, episode in enumerate(dataset.episodes):
        steps = episode.num_steps
        q = path(shape, np.random.default_rng([7, index]), steps + 1, hz)[: steps + 1]
        states, commands = episode.states.copy(), episode.commands.copy()
        states[:, JOINTS], commands[:, JOINTS] = q[:-1], q[1:]
        commands[:, columns] = make(q, hz)[:, columns]
        dataset = dataset.change(index, states=states, commands=commands)
    return dataset


def displacements(q, hz):
    return np.diff(q, axis=0)


def speeds(q, hz):
    return np.diff(q, axis=0) * hz


def next_places(q, hz):
    return q[1:]


def told(dataset):
    return [(each.rule, each.value.split("'")[1]) for each in validate(dataset)]


def all_joints(rule):
    return [(rule, f"joint_{i}") for i in range(6)]


def declared(dataset, reference, unit="rad"):
    units, references = (unit,) * 6 + ("1",), (reference,) * 6 + ("absolute",)
    return dataset.declare("action", references=references, units=units)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("hz", [5.0, 15.0, 50.0])
@pytest.mark.parametrize("seconds", [3.0, 20.0])
def test_a_steps_motion_where_targets_are_declared_is_seen_at_any_rate_and_duration(
    robot, shape, hz, seconds
):
    for make, rule in ((displacements, "looks_delta"), (speeds, "looks_velocity")):
        wrong = act(robot, make, shape, hz, seconds)
        if not (shape == "sine" and make is speeds):
            assert told(wrong) == all_joints(rule)
    assert told(act(robot, next_places, shape, hz, seconds)) == []


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("hz", [5.0, 15.0, 50.0])
def test_targets_where_motion_is_declared_are_seen_at_any_rate(robot, shape, hz):
    for reference, unit in (("delta", "rad"), ("delta", "1"), ("velocity", "rad/s")):
        wrong = declared(act(robot, next_places, shape, hz), reference, unit)
        assert told(wrong) == all_joints("looks_absolute"), (reference, unit)
    assert told(declared(act(robot, displacements, shape, hz), "delta")) == []
    assert told(declared(act(robot, speeds, shape, hz), "velocity", "rad/s")) == []


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("hz", [10.0, 50.0])
def test_displacements_and_speeds_are_told_apart_by_their_units(robot, shape, hz):
    as_speed = declared(act(robot, displacements, shape, hz), "velocity", "rad/s")
    assert told(as_speed) == all_joints("looks_delta")
    as_displacement = declared(act(robot, speeds, shape, hz), "delta")
    found = [each for each in validate(as_displacement) if each.rule == "looks_velocity"]
    assert len(found) == 6
    assert "taken at its word it asks for" in found[0].value
    # numbers without a unit may be scaled as they like
    assert told(declared(act(robot, speeds, shape, hz), "delta", "1")) == []


@pytest.mark.parametrize("shape", SHAPES)
def test_columns_of_both_kinds_in_one_action_are_judged_each_for_itself(robot, shape):
    some = [0, 3]
    mixed = act(robot, displacements, shape, columns=some)
    assert told(mixed) == [("looks_delta", "joint_0"), ("looks_delta", "joint_3")]
    references = ["delta" if i in some else "absolute" for i in range(6)]
    assert told(mixed.declare("action", references=(*references, "absolute"))) == []


@pytest.mark.parametrize("hz", [20.0, 100.0])
def test_a_noisy_sensor_hides_no_displacements(robot, hz):
    """Encoders of 4096 steps a turn, and motions of a few of these."""
    counts = 2 * np.pi / 4096

    def read(states):
        return np.column_stack([np.round(states[:, :6] / counts) * counts, states[:, 6]])

    noisy = act(robot, displacements, hz=hz).change_all(states=read)
    assert {each.rule for each in validate(noisy)} == {"looks_delta"}
    assert told(act(robot, next_places, hz=hz).change_all(states=read)) == []


def test_columns_that_no_name_pairs_are_compared_bit_for_bit(robot):
    names = (*"abcdef", "gripper")
    for shape in SHAPES:
        wrong = act(robot, displacements, shape).declare("action", names=names)
        assert told(wrong) == [("looks_delta", each) for each in names[:6]]
        assert told(act(robot, next_places, shape).declare("action", names=names)) == []
        wrong = declared(act(robot, next_places, shape), "delta").declare("action", names=names)
        assert told(wrong) == [("looks_absolute", each) for each in names[:6]]


def test_a_reference_finding_quotes_the_sizes_and_fits_it_rests_on(robot):
    (finding, *_) = validate(act(robot, displacements))
    assert finding.value == (
        "action 'joint_0', declared absolute, equal to the motion in the step of state 'joint_0' "
        "in every step of 5 episodes"
    )
    assert finding.remedy == "Correct the column's reference: 'delta'."
    (finding, *_) = validate(act(robot, lambda q, hz: 0.9 * displacements(q, hz)))
    assert finding.rule == "looks_delta"
    assert re.search(r"spanning 0\.\d+ where state 'joint_0' spans 1\.9", finding.value)
    assert "1.00 with its motion, which is 1.11 times the number a step" in finding.value


def test_a_gripper_like_column_of_few_values_is_equal_to_nothing_by_chance(robot):
    """A switch that turns with the motion of an unpaired switch of the state."""
    names = (*"abcdef", "gripper")
    dataset = robot("joints").declare("action", names=names)

    def switched(array):
        array = array.copy()
        array[:, 0] = 0.0
        return array

    dataset = dataset.change_all(commands=switched, states=switched)
    episodes = [replace(each) for each in dataset.episodes]
    assert "looks_delta" not in {
        each.rule for each in validate(replace(dataset, episodes=episodes))
    }
