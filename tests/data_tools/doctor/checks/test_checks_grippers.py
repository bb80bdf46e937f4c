"""What grippers mean, by evidence: turned round, in other values, in one episode; and clean."""

import re
from dataclasses import replace

import numpy as np
import pytest

from data_tools.doctor.examination import examine, validate


def gripper(open_value, closed_value):
    return ({"column": "gripper", "open_value": open_value, "closed_value": closed_value},)


def opened_by_0(states):
    """A gripper whose state says 0 where the action of the same name says 1."""
    return np.column_stack([states[:, :6], 1 - states[:, 6]])


def read_in(dataset, unit, name="gripper"):
    """The same numbers, with this said of the gripper's state."""
    state = dataset.conventions.state
    units, names = (*state.units[:6], unit), (*state.names[:6], name)
    return dataset.declare("state", units=units, names=names)


def turned_round(dataset, *episodes):
    """The gripper's commands of these episodes, with open as closed."""

    def change(commands):
        told = commands[:, 6]
        return np.column_stack([commands[:, :6], told.max() + told.min() - told])

    for index in episodes:
        dataset = dataset.change(index, commands=change)
    return dataset


BROKEN = [
    (
        "gripper_polarity",
        "delta_ee",
        lambda d: d.declare("action", grippers=gripper(1.0, -1.0)),
    ),
    ("gripper_polarity", "joints", lambda d: read_in(d.change_all(states=opened_by_0), "m")),
    (
        "gripper_polarity",
        "joints",
        lambda d: read_in(d.change_all(states=opened_by_0), "1", "gripper_opening"),
    ),
    ("gripper_flipped", "delta_ee", lambda d: turned_round(d, 3)),
    ("gripper_flipped", "joints", lambda d: turned_round(d, 0, 1, 2)),
    ("gripper_values", "delta_ee", lambda d: d.declare("action", grippers=gripper(0.0, 1.0))),
    ("gripper_values", "joints", lambda d: d.declare("action", grippers=gripper(1.0, -1.0))),
    ("gripper_values", "joints", lambda d: d.declare("action", grippers=gripper(255.0, 0.0))),
]


@pytest.mark.parametrize(("rule", "kind", "broken"), BROKEN, ids=lambda value: str(value)[:24])
def test_grippers_that_do_not_mean_what_is_declared_break_exactly_one_rule(
    robot, rules, rule, kind, broken
):
    assert rules(broken(robot(kind))) == [rule]


def test_a_gripper_that_nobody_uses_is_no_finding(robot, rules):
    rng = np.random.default_rng(0)
    unused = robot("joints").change_all(
        commands=lambda a: np.column_stack([a[:, :6], rng.normal(0.02, 0.01, len(a))]),
        states=lambda s: np.column_stack([s[:, :6], rng.normal(0.05, 0.01, len(s))]),
    )
    assert rules(unused) == []


def test_episodes_whose_gripper_contradicts_the_others_are_named(robot):
    dataset = robot("joints")
    names = [episode.name for episode in dataset.episodes]
    found = validate(turned_round(dataset, 0, 1, 2))
    assert [finding.where for finding in found] == names[:3]
    assert "correlation -" in found[0].value
    assert "the other sign in 5 episodes" in found[0].value
    # of equally many, those unlike the first one
    halves = validate(turned_round(dataset, 0, 1, 2, 3))
    assert [finding.where for finding in halves] == names[4:]
    # or unlike the declaration, where a width shows what that means
    halves = validate(read_in(turned_round(dataset, 0, 1, 2, 3), "m"))
    assert [finding.where for finding in halves] == names[:4]
    # the odd one is the one unlike most, whatever is declared
    most = turned_round(dataset, *range(7))
    assert [(finding.rule, finding.where) for finding in validate(most)] == [
        ("gripper_flipped", names[7])
    ]
    # and where the reading is sure to be a width, the declaration is to blame, too
    assert [(finding.rule, finding.where) for finding in validate(read_in(most, "m"))] == [
        ("gripper_polarity", "dataset"),
        ("gripper_flipped", names[7]),
    ]


