"""The doctor judges any numbers of any shape, or says why it does not; it never fails on them."""

from dataclasses import replace

import numpy as np
import pytest

from data_tools.doctor.examination import examine

KINDS = ("delta_ee", "joints", "joint_velocity")


def cut(dataset, steps):
    def first(array):
        return array[:steps]

    return dataset.change_all(
        states=first,
        commands=first,
        clock=first,
        frames=lambda frames: {camera: each[:steps] for camera, each in frames.items()},
    )


def at_rate(dataset, hz):
    return replace(dataset, conventions=dataset.conventions.model_copy(update={"control_hz": hz}))


def quiet(dataset):
    return replace(dataset, conventions=dataset.conventions.model_copy(update={"cameras": ()}))


def found(dataset):
    return {finding.rule for finding in examine(dataset).findings}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 6, 31, 32])
def test_episodes_of_any_length_are_judged(robot, kind, steps):
    expected = {"short_episode"} if steps < 4 else set()
    allowed = {"near_constant_column", "no_ops", "control_rate", "short_episode"}
    allowed |= {"idle_episode"}
    assert expected <= found(cut(robot(kind), steps)) <= allowed


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [0.0, 1e-18, 1e18])
def test_numbers_of_any_size_are_judged(robot, kind, factor):
    scaled = quiet(robot(kind)).change_all(states=lambda s: s * factor)
    assert found(scaled) >= ({"zero_state"} if factor == 0 else set())
    found(scaled.change_all(commands=lambda a: a * factor))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hz", [0.5, 1.0, 1000.0])
def test_any_control_rate_is_judged(robot, kind, hz):
    assert "control_rate" in found(quiet(at_rate(robot(kind), hz)))


@pytest.mark.parametrize("kind", KINDS)
def test_data_without_a_finite_number_or_an_episode_is_judged(robot, kind):
    assert found(robot(kind).change_all(states=lambda s: s * np.nan)) == {"not_finite"}
    assert found(replace(robot(kind), episodes=[])) == set()
    assert found(replace(robot(kind), episodes=robot(kind).episodes[:1])) == set()


def test_data_without_a_state_or_with_a_gripper_alone_is_judged(robot):
    without = robot("joints").declare("state", names=(), units=())
    assert "zero_state" in found(quiet(without).change_all(states=lambda s: s[:, :0]))
    alone = robot("joints").declare(
        "action",
        names=("gripper",),
        units=("1",),
        references=("absolute",),
        low=(0.0,),
        high=(1.0,),
    )
    assert found(alone.change_all(commands=lambda a: a[:, 6:])) <= {"no_ops"}
