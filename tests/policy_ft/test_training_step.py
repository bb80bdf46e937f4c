"""One optimizer step: its loss is one mean over everything valid, and nothing bad passes it."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from policy_ft.config.optimizer import OptimizerConfig
from policy_ft.data.loader import BatchLoader
from policy_ft.data.windows import WindowDataset
from policy_ft.errors import UserError
from policy_ft.models.batch import Batch
from policy_ft.models.objective import Objective, Term, reached
from policy_ft.objectives.flow import Flow
from policy_ft.policy import Policy
from policy_ft.training.launch import autocast_dtype, start_accelerator
from policy_ft.training.optimizer import build_optimizer
from policy_ft.training.step import TrainStep, row_sums, to_device
from policy_ft.tuning.plan import Phase, plan_tuning

CPU = torch.device("cpu")


class Stepper:
    """A train step over a policy's own windows, and the batches for it."""

    def __init__(
        self,
        policy: Policy,
        episodes,
        dtype: torch.dtype | None = None,
        objectives: Sequence[Objective] | None = None,
    ) -> None:
        self.policy = policy
        self.windows = WindowDataset(episodes, [0, 1, 2, 3], policy.transforms)
        config = OptimizerConfig(lr=1e-3, warmup_steps=0, decay_steps=10)
        objectives = [Flow()] if objectives is None else objectives
        plan = plan_tuning(policy.model, [Phase(0, ())], config, reached(objectives, policy.model))
        plan.at(0).apply(policy.model)
        self.optimizer = build_optimizer(policy.model, plan, config)
        accelerator = start_accelerator()
        locate = self.windows.locate
        self.step = TrainStep(
            accelerator, policy.model, objectives, self.optimizer, locate, 1e9, dtype
        )

    def batches(self, accumulation_steps: int = 1, num_draws: int = 2) -> list[Batch]:
        loader = BatchLoader(
            self.windows,
            order=self.windows.order(0),
            seed=0,
            batch_size=8,
            num_draws=num_draws,
            accumulation_steps=accumulation_steps,
        )
        samples = next(loader.iter_from(0))
        return [to_device(each, self.policy.transforms, CPU) for each in samples]


@pytest.fixture
def stepper(policy, episodes) -> Stepper:
    return Stepper(policy, episodes)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def test_the_loss_is_the_mean_over_valid_elements(stepper):
    (batch,) = stepper.batches()
    with torch.no_grad():
        flow = stepper.policy.model(batch, [Flow()])["flow"].values
    valid = batch.valid.expand_as(flow)
    assert 0 < valid.sum() < valid.numel(), "the batch has padded steps and padded columns"
    loss = stepper.step(1, [batch]).loss
    assert loss == pytest.approx(flow[valid].mean().item(), rel=1e-5)


def test_accumulated_micro_batches_make_the_same_step_as_one_batch(policy, episodes):
    """Micro-batches with unequal numbers of valid elements: a mean of their means would differ."""
    start = weights_of(policy.model)
    results = []
    for accumulation_steps in (1, 2, 4):
        policy.model.load_state_dict(start)
        stepper = Stepper(policy, episodes)
        batches = stepper.batches(accumulation_steps)
        if accumulation_steps == 4:
            assert len({int(batch.valid.sum()) for batch in batches}) > 1
        result = stepper.step(1, batches)
        loss, norm = result.loss, result.grad_norm
        results.append((loss, norm, weights_of(policy.model)))
    for loss, norm, weights in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=1e-6)
        assert norm == pytest.approx(results[0][1], rel=1e-5)
        # AdamW's first step divides the gradient by its own size, which magnifies rounding
        torch.testing.assert_close(weights, results[0][2], rtol=0, atol=1e-5)


