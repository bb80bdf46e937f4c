"""Which step is the best."""

import pytest

from policy_ft.training.selection import Best, better


def loss(step: int, value: float) -> Best:
    return Best(step, "validation_loss", value)


def success(step: int, value: float) -> Best:
    return Best(step, "rollout_success_rate", value)


@pytest.mark.parametrize(
    ("best", "candidate", "winner"),
    [
        (None, loss(1, 5.0), 1),
        (loss(1, 5.0), loss(2, 4.0), 2),
        (loss(1, 4.0), loss(2, 5.0), 1),
        (loss(1, 4.0), loss(2, 4.0), 1),
        (success(1, 0.4), success(2, 0.5), 2),
        (success(1, 0.5), success(2, 0.4), 1),
        (success(1, 0.5), success(2, 0.5), 1),
        (loss(1, 0.1), success(2, 0.0), 2),
        (success(1, 0.9), loss(2, 4.0), 2),
    ],
)
def test_low_loss_and_high_success_win_and_ties_go_to_the_earlier_step(best, candidate, winner):
    assert better(best, candidate).train_step == winner


def test_json_and_back():
    assert Best.from_json(success(3, 0.25).as_json()) == success(3, 0.25)
