import numpy as np
import pytest

from data_tools.conventions import ActionSpec, GripperSpec
from data_tools.errors import UserError
from eval_envs.disturbance import Disturbance

ACTION = ActionSpec(
    names=("grip", "dx", "dy"),
    units=("1", "m", "m"),
    references=("absolute", "delta", "delta"),
    low=(0.0, -2.0, -2.0),
    high=(1.0, 2.0, 2.0),
    grippers=(GripperSpec(column="grip", open_value=0.0, closed_value=1.0),),
)
CLEAN = np.array([1.0, 0.5, -0.5], np.float32)


def executed(strength: float, steps: int, seed: int = 0) -> np.ndarray:
    disturb = Disturbance(np.random.default_rng(seed), ACTION, strength)
    return np.stack([disturb(CLEAN) for _ in range(steps)])


def test_strength_zero_executes_the_clean_action() -> None:
    assert np.array_equal(executed(0.0, 50), np.tile(CLEAN, (50, 1)))


def test_disturbed_actions_stay_in_range_and_repeat_with_the_seed() -> None:
    first = executed(2.0, 300)
    assert (first >= ACTION.low).all()
    assert (first <= ACTION.high).all()
    assert first.dtype == np.float32
    assert np.array_equal(first, executed(2.0, 300))
    assert not np.array_equal(first, executed(2.0, 300, seed=1))


def test_jitter_has_a_quarter_of_half_the_range_and_no_bias() -> None:
    # half the range is 2, so the noise has a standard deviation of 0.5; bursts add a little
    motion = executed(1.0, 4000)[:, 1:]
    assert motion.std() == pytest.approx(0.75, abs=0.15)
    np.testing.assert_allclose(motion.mean(axis=0), [0.5, -0.5], atol=0.08)


def test_grippers_slip_for_one_to_three_steps() -> None:
    gripper = executed(1.0, 4000)[:, 0]
    assert set(gripper) == {0.0, 1.0}
    assert 0.02 < (gripper == 0.0).mean() < 0.12
    edges = np.flatnonzero(np.diff(np.concatenate([[1.0], gripper, [1.0]])))
    lengths = edges[1::2] - edges[::2]
    assert lengths.min() == 1


@pytest.mark.parametrize("strength", [-0.1, 2.5])
def test_a_strength_out_of_range_is_refused(strength: float) -> None:
    with pytest.raises(UserError, match="Use 1 for the usual amount"):
        executed(strength, 1)
