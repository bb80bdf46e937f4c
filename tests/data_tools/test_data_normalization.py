import numpy as np
import pytest
from pydantic import ValidationError

from data_tools.actions import (
    KINDS,
    near_constant_columns,
    scaling,
    to_absolute,
    to_delta,
)
from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset
from data_tools.stats import NormalizationStats, dataset_stats, exact_stats
from data_tools.writer import EpisodeWriter


def test_statistics_of_worked_numbers():
    # 0, 1, ..., 100: mean 50, variance (101^2 - 1) / 12 = 850, quantiles at the 1st and 99th step.
    stats = exact_stats(np.arange(101.0)[:, None])
    assert stats.mean == (50.0,)
    assert stats.std == pytest.approx((850**0.5,))
    assert (stats.min, stats.max, stats.q01, stats.q99) == ((0.0,), (100.0,), (1.0,), (99.0,))
    assert stats.num_frames == 101


def test_statistics_do_not_lose_a_small_spread_on_a_large_offset_to_float32():
    rng = np.random.default_rng(0)
    values = (4096.0 + rng.integers(0, 3, size=(100_000, 1))).astype(np.float32)
    stats = exact_stats(values)
    exact = values.astype(np.float64)
    assert stats.mean == pytest.approx((exact.mean(),), rel=1e-12)
    assert stats.std == pytest.approx((exact.std(),), rel=1e-9)


def test_quantiles_are_of_all_frames_and_not_an_envelope_of_episodes(
    tmp_path, conventions, make_episode
):
    with EpisodeWriter(tmp_path / "a.hdf5", conventions) as writer:
        for seed in range(300):
            writer.add(**make_episode(seed, num_steps=20, attributes={}))
        writer.add(**make_episode(num_steps=20, state=np.full((20, 3), 1000.0)))
    stats = dataset_stats(open_dataset(tmp_path / "a.hdf5"))["state"]
    assert stats.max == (1000.0,) * 3
    assert max(stats.q99) < 4.0


def test_statistics_use_only_the_chosen_episodes(demos):
    dataset = open_dataset(demos)
    stats = dataset_stats(dataset, [2, 5])
    assert stats["state"].num_frames == 22 + 25
    together = np.concatenate([dataset[2].actions(), dataset[5].actions()])
    assert stats["actions"] == exact_stats(together)


def test_statistics_decode_no_image(demos, monkeypatch):
    dataset = open_dataset(demos)
    monkeypatch.setattr("data_tools.formats.reading.hdf5_store.decode_frame", None)
    assert dataset_stats(dataset)["state"].dim == 3


def test_statistics_survive_json_exactly():
    stats = exact_stats(np.random.default_rng(0).normal(size=(50, 4)))
    assert NormalizationStats.model_validate_json(stats.model_dump_json()) == stats


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"std": (1.0,)}, "expected as many in each. Compute them again"),
        ({"mean": (float("nan"), 0.0)}, "mean, column 0: found nan; expected a finite number"),
        ({"std": (-1.0, 1.0)}, "std, column 0: found -1.0; expected no less than 0"),
        ({"q01": (5.0, 5.0)}, "q01, column 0: found 5.0; expected no more than .*, its q99"),
        ({"num_frames": True}, "valid integer"),
        ({"q50": (0.0, 0.0)}, "Extra inputs"),
    ],
)
def test_impossible_statistics_are_refused(change, words):
    values = exact_stats(np.random.default_rng(0).normal(size=(50, 2))).model_dump()
    with pytest.raises(ValidationError, match=words):
        NormalizationStats.model_validate(values | change)


def test_statistics_of_nothing_or_of_nan_are_refused(demos):
    with pytest.raises(UserError, match=r"expected \[n, d\] with n at least 1"):
        exact_stats(np.zeros((0, 3)))
    with pytest.raises(UserError, match="step 1, column '0': found inf"):
        exact_stats(np.array([[0.0], [np.inf]]))


def _random_columns(seed: int) -> np.ndarray:
    """Columns of very different scale and offset, with constant, still and two-valued ones."""
    rng = np.random.default_rng(seed)
    num_frames = int(rng.integers(2, 400))
    scales = 10.0 ** rng.uniform(-6, 6, size=8)
    offsets = 10.0 ** rng.uniform(-3, 5, size=8) * rng.choice([-1, 1], size=8)
    wide = offsets + scales * rng.normal(size=(num_frames, 8))
    constant = np.full((num_frames, 1), offsets[0])
    switch = rng.choice([-1.0, 1.0], p=[0.999, 0.001], size=(num_frames, 1))
    return np.concatenate([wide, constant, switch], axis=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(25))
