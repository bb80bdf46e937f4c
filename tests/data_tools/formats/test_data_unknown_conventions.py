"""What a declaration may leave unknown, and who says so when it is needed."""

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from data_tools.conventions import Conventions, compare
from data_tools.doctor.checks.numbers import check_action_range
from data_tools.doctor.checks.recording import Declared, Recording
from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset
from data_tools.writer import EpisodeWriter

INFINITE = float("inf")


def with_action(conventions: Conventions, **changes: object) -> Conventions:
    action = conventions.action.model_copy(update=changes)
    return Conventions.model_validate(conventions.model_dump() | {"action": action.model_dump()})


def test_infinite_limits_and_an_unknown_rate_survive_json_and_yaml(conventions):
    dim = len(conventions.action.names)
    limits = {"low": (-INFINITE,) * dim, "high": (INFINITE,) * dim}
    unknown = with_action(conventions, **limits).model_copy(update={"control_hz": None})
    assert "Infinity" in unknown.model_dump_json()
    assert Conventions.model_validate_json(unknown.model_dump_json()) == unknown
    text = yaml.safe_dump(unknown.model_dump(mode="json"))
    assert Conventions.model_validate(yaml.safe_load(text)) == unknown


def test_the_rate_must_be_said_even_if_only_as_unknown(conventions):
    values = conventions.model_dump()
    del values["control_hz"]
    with pytest.raises(ValidationError, match="control_hz"):
        Conventions.model_validate(values)


@pytest.mark.parametrize("low", [2.0, float("nan")])
def test_limits_out_of_order_are_refused(low, conventions):
    dim = len(conventions.action.names)
    with pytest.raises(ValidationError, match=r"expected low <= high. Exchange them, or write"):
        with_action(conventions, low=(low,) * dim, high=(1.0,) * dim)


def test_who_needs_the_rate_says_so(conventions):
    unknown = conventions.model_copy(update={"control_hz": None})
    assert conventions.known_control_hz("film it") == conventions.control_hz
    with pytest.raises(UserError, match=r"unknown \(null\).*to film it. Declare the rate"):
        unknown.known_control_hz("film it")


def test_demonstrations_must_have_a_rate(conventions, make_episode, tmp_path):
    unknown = conventions.model_copy(update={"control_hz": None})
    with pytest.raises(UserError, match=r"to write demonstrations. Declare the rate"):
        EpisodeWriter(tmp_path / "a.hdf5", unknown)
    with EpisodeWriter(tmp_path / "a.hdf5", conventions) as writer:
        writer.add(**make_episode())
    sidecar = tmp_path / "a.hdf5.conventions.yaml"
    sidecar.write_text(yaml.safe_dump(unknown.model_dump(mode="json")))
    with pytest.raises(UserError, match=r"a.hdf5.*control_hz: found unknown.*at which rate"):
        open_dataset(tmp_path / "a.hdf5")


def test_a_range_open_to_one_side_is_still_checked_on_the_other(
    conventions, make_episode, tmp_path
):
    dim = len(conventions.action.names)
    half_open = with_action(conventions, low=(-INFINITE,) * dim, high=(1.0,) * dim)
    actions = np.zeros((10, dim))
    actions[3, 0], actions[5, 1] = 1.5, -1e6
    with EpisodeWriter(tmp_path / "a.hdf5", half_open) as writer:
        writer.add(**make_episode(num_steps=10, actions=actions))
    (finding,) = check_action_range(
        Recording.of(open_dataset(tmp_path / "a.hdf5")[0]), Declared.of(half_open)
    )
    assert finding.step == 3


def names(**changes: str) -> dict[str, str]:
    return {"found_name": "data", "expected_name": "the policy", **changes}


def test_a_policy_may_leave_limits_and_sources_open_and_data_may_not(conventions):
    dim = len(conventions.action.names)
    limits = {"low": (-INFINITE,) * dim, "high": (INFINITE,) * dim}
    policy = with_action(conventions, **limits)
    cameras = tuple(c.model_copy(update={"source": "a camera"}) for c in conventions.cameras)
    data = conventions.model_copy(update={"cameras": cameras})
    assert compare(data, policy, may_leave_open=True, **names()) == []
    assert len(compare(data, policy, **names())) == 2 + len(cameras)
    # the other way round the policy declares and the data contradicts
    reversed_ = compare(policy, data, may_leave_open=True, **names())
    assert {m.where for m in reversed_} >= {"data, action low", "data, action high"}


def test_an_unknown_rate_never_agrees_with_a_known_one(conventions):
    unknown = conventions.model_copy(update={"control_hz": None})
    (mismatch,) = compare(conventions, unknown, may_leave_open=True, **names())
    assert "no rate can be assumed" in str(mismatch)
