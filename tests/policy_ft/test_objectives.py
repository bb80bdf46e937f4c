"""What is minimised: each term is a mean over its own mask, and what no term reaches is dormant."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from policy_ft.errors import UserError
from policy_ft.models.batch import Batch
from policy_ft.models.objective import Objective, Term, reached
from policy_ft.models.prefix import Prefix
from policy_ft.models.vla import VLAModel
from policy_ft.objectives.flow import Flow
from tests.policy_ft.losses import dormant
from tests.policy_ft.test_training_step import Stepper, weights_of


class PromptTokens(Objective):
    """Cross-entropy of each token of the instruction after the one before it."""

    name = "tokens"

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def reaches(self, model: VLAModel) -> frozenset[str]:
        return frozenset(
            n for n, _ in model.named_parameters() if n.startswith("backbone.language")
        )

    def counts(self, batch: Batch) -> Mapping[str, Tensor]:
        return {self.name: batch.inputs.prompt_mask[:, 1:].sum(dtype=torch.float64)}

    def __call__(self, model: VLAModel, prefix: Prefix, batch: Batch) -> Mapping[str, Term]:
        language, tokens = model.backbone.language, batch.inputs.prompt_tokens
        length = tokens.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        positions = torch.arange(length).expand(len(tokens), -1)
        stream = language.hidden_states(language.embed(tokens), causal[None, None], positions)
        logits = stream[:, :-1] @ language.embed_tokens.weight.T
        errors = functional.cross_entropy(logits.mT, tokens[:, 1:], reduction="none")
        return {self.name: Term(errors, batch.inputs.prompt_mask[:, 1:], self.weight)}


class Penalty(Objective):
    """The mean square of the last map: one number, whatever the batch."""

    name = "penalty"

    def __call__(self, model: VLAModel, prefix: Prefix, batch: Batch) -> Mapping[str, Term]:
        return self.penalty(model.expert.action_out_proj.weight.square().mean(), 0.5)


def test_each_term_is_a_mean_over_its_own_mask(policy, episodes):
    objectives = [Flow(), PromptTokens(0.3), Penalty()]
    stepper = Stepper(policy, episodes, objectives=objectives)
    (batch,) = stepper.batches()
    with torch.no_grad():
        terms = policy.model(batch, objectives)
    means = {
        name: term.values[term.mask.expand_as(term.values)].double().mean().item()
        for name, term in terms.items()
    }
    result = stepper.step(1, [batch])
    assert result.terms == pytest.approx(means, rel=1e-6)
    expected = means["flow"] + 0.3 * means["tokens"] + 0.5 * means["penalty"]
    assert result.loss == pytest.approx(expected, rel=1e-6)


def test_terms_with_unequal_masks_survive_accumulation(policy, episodes):
    start = weights_of(policy.model)
    objectives = [Flow(), PromptTokens(0.3), Penalty()]
    results = []
    for accumulation_steps in (1, 4):
        policy.model.load_state_dict(start)
        stepper = Stepper(policy, episodes, objectives=objectives)
        batches = stepper.batches(accumulation_steps)
        results.append((stepper.step(1, batches), weights_of(policy.model)))
    (whole, weights), (parts, other) = results
    assert len({int(batch.inputs.prompt_mask.sum()) for batch in batches}) > 1
    assert parts.terms == pytest.approx(whole.terms, rel=1e-6)
    assert parts.grad_norm == pytest.approx(whole.grad_norm, rel=1e-5)
    torch.testing.assert_close(other, weights, rtol=0, atol=1e-5)


def test_what_no_objective_reaches_is_dormant_and_tokens_train_the_last_block(policy, episodes):
    last = "backbone.language.layers.1.mlp.up_proj.weight"
    assert {last, "backbone.language.norm.weight"} <= dormant(policy.model)
    assert not {last} & reached([Flow()], policy.model)
    before = weights_of(policy.model)
    stepper = Stepper(policy, episodes, objectives=[Flow(), PromptTokens()])
    stepper.step(1, stepper.batches())
    still = {n for n, value in weights_of(policy.model).items() if torch.equal(value, before[n])}
    assert not still & {name for name, _ in policy.model.named_parameters()}


def test_tokens_alone_can_be_trained(policy, episodes):
    stepper = Stepper(policy, episodes, objectives=[PromptTokens()])
    result = stepper.step(1, stepper.batches())
    assert set(result.terms) == {"tokens"}
    assert not policy.model.expert.action_out_proj.weight.requires_grad


class Miscounted(Penalty):
    def counts(self, batch: Batch) -> Mapping[str, Tensor]:
        return {self.name: torch.full((), 3.0, dtype=torch.float64)}


class Crooked(Penalty):
    def __call__(self, model: VLAModel, prefix: Prefix, batch: Batch) -> Mapping[str, Term]:
        (term,) = super().__call__(model, prefix, batch).values()
        return {self.name: Term(term.values[None], term.mask)}


@pytest.mark.parametrize(
    ("objective", "fault"),
    [
        (Miscounted(), r"'penalty': found a mask that sums to 1.0; expected 3.0.*its `counts`"),
        (Crooked(), r"values \[1\] and a mask \[\]; expected one shape"),
        (Flow(), r"term 'flow' for a second time; .*Rename one of the two"),
    ],
)
def test_a_term_that_would_be_counted_wrongly_is_refused(policy, episodes, objective, fault):
    stepper = Stepper(policy, episodes, objectives=[Flow(), objective])
    before = weights_of(policy.model)
    with pytest.raises(ValueError, match=fault):
        stepper.step(1, stepper.batches())
    torch.testing.assert_close(weights_of(policy.model), before, rtol=0, atol=0)


def test_a_penalty_that_is_not_finite_blames_no_sample(policy, episodes):
    class Endless(Penalty):
        def __call__(self, model: VLAModel, prefix: Prefix, batch: Batch) -> Mapping[str, Term]:
            return self.penalty(model.expert.action_out_proj.weight.sum() * float("inf"), 1.0)

    stepper = Stepper(policy, episodes, objectives=[Flow(), Endless()])
    with pytest.raises(UserError, match="not finite is a gradient of the batch with samples"):
        stepper.step(1, stepper.batches(accumulation_steps=8))


def weighted(batch: Batch, weights: Tensor) -> Batch:
    return replace(batch, columns={"weight": weights})


def test_weights_make_a_weighted_mean(policy, episodes):
    stepper = Stepper(policy, episodes)
    (batch,) = stepper.batches()
    with torch.no_grad():
        errors = policy.model(batch, [Flow()])["flow"].values.double()
    weights = torch.tensor([0.0, 2.0, 0.5, 1.0, 0.0, 3.0, 0.25, 1.0])
    of_each = (batch.valid * weights[:, None, None, None]).double().expand_as(errors)
    expected = (errors * of_each).sum() / of_each.sum()
    assert stepper.step(1, [weighted(batch, weights)]).loss == pytest.approx(
        expected.item(), rel=1e-6
    )


def test_equal_weights_change_nothing_and_zero_leaves_a_sample_out(policy, episodes):
    start = weights_of(policy.model)
    (batch,) = Stepper(policy, episodes).batches()
    kept = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    rows = torch.nonzero(kept).flatten()
    subset = Batch(
        inputs=batch.inputs.rows(rows.tolist()),
        actions=batch.actions[rows],
        valid=batch.valid[rows],
        noise=batch.noise[rows],
        time=batch.time[rows],
        sample_id=batch.sample_id[rows],
        epoch=batch.epoch[rows],
    )
    pairs = [(batch, weighted(batch, torch.full((8,), 2.0))), (subset, weighted(batch, kept))]
    for plain, other in pairs:
        found = []
        for each in (plain, other):
            policy.model.load_state_dict(start)
            stepper = Stepper(policy, episodes)
            result = stepper.step(1, [each])
            found.append((result.loss, result.grad_norm))
        assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_each_step_of_a_chunk_may_have_a_time_of_its_own(policy, episodes):
    """With one time for all steps the velocity is that of the whole chunk's time."""
    (batch,) = Stepper(policy, episodes).batches()
    policy.model.eval()
    of_chunk = policy.model(batch, [Flow()])["flow"].values
    time = batch.time[..., None].expand(*batch.time.shape, batch.actions.shape[1])
    of_steps = policy.model(replace(batch, time=time), [Flow()])["flow"].values
    torch.testing.assert_close(of_steps, of_chunk, rtol=0, atol=1e-6)
    time = time.clone()
    time[:, :, 0] = 0.0
    other = policy.model(replace(batch, time=time), [Flow()])["flow"].values
    assert not torch.allclose(other[:, :, 1:], of_chunk[:, :, 1:])
