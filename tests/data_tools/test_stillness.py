"""When a column counts as one that never moves, and what becomes of it."""

import numpy as np
import pytest

from data_tools.actions import KINDS, OWN_RULE, ScaleRule, near_constant_columns, scaling
from data_tools.conventions import ActionSpec, Conventions, StateSpec
from data_tools.stats import (
    NormalizationStats,
    action_motions,
    constants,
    exact_stats,
    smallest_motion,
    state_motions,
    still_columns,
)

SCALED = [kind for kind in KINDS if kind != "identity"]


def locked(value: float = 1.569, noise: float = 1e-6, num_frames: int = 500) -> np.ndarray:
    """A column that moves, and one that is locked but for its encoder's noise."""
    rng = np.random.default_rng(0)
    moving, still = rng.normal(size=num_frames), value + noise * rng.normal(size=num_frames)
    return np.column_stack([moving, still])


@pytest.mark.parametrize(
    ("unit", "smallest"),
    [
        ("m", 1e-4),
        ("rad", 1e-4),
        ("1", 1e-4),
        ("raw", 1e-4),
        ("mm", 0.1),
        ("millimeters", 0.1),
        ("cm/s", 1e-2),
        ("deg", 0.18 / np.pi / 10),
        ("degrees", 0.18 / np.pi / 10),
        ("%", 1e-2),
        ("0.04 m", 2.5e-3),
    ],
)
def test_the_smallest_motion_is_the_same_length_or_angle_in_every_unit(unit, smallest):
    assert smallest_motion(unit) == pytest.approx(smallest)


def declared(reference: str, control_hz: float | None) -> Conventions:
    return Conventions(
        cameras=(),
        state=StateSpec(names=("z",), units=("mm",)),
        action=ActionSpec(
            names=("z",), units=("m",), references=(reference,), low=(-1,), high=(1,)
        ),
        control_hz=control_hz,
    )


def test_a_displacement_is_judged_by_what_a_second_of_it_moves():
    """A slow insertion of 2 mm/s at 50 Hz is 4e-5 m a step: less than a target must span."""
    assert action_motions(declared("absolute", 50)).tolist() == [1e-4]
    assert action_motions(declared("delta", 50)).tolist() == [2e-6]
    assert action_motions(declared("unknown", None)).tolist() == [1e-6]
    assert state_motions(declared("delta", 50)).tolist() == [0.1]
    slow = exact_stats(np.random.default_rng(0).uniform(-4e-5, 4e-5, (300, 1)))
    assert still_columns(slow) == (0,)
    assert still_columns(slow, action_motions(declared("delta", 50))) == ()


@pytest.mark.parametrize("rule", [OWN_RULE, ScaleRule(still_columns="center"), ScaleRule(1e-6)])
@pytest.mark.parametrize("kind", SCALED)
@pytest.mark.parametrize("value", [0.0, 1.569, -300.0])
def test_a_locked_column_is_zero_to_the_model_and_comes_back_as_its_constant(kind, rule, value):
    x = locked(value)
    how = scaling(exact_stats(x), kind, rule)
    assert how.is_held.tolist() == [False, True]
    for reading in (value, value + 0.5, value - 1e3):
        assert how.normalize([0.0, reading])[1] == 0.0
    for output in (0.0, 0.9, -4.0):
        command = how.unnormalize([0.0, output])[1]
        assert x[:, 1].min() <= command <= x[:, 1].max()


def test_identity_holds_too_but_not_in_checkpoints_that_were_trained_without():
    stats = exact_stats(locked())
    assert scaling(stats, "identity").normalize([2.0, 7.0]).tolist() == [2.0, 0.0]
    before = scaling(stats, "identity", ScaleRule(still_columns="center"))
    assert before.normalize([2.0, 7.0]).tolist() == [2.0, 7.0]


@pytest.mark.parametrize("kind", KINDS)
def test_dividing_holds_nothing(kind):
    rule = ScaleRule(epsilon=1e-6, still_columns="divide")
    assert not scaling(exact_stats(locked()), kind, rule).is_held.any()


def test_a_switch_that_is_rarely_pressed_is_scaled_by_all_that_it_spans():
    """In 4 of 1000 frames: both quantiles are 0, and yet it must be pressed."""
    pressed = np.zeros((1000, 1))
    pressed[::250] = 60.0
    stats = exact_stats(pressed)
    for kind in ("quantiles", "quantiles_10_90"):
        assert near_constant_columns(stats, kind) == (0,)
        how = scaling(stats, kind)
        assert not how.is_held.any()
        assert how.normalize([[60.0]]).tolist() == [[2.0]]
        assert how.unnormalize([[2.0]]).tolist() == [[60.0]]
        before = scaling(stats, kind, ScaleRule(still_columns="center"))
        assert before.normalize([[60.0]]).tolist() == [[60.0]]


def test_a_locked_joint_with_one_glitch_is_driven_no_farther_than_the_glitch():
    x = locked()[:, 1:]
    x[100] += 0.03
    how = scaling(exact_stats(x), "quantiles")
    assert np.abs(how.unnormalize([[0.5], [-0.5]]) - 1.569).max() < 0.01


def test_statistics_without_extremes_tell_it_by_what_they_have():
    spread = NormalizationStats(mean=(0.7, 0.7), std=(1e-7, 0.0), q01=(0.7, 0.0), q99=(0.7, 1.0))
    assert still_columns(spread) == (0,)
    assert constants(spread).tolist() == [0.7, 0.7]
    assert still_columns(NormalizationStats(mean=(0.7,), std=(0.0,))) == (0,)
    assert still_columns(NormalizationStats(mean=(0.7,))) == ()


def test_rounding_at_a_large_magnitude_is_no_motion():
    rng = np.random.default_rng(0)
    steps = 5000.0 + rng.integers(-2, 3, (400, 1)) * np.spacing(np.float32(5000.0))
    assert still_columns(exact_stats(steps)) == (0,)
    assert still_columns(exact_stats(steps - 5000.0)) == ()