@pytest.mark.parametrize("command", [lambda a: 1 - 2 * a, lambda a: 2 * a - 1, lambda a: 1 - a])
@pytest.mark.parametrize("reading", [lambda s: s, lambda s: 1 - s, lambda s: 255 * s])
def test_a_readings_name_and_unit_alone_never_turn_a_grippers_declaration_round(
    robot, rules, command, reading
):
    """A command of -1 may open what reads 1, under one name: only a width tells which is open."""
    dataset = robot("joints").change_all(
        commands=lambda a: np.column_stack([a[:, :6], command(a[:, 6])]),
        states=lambda s: np.column_stack([s[:, :6], reading(s[:, 6])]),
    )
    right = dataset.declare("action", grippers=gripper(command(1.0), command(0.0)))
    assert rules(right) == []
    wrong = dataset.declare("action", grippers=gripper(command(0.0), command(1.0)))
    assert rules(wrong) == []


def test_a_polarity_finding_names_its_evidence_and_a_step_that_decides(robot):
    dataset = robot("joints").change_all(states=opened_by_0)
    (finding,) = validate(read_in(dataset, "m"))
    assert "'gripper' is a length (m), so larger is wider" in finding.value
    told = re.search(r"told to open, it is (\S+) at step (\d+) of (\S+)$", finding.value)
    episode = next(each for each in dataset.episodes if each.name == told[3])
    step = int(told[2])
    assert float(told[1]) == pytest.approx(episode.states[step, 6], rel=1e-2)
    assert episode.commands[max(0, step - 10) : step + 1, 6].max() == 1.0
    assert "Look at that step (robot-data view). If the fingers are closed there, exchange" in str(
        finding
    )
    (finding,) = validate(read_in(dataset, "1", "gripper_opening"))
    assert "'gripper_opening' is an opening by its name" in finding.value


def test_every_episodes_gripper_is_judged_though_a_sample_is_enough_for_other_relations(
    robot, monkeypatch
):
    monkeypatch.setattr("data_tools.doctor.examination.MAX_SAMPLED_STEPS", 400)
    flipped = turned_round(robot("joints"), 1)
    (finding,) = validate(flipped)
    assert (finding.rule, finding.where) == ("gripper_flipped", flipped.episodes[1].name)


def test_without_a_control_rate_no_episodes_gripper_is_judged(robot, rules):
    """Nobody knows how many steps the fingers need."""
    flipped = turned_round(robot("joints"), 3)
    conventions = flipped.conventions.model_copy(update={"control_hz": None})
    assert rules(replace(flipped, conventions=conventions)) == ["undeclared"]