def test_unnormalize_is_the_inverse_of_normalize(kind, seed):
    x = _random_columns(seed)
    stats = exact_stats(x)
    how = scaling(stats, kind)
    back = how.unnormalize(how.normalize(x))
    # a column that never moves comes back as its constant
    spread = np.where(how.is_held, np.ptp(x, axis=0), 0.0)
    assert (np.abs(back - x) <= 1e-6 * how.scale + spread).all()


@pytest.mark.parametrize("kind", ["mean_std", "quantiles", "min_max"])
def test_a_still_column_never_blows_up(kind):
    rng = np.random.default_rng(0)
    for value in (0.0, 3.0, -700.0, 1e6):
        noise = 1e-8 * max(1.0, abs(value)) * rng.normal(size=(1000, 1))
        stats = exact_stats(value + noise)
        assert near_constant_columns(stats, kind) == (0,)
        # At use the sensor reads a little outside what the statistics saw.
        assert abs(scaling(stats, kind).normalize([[value + 1e-3]])[0, 0]) < 0.1


def test_a_column_that_moves_is_scaled():
    rng = np.random.default_rng(0)
    # A delta of at most 1 mm a step, and a robot that stands 1 km from the origin.
    x = np.stack([rng.uniform(-1e-3, 1e-3, 500), 1000 + rng.uniform(-0.1, 0.1, 500)], axis=1)
    stats = exact_stats(x)
    for kind in ("mean_std", "quantiles", "min_max"):
        assert near_constant_columns(stats, kind) == ()
    assert np.abs(scaling(stats, "min_max").normalize(x)).max(axis=0) == pytest.approx([1.0, 1.0])


def test_each_kind_maps_its_worked_numbers():
    stats = NormalizationStats(
        mean=(2.0,), std=(4.0,), min=(-10.0,), max=(10.0,), q01=(0.0,), q99=(8.0,), num_frames=9
    )
    assert scaling(stats, "identity").normalize([[10.0]]).tolist() == [[10.0]]
    assert scaling(stats, "mean_std").normalize([[10.0]]).tolist() == [[2.0]]  # (10 - 2) / 4
    # (10 - 4) / 4, not clipped
    assert scaling(stats, "quantiles").normalize([[10.0]]).tolist() == [[1.5]]
    assert scaling(stats, "min_max").normalize([[10.0]]).tolist() == [[1.0]]  # 10 / 10


def test_an_unknown_kind_and_a_wrong_width_say_what_to_do():
    stats = exact_stats(np.random.default_rng(0).normal(size=(50, 2)))
    with pytest.raises(UserError, match="did you mean 'quantiles'"):
        scaling(stats, "quantile").normalize([[0.0, 0.0]])
    with pytest.raises(UserError, match="Use the statistics of this array"):
        scaling(stats, "mean_std").unnormalize([[0.0, 0.0, 0.0]])


def test_deltas_are_relative_to_the_state_at_the_start_of_the_chunk():
    # The arm goes 1.0 -> 1.5 -> 2.5 from 0.5; column 1 drives a gripper and stays absolute.
    actions = [[1.0, -1.0], [1.5, 1.0], [2.5, 1.0]]
    deltas = to_delta(actions, state=[9.0, 0.5], pairs=[(0, 1)])
    assert deltas.tolist() == [[0.5, -1.0], [1.0, 1.0], [2.0, 1.0]]
    assert to_absolute(deltas, state=[9.0, 0.5], pairs=[(0, 1)]).tolist() == actions


@pytest.mark.parametrize("seed", range(5))
def test_absolute_is_the_inverse_of_delta(seed):
    rng = np.random.default_rng(seed)
    actions, state = rng.normal(size=(16, 7)), rng.normal(size=9)
    pairs = [(int(column), int(rng.integers(9))) for column in rng.choice(7, 3, replace=False)]
    before = actions.copy()
    back = to_absolute(to_delta(actions, state, pairs), state, pairs)
    np.testing.assert_allclose(back, actions, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(actions, before)
