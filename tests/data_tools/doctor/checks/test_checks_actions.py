"""What actions mean, by evidence: shifted, late, mistaken, inverted; and clean."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from data_tools.doctor.checks.simulated import exact_shift
from data_tools.doctor.examination import validate

LATE = {"late_motion"}


def pair_with(dataset, shift):
    """Observations stored `shift` steps after their actions, as LIBERO stores them by one."""
    return dataset.change_all(
        states=lambda s: s[shift:],
        commands=lambda a: a[:-shift],
        clock=lambda c: c[shift:],
        frames=lambda images: {camera: each[shift:] for camera, each in images.items()},
    )


def late(dataset, steps):
    """A robot that does everything `steps` later."""
    return dataset.change_all(
        states=lambda s: np.concatenate([np.repeat(s[:1], steps, axis=0), s[:-steps]])
    )


def copied(dataset):
    episodes = [replace(each, commands=each.states.copy()) for each in dataset.episodes]
    return replace(dataset, episodes=episodes)


class Simulated:
    """An episode that kept the simulator's states, `shift` steps before its observations."""

    def __init__(self, episode, shift):
        self._episode, self._shift = episode, shift

    def __getattr__(self, name):
        return getattr(self._episode, name)

    def simulator_states(self):
        states = np.roll(self._episode.states, self._shift, axis=0)
        states[: self._shift] = 9.0
        return np.concatenate([np.arange(len(states))[:, None], states[:, ::-1]], axis=1)


def simulated(shift, dataset):
    return replace(dataset, episodes=[Simulated(each, shift) for each in dataset.episodes])


BROKEN = [
    ("actions_after_motion", "delta_ee", lambda d: pair_with(d, 1)),
    ("actions_after_motion", "joint_velocity", lambda d: pair_with(d, 1)),
    ("late_motion", "joints", lambda d: late(d, 18)),
    ("action_is_state", "joints", copied),
    (
        "looks_absolute",
        "joints",
        lambda d: d.declare("action", references=("delta",) * 6 + ("absolute",)),
    ),
    (
        "looks_velocity",
        "joint_velocity",
        lambda d: d.declare("action", references=("absolute",) * 7),
    ),
    (
        "inverted_action",
        "delta_ee",
        lambda d: d.change_all(commands=lambda a: a * ([1.0, -1.0] + [1.0] * 5)),
    ),
    ("shifted_observations", "delta_ee", partial(simulated, 1)),
]


@pytest.mark.parametrize(("rule", "kind", "broken"), BROKEN, ids=lambda value: str(value)[:24])
def test_actions_that_do_not_mean_what_is_declared_break_exactly_one_rule(
    robot, rules, rule, kind, broken
):
    assert rules(robot(kind)) == []
    assert rules(broken(robot(kind))) == [rule]


@pytest.mark.parametrize("hz", [5.0, 10.0, 20.0, 50.0])
@pytest.mark.parametrize("kind", ["delta_ee", "joints", "joint_velocity"])
@pytest.mark.parametrize("time_constant_s", [0.02, 0.1, 0.4])
def test_quick_slow_noisy_and_late_robots_at_any_rate_have_no_findings(
    robot, kind, hz, time_constant_s
):
    alpha = float(1 - np.exp(-1 / hz / time_constant_s))
    delay = int(0.1 * hz)
    for noise in (0.0, 0.1):
        dataset = robot(
            kind, hz=hz, alpha=alpha, delay=delay, noise=noise, seed=3, episodes=5, seconds=6.0
        )
        assert [str(finding) for finding in validate(dataset)] == []


@pytest.mark.parametrize("kind", ["delta_ee", "joints", "joint_velocity"])
@pytest.mark.parametrize("shift", [2, 5, 6, 8, 10])
def test_pairs_shifted_by_up_to_half_a_second_are_found(robot, rules, kind, shift):
    """Of actions rolled on, the first ones are the last: they belong to nothing."""
    rolled = robot(kind).change_all(commands=lambda a: np.roll(a, shift, axis=0))
    (finding,) = [each for each in validate(rolled) if each.rule == "actions_after_motion"]
    assert 0 <= shift - int(finding.value.split(" steps before")[0].split()[-1]) <= 1
    assert set(rules(rolled)) <= {"actions_after_motion", "gripper_polarity"}


@pytest.mark.parametrize("period_s", [0.5, 1.0, 2.0, 2.5])
@pytest.mark.parametrize("reference", ["delta", "absolute"])
@pytest.mark.parametrize(("delay", "late"), [(1, set()), (15, LATE), (40, LATE)])
@pytest.mark.parametrize("noise", [0.0, 0.003])
def test_motion_that_repeats_itself_is_not_taken_for_a_shift(
    robot, rules, period_s, reference, delay, late, noise
):
    """A robot that wipes looks half a period earlier as it does half a period later."""
    dataset = robot("joints", episodes=6)
    rng = np.random.default_rng(4)
    for index, episode in enumerate(dataset.episodes):
        steps = np.arange(episode.num_steps + delay + 1)[:, None]
        phase = rng.uniform(0, 2 * np.pi, 6) + 2 * np.pi * steps / (20 * period_s)
        target = np.sin(phase) + rng.normal(0, noise, phase.shape)
        told = np.diff(target, axis=0) if reference == "delta" else target
        commands, states = episode.commands.copy(), episode.states.copy()
        commands[:, :6] = told[delay:][: len(commands)]
        states[:, :6] = target[: len(states)]
        dataset = dataset.change(index, commands=commands, states=states)
    dataset = dataset.declare("action", references=(reference,) * 6 + ("absolute",))
    assert {"actions_after_motion", "late_motion"} & {*rules(dataset)} <= late


@pytest.mark.parametrize("hz", [10.0, 20.0])
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_pairs_shifted_by_one_are_found_on_quick_controllers(robot, rules, hz, noise):
    dataset = robot("delta_ee", hz=hz, alpha=1.0, noise=noise)
    assert rules(dataset) == []
    assert rules(pair_with(dataset, 1)) == ["actions_after_motion"]


def test_the_exact_test_finds_a_shift_that_a_slow_controller_hides(robot, rules):
    # A controller that goes 30 % of the way in a step moves later by about the step that the pairs
    # are early: the lag test cannot see it, the simulator's states can.
    hidden = pair_with(robot("delta_ee", alpha=0.3), 1)
    assert rules(hidden) == []
    assert rules(simulated(1, hidden)) == ["shifted_observations"]


def test_the_exact_test_names_the_shift_and_is_silent_without_proof():
    walk = np.cumsum(np.random.default_rng(0).normal(size=(60, 3)), axis=0)
    states = np.concatenate([np.zeros((60, 1)), walk, np.cos(walk)], axis=1)
    assert exact_shift(walk[1:], states[:-1]) == 1
    assert exact_shift(walk[:-2], states[2:]) == -2
    assert exact_shift(walk, states) == 0
    assert exact_shift(walk + 0.1, states) is None
    assert exact_shift(walk[:, :1], states) is None  # one column may be chance
    assert exact_shift(0 * walk, 0 * states) is None


def test_simulated_episodes_whose_observations_fit_have_no_findings(robot, rules):
    assert rules(simulated(0, robot("delta_ee"))) == []


def test_signs_are_not_compared_between_two_frames(robot, rules):
    inverted = robot("delta_ee").change_all(commands=lambda a: a * ([1.0, -1.0] + [1.0] * 5))
    assert rules(inverted.declare("action", frame="camera")) == []
