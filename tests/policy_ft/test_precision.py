"""Computing in bfloat16 with float32 weights learns like float32; bfloat16 weights do not."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from data_tools.episode import Dataset
from policy_ft import assemble
from policy_ft.checkpoints.native import save_policy
from policy_ft.config.model import ModelConfig
from policy_ft.config.optimizer import OptimizerConfig
from policy_ft.config.run import RunConfig
from policy_ft.data.loader import BatchLoader
from policy_ft.data.windows import WindowDataset
from policy_ft.formats.load import load_policy
from policy_ft.models.build import build_model
from policy_ft.models.solvers import SampleRequest
from policy_ft.objectives.flow import Flow
from policy_ft.policy import Policy
from policy_ft.training.hooks import Hook, RunView
from policy_ft.training.launch import start_accelerator
from policy_ft.training.optimizer import build_optimizer
from policy_ft.training.step import TrainStep, to_device
from policy_ft.transforms import ModelShape
from policy_ft.tuning.plan import Phase, plan_tuning

NUM_STEPS = 300
CPU = torch.device("cpu")
PI0_PARTS = {
    "vision": {
        "kind": "siglip",
        "patch_size": 8,
        "width": 24,
        "depth": 2,
        "num_heads": 3,
        "mlp_width": 48,
    },
    "connector": {"slot_positions": False},
    "language": {
        "family": "gemma",
        "vocab_size": 300,
        "width": 32,
        "depth": 3,
        "mlp_width": 64,
        "num_heads": 4,
        "num_kv_heads": 1,
        "head_dim": 16,
    },
    "expert": {"width": 24, "mlp_width": 48, "time": "concat"},
}
SmallModel = Callable[..., dict[str, object]]


def test_bfloat16_computation_learns_like_float32(
    record: Callable[..., Dataset], fitted: Callable[..., Any], small_model: SmallModel
) -> None:
    """A small pi0 over 300 steps of the same batches: each step's loss within 2 %."""
    config = ModelConfig.model_validate(small_model(**PI0_PARTS))
    assert config.family == "pi0"
    episodes, transforms = record(lengths=[50] * 16), fitted(ModelShape.of(config))
    windows = WindowDataset(episodes, range(16), transforms)
    loader = BatchLoader(windows, order=windows.order(0), seed=0, batch_size=8, num_draws=2)
    samples = loader.iter_from(0)
    batches = [to_device(next(samples)[0], transforms, CPU) for _ in range(NUM_STEPS)]
    runs = []
    for dtype in (None, torch.bfloat16):
        model = build_model(config)
        settings = OptimizerConfig(lr=1e-3, warmup_steps=0, decay_steps=NUM_STEPS)
        plan = plan_tuning(model, [Phase(0, ())], settings, Flow().reaches(model))
        plan.at(0).apply(model)
        optimizer = build_optimizer(model, plan, settings)
        take_step = TrainStep(
            start_accelerator(), model, [Flow()], optimizer, windows, settings.clip_norm, dtype
        )
        runs.append(torch.tensor([take_step(i + 1, [b]).loss for i, b in enumerate(batches)]))
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    exact, rounded = runs
    relative = (rounded / exact - 1).abs()
    print(f"loss {exact[:20].mean():.2f} -> {exact[-20:].mean():.2f}")
    print(f"relative difference of a step's loss: at most {relative.max():.4f}")
    print(f"of the mean of all: {abs(rounded.mean() / exact.mean() - 1):.5f}")
    assert not torch.equal(exact, rounded)
    assert exact[-20:].mean() < 0.5 * exact[:20].mean()
    assert relative.max() < 0.02


@pytest.mark.parametrize(("std", "share"), [(0.02, 0.696), (0.05, 0.876)])
def test_bfloat16_weights_would_lose_most_updates(std: float, share: float) -> None:
    """What weights in bfloat16, as the published training code keeps them, make of AdamW at pi0's
    learning rate.

    The first update is 2.5e-5 wherever there is a gradient. Neighbours in bfloat16 lie 2^-14 apart
    for weights from 2^-7 on: half of that is 3.1e-5, so these weights stay where they are. For
    N(0, 0.02) that is P(|z| > 2^-7 / 0.02 = 0.39) = 70 %.
    """
    settings = OptimizerConfig()
    generator = torch.Generator().manual_seed(0)
    start = (torch.randn(100_000, generator=generator) * std).bfloat16()
    direction = torch.randn(start.shape, generator=generator)
    moved, lost = {}, {}
    for dtype in (torch.float32, torch.bfloat16):
        weight = nn.Parameter(start.to(dtype, copy=True))
        optimizer = torch.optim.AdamW(
            [weight], settings.lr, settings.betas, settings.eps, settings.weight_decay, fused=True
        )
        unchanged = []
        for step in range(100):
            noise = torch.randn(start.shape, generator=generator.manual_seed(1 + step))
            weight.grad = (direction + 2.0 * noise).to(dtype)
            before = weight.detach().clone()
            optimizer.step()
            unchanged.append((weight == before).float().mean().item())
        moved[dtype] = weight.detach().float() - start.float()
        lost[dtype] = unchanged
    exact, rounded = moved[torch.float32], moved[torch.bfloat16]
    progress = (rounded @ exact / exact.square().sum()).item()
    never = (rounded == 0).float().mean().item()
    first, all_steps = lost[torch.bfloat16][0], float(np.mean(lost[torch.bfloat16]))
    print(f"std {std}: lost {first:.3f} of first, {all_steps:.3f} of all updates")
    print(f"std {std}: never moved {never:.3f}, progress {progress:.3f} of float32's")
    assert math.erfc(2**-7 / (std * 2**0.5)) == pytest.approx(share, abs=2e-3)
    assert first == pytest.approx(share, abs=0.01)
    assert never > share - 0.01
    assert all_steps > share
    assert progress < 1 / 3
    assert max(lost[torch.float32]) < 1e-3