def hasty(t, last):
    """Grips three times in two seconds, so that the fingers are always half a turn behind."""
    return (t // 6) % 2 == 0


def resting(t, last):
    return 1 - 0.1 * t / last


def late_in_gripping(t, last):
    return t < last - 4


def gripping(t, last):
    return abs(t - last // 2) > 20


@pytest.mark.parametrize("noise", [0.0, 0.03])
@pytest.mark.parametrize("time_constant_s", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("told", [hasty, resting, late_in_gripping, gripping])
def test_hasty_resting_and_slow_grippers_are_not_taken_for_flipped_ones(
    robot, rules, told, time_constant_s, noise
):
    """Fingers that answer 0.2 s late, in three of eight episodes."""
    dataset = robot("joints")
    rng = np.random.default_rng(9)
    share = 1 - np.exp(-1 / 20 / time_constant_s)
    for index, episode in enumerate(dataset.episodes[:3]):
        last = episode.num_steps - 1
        opening = [float(told(t, last)) for t in range(last + 1)]
        width = [1.0]
        for t in range(last):
            width.append(width[t] + share * (opening[max(0, t - 3)] - width[t]))
        fingers = np.array(width) + rng.normal(0, noise, last + 1)
        dataset = dataset.change(
            index,
            states=np.column_stack([episode.states[:, :6], fingers]),
            commands=np.column_stack([episode.commands[:, :6], opening]),
        )
    assert not {"gripper_flipped", "gripper_polarity"} & {*rules(dataset)}


@pytest.mark.parametrize(("commanded", "moved"), [(0.1, 0.5), (1.0, 0.02)])
def test_a_gripper_that_hardly_moves_says_nothing_of_its_commands(robot, rules, commanded, moved):
    """Fingers that an object presses apart, a little against little, or against much."""
    episode = robot("joints").episodes[3]
    closing = np.linspace(0, 1, episode.num_steps)[:, None]
    pressed = robot("joints").change(
        3,
        states=np.hstack([episode.states[:, :6], 0.3 + moved * closing]),
        commands=np.hstack([episode.commands[:, :6], 1 - commanded * closing]),
    )
    assert "gripper_flipped" not in rules(pressed)
    against = robot("joints").change(
        3,
        states=np.hstack([episode.states[:, :6], 0.3 + 0.5 * closing]),
        commands=np.hstack([episode.commands[:, :6], 1 - closing]),
    )
    assert "gripper_flipped" in rules(against)


@pytest.mark.parametrize("held_s", [0.3, 0.5, 0.7])
def test_grasps_shorter_than_a_grippers_travel_are_not_taken_for_another_sign(robot, rules, held_s):
    """A gripper that opens and closes as told, with half a second in which commands turn."""
    dataset = robot("joints", hz=50.0)
    period = int(2 * held_s * 50)

    def with_grasps(array, delay):
        told = (np.arange(len(array)) + period - delay) % period < period // 2
        return np.column_stack([array[:, :6], told])

    dataset = dataset.change_all(
        states=lambda s: with_grasps(s, 3), commands=lambda a: with_grasps(a, 0)
    )
    assert "gripper_polarity" not in rules(dataset)


def test_a_reading_of_the_commands_name_in_millimetres_is_a_width(robot, rules):
    """0 opens and 1 closes, and the reading counts 80 mm down to 0: nothing is wrong."""
    dataset = robot("joints").declare("action", grippers=gripper(0.0, 1.0))
    units = (*dataset.conventions.state.units[:6], "mm")
    dataset = dataset.declare("state", units=units).change_all(
        states=lambda s: np.column_stack([s[:, :6], 80 * s[:, 6]]),
        commands=lambda a: np.column_stack([a[:, :6], 1 - a[:, 6]]),
    )
    assert "gripper_polarity" not in rules(dataset)
    swapped = dataset.declare("action", grippers=gripper(1.0, 0.0))
    assert "gripper_polarity" in rules(swapped)


GRIPPER_RULES = ("gripper_polarity", "gripper_flipped", "gripper_values")


def test_a_gripper_whose_polarity_nothing_tells_is_in_the_ledger(robot):
    def why(dataset):
        return {
            rule: line.why
            for line in examine(dataset).ledger
            for rule in line.rules
            if rule in GRIPPER_RULES
        }

    told = why(robot("joints"))
    assert list(told) == ["gripper_polarity"]
    assert "nothing says whether a larger state 'gripper' is a wider gripper" in told.popitem()[1]
    assert why(read_in(robot("joints"), "m")) == {}
    unnamed = why(read_in(robot("joints"), "1", "j6"))
    assert list(unnamed) == ["gripper_polarity", "gripper_flipped"]
    assert "no state column is known to tell of the gripper 'gripper'" in unnamed["gripper_flipped"]
    assert why(robot("joints").declare("action", grippers=())) == dict.fromkeys(
        ("gripper_polarity", "gripper_flipped", "gripper_values"), "no gripper is declared"
    )
