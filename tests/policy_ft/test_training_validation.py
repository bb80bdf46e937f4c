"""Validation: a number that depends on the weights and on nothing else."""

import numpy as np
import pytest
import torch

from policy_ft.data.noise import flow_noise
from policy_ft.data.windows import WindowDataset
from policy_ft.errors import UserError
from policy_ft.objectives.flow import Flow
from policy_ft.training import validation
from policy_ft.training.launch import start_accelerator
from policy_ft.training.validation import Validation


@pytest.fixture
def validate(policy, episodes, run_config):
    """Runs a validation of the policy on two episodes of 9 and 4 steps."""

    def run(batch_size: int = 4, seed: int = 3, **grid: object) -> dict[str, float]:
        config = run_config(seed=seed, training={"batch_size": batch_size}, validation=grid)
        windows = WindowDataset(episodes, [2, 3], policy.transforms)
        return Validation(windows, [Flow()], config, start_accelerator(), None).run(policy)

    return run


def test_the_same_weights_give_the_same_number_twice(validate):
    first = validate()
    torch.manual_seed(99)
    assert validate() == first


def test_other_weights_give_another_number(validate, policy):
    first = validate()
    with torch.no_grad():
        policy.model.expert.action_out_proj.weight.mul_(1.5)
    second = validate()
    assert second["loss"] != first["loss"]
    assert second["action_mse"] != first["action_mse"]


def test_the_batch_size_does_not_matter(validate):
    values = [validate(batch_size=size, num_windows=13) for size in (1, 4, 32)]
    assert values[1] == pytest.approx(values[0], rel=1e-6)
    assert values[2] == pytest.approx(values[0], rel=1e-6)


def test_the_seed_decides_the_noise(validate):
    assert validate(seed=3)["loss"] != validate(seed=4)["loss"]


def test_more_windows_than_there_are_means_all_of_them(validate):
    assert validate(num_windows=13) == validate(num_windows=1000)


def test_the_grid_crosses_every_time_with_every_noise_draw(validate):
    """The mean over two times is the mean of the two validations with one time each."""
    both = validate(times=[0.2, 0.7], num_noise=2)["loss"]
    each = [validate(times=[time], num_noise=2)["loss"] for time in (0.2, 0.7)]
    assert both == pytest.approx(sum(each) / 2, rel=1e-6)


def test_padded_columns_do_not_count(validate, policy):
    """The model's fourth action column is padding; whatever it predicts there is not measured."""
    first = validate()
    with torch.no_grad():
        policy.model.expert.action_out_proj.weight[3].mul_(100.0)
    assert validate() == pytest.approx(first, rel=1e-6)


def test_the_noise_is_not_that_of_the_first_epoch_of_training(validate, monkeypatch):
    drawn: list[np.ndarray] = []

    def noted(*arguments):
        drawn.append(flow_noise(*arguments)[0])
        return drawn[-1], None

    monkeypatch.setattr(validation, "flow_noise", noted)
    validate(num_windows=13)
    assert len(drawn) == 26
    trained = [flow_noise(3, 0, sample_id, 1, (4, 4))[0] for sample_id in range(13)]
    assert not any(np.array_equal(mine, each) for mine in drawn for each in trained)


def test_an_error_that_is_not_finite_is_told_with_what_to_do(validate, policy):
    with torch.no_grad():
        policy.model.expert.action_out_proj.weight.fill_(torch.nan)
    with pytest.raises(UserError, match=r"validation, loss: found nan.*lower optimizer.lr"):
        validate()
