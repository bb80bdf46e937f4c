"""A run, its rollouts and whoever loads its checkpoint compute in one precision."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from data_tools.formats.reader import open_dataset
from eval_envs.collect import collect
from policy_ft import assemble
from policy_ft.assemble import trainers
from policy_ft.checkpoints.native import save_policy
from policy_ft.errors import UserError
from policy_ft.formats.conversion.convert import convert
from policy_ft.formats.load import load_policy
from policy_ft.models.solvers import SampleRequest
from policy_ft.training.validation import Validation


class TypesSeen:
    """The types that the expert's products come out in, by who asked for them."""

    def __init__(self, model: nn.Module) -> None:
        self.found: dict[str, set[torch.dtype]] = {"validation": set(), "rollouts": set()}
        self._asks = ""
        layer = model.get_submodule("expert.layers.0.mlp.up_proj")
        layer.register_forward_hook(lambda module, inputs, x: self._note(x.dtype))

    def _note(self, dtype: torch.dtype) -> None:
        if self._asks:
            self.found[self._asks].add(dtype)

    def during(self, who: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any) -> Any:
            self._asks = who
            try:
                return work(*arguments)
            finally:
                self._asks = ""

        return noted


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)]
)
def test_rollouts_compute_as_validation_does_and_so_does_whoever_loads_the_checkpoint(
    run_config, small_model, tmp_path, monkeypatch, precision, dtype
):
    size = {"image_size": 32}
    path = collect(tmp_path / "reach.hdf5", env_args=size, task="reach", num_episodes=2, seed=0)
    config = run_config(
        policy={"model": small_model(max_prompt_tokens=32)},
        data={"path": str(path)},
        training={"steps": 2, "precision": precision},
        validation={"every": 2},
        evaluation={
            "env_args": {"task": "reach", **size},
            "episodes": 1,
            "replan_steps": 4,
            "every": 2,
        },
    )
    episodes = open_dataset(list(config.data.path))
    policy = assemble.build_policy(config, episodes)
    seen = TypesSeen(policy.model)
    monkeypatch.setattr(Validation, "run", seen.during("validation", Validation.run))
    rolled = seen.during("rollouts", trainers.success_in_rollouts)
    monkeypatch.setattr(trainers, "success_in_rollouts", rolled)
    result = assemble.train(config, policy, episodes)
    assert seen.found == {"validation": {dtype}, "rollouts": {dtype}}
    loaded = load_policy(result.last_checkpoint)
    assert loaded.precision == policy.precision == precision
    assert loaded.provenance["precision"] == precision
    observation = episodes[0].observation(0, policy.conventions.camera_names)
    noise = np.zeros((1, *policy.chunk_shape), np.float32)
    (ours,), (theirs,) = (
        policy.act([observation], SampleRequest(noise)),
        loaded.act([observation], SampleRequest(noise)),
    )
    np.testing.assert_array_equal(ours, theirs)
    loaded.model.autocast_dtype = None
    assert np.array_equal(loaded.act([observation], SampleRequest(noise))[0], theirs) == (
        precision == "fp32"
    )


def test_the_recorded_precision_is_copied_and_a_new_run_has_its_own(policy, tmp_path):
    policy.model.autocast_dtype = torch.bfloat16
    save_policy(policy, tmp_path / "first")
    save_policy(load_policy(tmp_path / "first"), tmp_path / "second")
    convert(tmp_path / "second", "native", tmp_path / "third")
    assert load_policy(tmp_path / "third").precision == "bf16"
    path = tmp_path / "third" / "provenance.json"
    path.write_text(path.read_text().replace('"bf16"', '"fp8"'))
    with pytest.raises(UserError, match="precision: found 'fp8'; expected one of"):
        load_policy(tmp_path / "third")
