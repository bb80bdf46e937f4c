"""Executors: which action of which chunk is executed when."""

import numpy as np
import pytest

from policy_ft.errors import UserError
from policy_ft.execution.executor import RecedingHorizon


def chunk(first: int, horizon: int = 8) -> np.ndarray:
    """Actions that say for which step they are meant."""
    return np.arange(first, first + horizon, dtype=np.float32)[:, None]


def test_the_first_actions_of_a_chunk_are_executed_and_then_another_is_needed():
    executor = RecedingHorizon(3)
    assert executor.num_ready == 0
    executor.push(chunk(10), observed_at=10, now=10)
    assert executor.pop(2).ravel().tolist() == [10, 11]
    assert executor.num_ready == 1
    assert executor.pop(5).ravel().tolist() == [12]
    assert executor.num_ready == 0


@pytest.mark.parametrize("delay", [0, 1, 5])
def test_every_action_is_executed_at_the_step_it_was_meant_for(delay):
    """Seen every 3 steps, there `delay` steps later: the actions say their own steps."""
    executor, executed = RecedingHorizon(3), {}
    for observed_at in range(0, 12, 3):
        now = observed_at + delay
        executor.push(chunk(observed_at), observed_at, now)
        for step, action in enumerate(executor.pop(3).ravel().tolist(), start=now):
            executed[step] = action
    assert executed == {step: step for step in range(delay, delay + 12)}


def test_a_chunk_that_comes_early_takes_the_place_of_what_is_left():
    executor = RecedingHorizon(4)
    executor.push(chunk(0), 0, 0)
    executor.pop(2)
    executor.push(chunk(1), 1, 2)
    assert executor.pop(9).ravel().tolist() == [2, 3, 4, 5]


def test_an_episode_begins_with_nothing():
    executor = RecedingHorizon(4)
    executor.push(chunk(0), 0, 0)
    executor.reset(seed=3)
    assert executor.num_ready == 0
    assert executor.pop(4).shape[0] == 0


@pytest.mark.parametrize(
    ("replan_steps", "now", "fault"),
    [
        (9, 0, r"replan_steps: found 9; expected 1 to 8.*Set replan_steps to at most 8"),
        (0, 0, r"replan_steps: found 0; expected 1 to 8"),
        (3, 6, r"delay: found 6 steps from observation \(step 0\) to arrival \(step 6\)"),
        (3, -1, r"delay: found -1 steps"),
    ],
)
def test_a_chunk_that_cannot_be_executed_is_refused(replan_steps, now, fault):
    with pytest.raises(UserError, match=fault):
        RecedingHorizon(replan_steps).push(chunk(0), 0, now)
