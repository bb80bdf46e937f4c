"""Column maps against the formulas of their source, written here in another way."""

import math

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from data_tools.formats.mapping.mapping import (
    AlohaGripperMap,
    ColumnMap,
    LinearMap,
    map_columns,
    map_faults,
    unmap_columns,
)

NAMES = ("shoulder", "elbow", "gripper")
MAPS = (
    LinearMap(kind="linear", column="elbow", scale=-2.0, offset=0.5),
    AlohaGripperMap(kind="aloha_gripper", column="gripper"),
)


def aloha_angle(opening: float) -> float:
    """openpi's `_gripper_to_angular`, one number at a time."""
    position = opening * (0.05800 - 0.01844) + 0.01844
    sine = (0.022**2 + position**2 - 0.036**2) / (2 * 0.022 * position)
    return (math.asin(min(max(sine, -1.0), 1.0)) - 0.5476) / (1.6296 - 0.5476)


def test_a_linear_map_of_worked_numbers():
    # elbow 3: -2 * 3 + 0.5 = -5.5; the shoulder has no map
    mapped = map_columns([[1.0, 3.0, 0.0]], MAPS[:1], NAMES)
    assert mapped.tolist() == [[1.0, -5.5, 0.0]]
    assert unmap_columns(mapped, MAPS[:1], NAMES).tolist() == [[1.0, 3.0, 0.0]]


def test_the_aloha_gripper_is_openpis_formula():
    openings = np.linspace(-0.05, 1.1, 50)
    expected = [aloha_angle(each) for each in openings.tolist()]
    np.testing.assert_allclose(MAPS[1].to_model(openings), expected, rtol=0, atol=1e-12)
    assert MAPS[1].to_model(np.array([0.0, 0.5, 1.0])) == pytest.approx(
        [-1.0799, -0.1401, 0.9457], abs=1e-4
    )


@pytest.mark.parametrize("seed", range(10))
def test_unmap_is_the_inverse_of_map(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(20, 3)) * 10.0 ** rng.integers(-3, 3)
    values[:, 2] = rng.uniform(0, 1, 20)
    before = values.copy()
    back = unmap_columns(map_columns(values, MAPS, NAMES), MAPS, NAMES)
    # at 1 the crank is stretched, where the sine hardly moves: half the digits remain
    tolerance = np.array([0, 1e-12 * np.abs(values).max(), 1e-7])
    assert (np.abs(back - values) <= tolerance).all()
    np.testing.assert_array_equal(values, before)


def test_an_opening_beyond_one_comes_back_as_one():
    back = MAPS[1].to_robot(MAPS[1].to_model(np.array([1.0, 1.2])))
    assert back == pytest.approx([1.0, 1.0], abs=1e-7)


def test_maps_survive_json():
    adapter = TypeAdapter(tuple[ColumnMap, ...])
    assert adapter.validate_json(adapter.dump_json(MAPS)) == MAPS


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scale": 0.0}, "must have an inverse. Correct it"),
        ({"scale": float("inf")}, "finite number"),
        ({"offset": float("nan")}, "finite number"),
        ({"factor": 2.0}, "Extra inputs"),
    ],
)
def test_a_map_without_an_inverse_is_refused(change, words):
    with pytest.raises(ValidationError, match=words):
        LinearMap(**{"kind": "linear", "column": "elbow", "scale": 1.0, **change})


def test_maps_of_unknown_columns_and_two_of_one_are_named():
    maps = [LinearMap(kind="linear", column=name, scale=2.0) for name in ("elbwo", "elbow")]
    unknown, twice = map_faults("transforms.state_maps", (*maps, maps[1]), NAMES)
    assert "did you mean 'elbow'?" in unknown
    assert "two maps of 'elbow'; expected at most one a column. Join them into one." in twice
