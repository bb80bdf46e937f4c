"""A sentence that belongs to another task: told by motion, where motions tell tasks apart."""

from dataclasses import replace

import numpy as np
import pytest

from data_tools.doctor.checks.recording import Recording
from data_tools.doctor.checks.tasks import check_sentences
from data_tools.finding import NotChecked

LIFT, PUSH = "lift the cup", "push the plate"


def recorded(robot, *, push=lambda state: state, tasks=(LIFT, PUSH), count=12):
    """Episodes of two tasks in turns; in those of the second the hand moves otherwise."""
    dataset = robot("joints", episodes=24)
    made = []
    for index in range(count):
        rng = np.random.default_rng([7, index])
        share = np.linspace(0, 1, 80)[:, None]
        goal = np.array([0.5, 0.2, -0.4, 0.1, 0.3, 0.0, 0.5]) + rng.normal(0, 0.05, 7)
        state = goal * share + rng.normal(0, 0.002, (80, 7))
        is_push = index % 2
        state = push(state) if is_push else state
        made.append(
            replace(dataset.episodes[0], name=f"demo_{index}", states=state, commands=state,
                    instruction=tasks[is_push], clock=None)
        )  # fmt: skip
    return made


def told(episodes):
    return [*check_sentences([Recording.of(each) for each in episodes])]


def away(state):
    return state * [-1.0, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("index", [3, 8])
def test_an_episode_that_moves_as_another_task_does_is_told(robot, index):
    episodes = recorded(robot, push=away)
    assert told(episodes) == []
    other = PUSH if episodes[index].instruction == LIFT else LIFT
    episodes[index] = replace(episodes[index], instruction=other)
    (found,) = told(episodes)
    assert (found.where, found.rule) == (f"demo_{index}", "foreign_sentence")
    assert repr(other) in found.value


def test_sentences_that_motions_do_not_tell_apart_are_left_alone(robot):
    episodes = recorded(robot)
    episodes[4] = replace(episodes[4], instruction=PUSH)
    assert told(episodes) == []


def test_a_motion_of_its_own_belongs_to_no_other_task(robot):
    episodes = recorded(robot, push=away)
    strange = episodes[5].states * [0, 3.0, 1, 1, 1, 1, 1]
    episodes[5] = replace(episodes[5], states=strange)
    assert told(episodes) == []


def test_one_sentence_alone_is_in_the_ledger(robot):
    (line,) = told(recorded(robot, tasks=(LIFT, LIFT)))
    assert isinstance(line, NotChecked)
    assert "fewer than two sentences have 5 episodes" in line.why