def test_masked_errors_have_no_loss_and_no_gradient_whatever_they_are():
    errors = torch.tensor([[[[1.0, torch.nan], [torch.inf, torch.nan]]]], requires_grad=True)
    valid = torch.tensor([[[[True, False], [False, False]]]])
    loss = row_sums(Term(errors, valid))
    loss.sum().backward()
    assert loss.tolist() == [1.0]
    assert errors.grad.tolist() == [[[[1.0, 0.0], [0.0, 0.0]]]]


def test_padded_steps_and_columns_are_not_valid(stepper):
    (batch,) = stepper.batches()
    windows = stepper.windows
    loader = BatchLoader(windows, order=windows.order(0), seed=0, batch_size=8)
    (samples,) = next(loader.iter_from(0))
    assert not samples["action_mask"].all()
    assert torch.equal(batch.valid[:, 0, :, 0], samples["action_mask"])
    assert not batch.valid[..., 3].any(), "the robot has three action columns, the model four"


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(stepper):
    (batch,) = stepper.batches()
    actions = batch.actions.clone()
    actions[3, 0, 0] = torch.nan
    before = weights_of(stepper.policy.model)
    episode, step = stepper.windows.locate(int(batch.sample_id[3]))
    with pytest.raises(UserError, match="robot-data validate") as caught:
        stepper.step(7, [replace(batch, actions=actions)])
    message = str(caught.value)
    assert "train step 7" in message
    assert "loss nan" in message
    assert f"{int(batch.sample_id[3])} ({episode}:{step})" in message
    innocent = {int(i) for i in batch.sample_id} - {int(batch.sample_id[3])}
    assert not any(f" {each} (" in message for each in innocent)
    torch.testing.assert_close(weights_of(stepper.policy.model), before, rtol=0, atol=0)
    assert not stepper.optimizer.state


def test_a_gradient_that_is_not_finite_stops_before_the_weights_change(stepper):
    weight = stepper.policy.model.expert.action_out_proj.weight
    weight.register_hook(lambda gradient: gradient * torch.inf)
    before = weights_of(stepper.policy.model)
    with pytest.raises(UserError, match=r"gradient norm (inf|nan).*expert.action_out_proj.weight"):
        stepper.step(1, stepper.batches())
    torch.testing.assert_close(weights_of(stepper.policy.model), before, rtol=0, atol=0)


def test_a_parameter_that_no_loss_reaches_must_be_declared_dormant(stepper):
    stepper.policy.model.register_parameter("stranded", nn.Parameter(torch.zeros(2)))
    with pytest.raises(
        ValueError, match=r"\['stranded'\] got no gradient.*Leave these names out of `reaches`"
    ):
        stepper.step(1, stepper.batches())


def test_gradients_are_clipped_to_the_norm_and_reported_before(stepper):
    twin = stepper.step
    batches = stepper.batches()
    twin.clip_norm = 1e-3
    grads = []
    stepper.optimizer.step = lambda: grads.extend(
        p.grad.clone() for p in stepper.policy.model.parameters() if p.grad is not None
    )
    norm = twin(1, batches).grad_norm
    assert norm > 1e-2
    assert torch.stack([g.norm() for g in grads]).norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_bfloat16_computes_with_float32_weights_and_a_close_loss(policy, episodes):
    start = weights_of(policy.model)
    losses = []
    for dtype in (None, torch.bfloat16):
        policy.model.load_state_dict(start)
        stepper = Stepper(policy, episodes, dtype)
        losses.append(stepper.step(1, stepper.batches()).loss)
        assert {p.dtype for p in policy.model.parameters()} == {torch.float32}
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


@pytest.mark.parametrize(
    ("precision", "has_instructions", "dtype"),
    [
        ("auto", True, torch.bfloat16),
        ("auto", False, None),
        ("fp32", True, None),
        ("bf16", False, torch.bfloat16),
    ],
)
def test_auto_precision_is_bfloat16_only_where_the_device_has_it(
    run_config, monkeypatch, precision, has_instructions, dtype
):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_instructions)
    training = run_config(training={"precision": precision}).training
    assert autocast_dtype(training, CPU) == dtype
