"""What is no list of observations, or of other types, is refused in words, and not by Python."""

from dataclasses import replace

import numpy as np
import pytest

from data_tools.episode import Observation
from policy_ft.errors import UserError
from policy_ft.policy import Policy


@pytest.fixture
def observation() -> Observation:
    images = {name: np.zeros((32, 32, 3), np.uint8) for name in ("front", "wrist")}
    return Observation(images, np.zeros(4, np.float32), "push the red block")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda good: good, "observations: found a value of type Observation; expected a list"),
        (lambda good: None, "observations: found None; expected a list"),
        (lambda good: [], "observations: found none; expected at least one"),
        (lambda good: [{"state": good.state}], "observation: found a value of type dict"),
        (lambda good: [good, None], "observation 1: found None; expected an Observation"),
        (lambda good: [replace(good, instruction=None)], "observation, instruction: found None"),
        (lambda good: [replace(good, state=[0.0] * 4)], "state: found a value of type list"),
        (lambda good: [replace(good, state=np.array(["a"] * 4))], "state: found <U1"),
        (lambda good: [replace(good, images=None)], "observation, images: found None"),
        (lambda good: [replace(good, images={"front": [0]})], "camera 'front': found a value"),
    ],
)
@pytest.mark.parametrize("method", ["act", "encode"])
def test_observations_of_wrong_types_are_refused_in_words(
    policy: Policy, observation: Observation, wrong, words, method
):
    with pytest.raises(UserError) as caught:
        getattr(policy, method)(wrong(observation))
    assert words in str(caught.value)