class Steps(Hook):
    """A hook that keeps the weights after every step."""

    name = "steps"

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []

    def begin(self, run: RunView) -> None:
        self.model = run.policy.model

    def after_step(self, train_step: int) -> dict[str, float]:
        assert train_step == len(self.weights) + 1
        self.weights.append({name: p.detach().clone() for name, p in self.model.named_parameters()})
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        assert not state


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16"])
def test_a_run_keeps_float32_weights_and_moves_them_all(
    run_config: Callable[..., RunConfig], precision: str
) -> None:
    """Whatever `precision` says, in memory and on disk, at the learning rate of pi0."""
    config = run_config(
        training={"precision": precision, "steps": 3},
        optimizer={"lr": 2.5e-5, "final_lr": 2.5e-5, "warmup_steps": 0},
    )
    steps = Steps()
    result = assemble.train(config, methods=[steps])
    assert {p.dtype for weights in steps.weights for p in weights.values()} == {torch.float32}
    before, after = steps.weights[-2:]
    moved = [
        (before[name] != after[name]).flatten()
        for name in before
        if name.startswith("expert.layers.")
    ]
    assert torch.cat(moved).float().mean() > 0.99
    files = [result.last_checkpoint / "model.safetensors"]
    files += [
        result.last_checkpoint / "training_state" / f"{name}.safetensors"
        for name in ("weights", "optimizer")
    ]
    for file in files:
        assert {tensor.dtype for tensor in load_file(file).values()} == {torch.float32}, file


@pytest.mark.parametrize("family", ["pi0", "pi05", "smolvla"])
def test_a_policy_in_bfloat16_acts_within_its_rounding(
    golden: Callable[[str], Any],
    fitted: Callable[..., Any],
    episodes: Dataset,
    tmp_path: Path,
    family: str,
) -> None:
    """bfloat16 resolves 0.4 % to 0.8 %; the actions of 10 steps differ by less than 2 % of their
    spread (measured: 0.1 % to 0.7 %).
    """
    given = golden(family)
    transforms = fitted(ModelShape.of(given.config), resize="pil_bilinear_center_pad")
    save_policy(Policy(given.model, transforms, given.config), tmp_path / "policy")
    exact, rounded = (
        load_policy(tmp_path / "policy", dtype=dtype) for dtype in ("float32", "bfloat16")
    )
    observations = [episodes[0].observation(step, ("front", "wrist")) for step in range(3)]
    noise = np.random.default_rng(0).normal(size=(3, *exact.chunk_shape)).astype(np.float32)
    ours, theirs = (
        np.stack(policy.act(observations, SampleRequest(noise))) for policy in (exact, rounded)
    )
    error = np.sqrt(np.square(theirs - ours).mean(axis=(0, 1))) / ours.std(axis=(0, 1))
    print(f"{family}: actions in bfloat16 differ by {error.max():.4f} of their spread")
    assert 0 < error.max() < 0.02


@pytest.mark.parametrize("family", ["pi0", "pi05", "smolvla"])
def test_what_stays_float32_was_never_rounded(
    golden: Callable[[str], Any], fitted: Callable[..., Any], tmp_path: Path, family: str
) -> None:
    """openpi casts everything down and some of it up again, which keeps the loss of the first."""
    given = golden(family)
    transforms = fitted(ModelShape.of(given.config), resize="pil_bilinear_center_pad")
    save_policy(Policy(given.model, transforms, given.config), tmp_path / "policy")
    rounded = load_policy(tmp_path / "policy", dtype="bfloat16").model
    exact = dict(given.model.named_parameters())
    kept = rounded.float32_names()
    parts = ("patch_embedding", "position_embedding", "input_layernorm", "norm.", "action_out_proj")
    assert all(any(part in name for name in kept) for part in parts)
    for name, parameter in rounded.named_parameters():
        expected = exact[name] if name in kept else exact[name].bfloat16()
        assert parameter.dtype == expected.dtype, name
        assert torch.equal(parameter, expected), name
