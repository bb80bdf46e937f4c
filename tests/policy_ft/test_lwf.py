"""Learning without forgetting: what is asked, what of, and that nothing but the sample decides."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from data_tools.formats.reader import open_dataset
from policy_ft import assemble
from policy_ft.checkpoints.provenance import (
    MAX_INSTRUCTIONS,
    in_brief,
    noted_instructions,
    old_instructions,
)
from policy_ft.config.objectives import LwfConfig
from policy_ft.config.run import RunConfig
from policy_ft.errors import UserError
from policy_ft.formats.load import load_policy
from policy_ft.models.flow_path import interpolate
from policy_ft.models.solvers import Euler, SampleRequest
from policy_ft.objectives.flow import Flow
from policy_ft.objectives.lwf import LearningWithoutForgetting
from policy_ft.quickstart import BASE
from policy_ft.training.hooks import RunView
from policy_ft.transforms import ModelShape
from tests.policy_ft.conftest import small_model_config
from tests.policy_ft.test_training_step import Stepper, weights_of

OLD = ("reach for it", "lift the cube", "push it")


def asked(policy, **settings) -> LearningWithoutForgetting:
    """The objective of a run that begins with this policy."""
    objective = LearningWithoutForgetting(LwfConfig(sentences=OLD, **settings), seed=0)
    objective.begin(RunView(policy, None, None, (), print))
    return objective


@pytest.fixture
def batch(policy, episodes):
    (batch,) = Stepper(policy, episodes).batches()
    return batch


def disturbed(policy, scale: float = 0.02) -> None:
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(torch.randn_like(parameter) * scale)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_the_policy_of_the_start_is_at_no_distance_from_itself(policy, batch, share):
    objective = asked(policy, share=share)
    (term,) = objective(policy.model, None, batch).values()
    assert 0 < len(term.values) <= len(batch.actions)
    assert term.values.abs().max() < 1e-9
    disturbed(policy)
    (term,) = objective(policy.model, None, batch).values()
    assert term.values.max() > 1e-4


@pytest.mark.parametrize("target", ["velocity", "chunk"])
def test_the_term_is_the_velocity_s_distance_around_the_chunk_of_the_start(policy, batch, target):
    """Again, sample by sample, from the policy's public ways alone."""
    objective = asked(policy, share=1.0, target=target, num_steps=3)
    start = objective._policy
    disturbed(policy)
    (term,) = objective(policy.model, None, batch).values()
    for row in range(len(batch.actions)):
        each = objective._asked(batch, row)
        inputs = policy.transforms.with_instructions(batch.inputs.rows([row]), [OLD[each.sentence]])
        chunk = start.sample(inputs, SampleRequest(noise=each.start_noise[None], solver=Euler(3)))
        noisy = interpolate(chunk[:, None], each.noise[None], each.time[None])
        velocities = [
            model.expert(model.backbone(inputs), inputs.state, noisy, each.time[None])
            for model in (policy.model, start.model)
        ]
        wanted = velocities[1] if target == "velocity" else each.noise[None] - chunk[:, None]
        expected = (velocities[0] - wanted).square()
        torch.testing.assert_close(term.values[row], expected[0], rtol=1e-4, atol=1e-6)


def test_what_is_asked_depends_on_the_sample_and_not_on_its_neighbours(policy, batch):
    objective = asked(policy, share=0.5)
    chosen = objective._chosen(batch)
    order = list(reversed(range(len(batch.actions))))
    turned = replace(
        batch, sample_id=batch.sample_id[order], epoch=batch.epoch[order], inputs=batch.inputs
    )
    assert sorted(order[row] for row in objective._chosen(turned)) == chosen
    row = chosen[0]
    one, other = objective._asked(batch, row), objective._asked(turned, order.index(row))
    assert one.sentence == other.sentence
    assert torch.equal(one.noise, other.noise)
    next_epoch = replace(batch, epoch=batch.epoch + 1)
    assert objective._chosen(next_epoch) != chosen or not torch.equal(
        objective._asked(next_epoch, row).noise, one.noise
    )


@pytest.mark.parametrize("target", ["velocity", "chunk"])
def test_micro_batches_make_the_same_step_as_one_batch(policy, episodes, target):
    start, results = weights_of(policy.model), []
    for accumulation_steps in (1, 4):
        policy.model.load_state_dict(start)
        objectives = [Flow(), asked(policy, share=0.4, target=target)]
        disturbed(policy)
        stepper = Stepper(policy, episodes, objectives=objectives)
        results.append(stepper.step(1, stepper.batches(accumulation_steps)))
    whole, parts = results
    assert whole.terms["lwf"] > 0
    assert parts.terms == pytest.approx(whole.terms, rel=1e-5)
    assert parts.grad_norm == pytest.approx(whole.grad_norm, rel=1e-4)


def test_a_chunk_that_is_a_target_is_made_once_for_a_window_and_a_sentence(policy, batch):
    objective = asked(policy, share=1.0, sentences_per_window=1, target="chunk")
    objective(policy.model, None, batch)
    num_made = len(objective._chunks)
    assert num_made == len(set(batch.sample_id.tolist()))
    objective(policy.model, None, replace(batch, epoch=batch.epoch + 1))
    assert len(objective._chunks) == num_made


@pytest.mark.parametrize("prompt", ["plain", "pi05"])
def test_other_instructions_are_encoded_as_if_they_had_been_given(fitted, episodes, prompt):
    shape = ModelShape.of(small_model_config()).model_copy(update={"max_prompt_tokens": 64})
    changes = {"state_normalization": "quantiles"} if prompt == "pi05" else {}
    transforms = fitted(shape=shape, prompt=prompt, **changes)
    observations = [episodes[0].observation(step, ("front", "wrist")) for step in (0, 1)]

    def encoded(instructions):
        samples = [
            transforms.encode(replace(one, instruction=text))
            for one, text in zip(observations, instructions, strict=True)
        ]
        stacked = {
            name: torch.from_numpy(np.stack([one[name] for one in samples])) for name in samples[0]
        }
        return transforms.encode_batch(stacked, "cpu")

    texts = ["push the block", "lift the blue cylinder"]
    found = transforms.with_instructions(encoded(["go", "stay"]), texts)
    expected = encoded(texts)
    assert torch.equal(found.prompt_tokens, expected.prompt_tokens)
    assert torch.equal(found.prompt_mask, expected.prompt_mask)


def test_a_checkpoint_notes_its_sentences_and_a_descendant_those_of_all_before(
    run_config, tmp_path
):
    first = assemble.train(run_config(training={"steps": 1}, output_dir=str(tmp_path / "first")))
    said = sorted({e.instruction for e in open_dataset(list(run_config().data.path))})
    own = json.loads((first.last_checkpoint / "provenance.json").read_text())["instructions"]
    assert set(own) <= set(said)
    values = run_config(training={"steps": 1}, output_dir=str(tmp_path / "second")).model_dump()
    values["policy"] = {"kind": "pretrained", "path": str(first.last_checkpoint)}
    second = assemble.train(RunConfig.model_validate(values))
    provenance = load_policy(second.last_checkpoint).provenance
    assert provenance["parent"]["instructions"] == own
    # the second run says the same sentences: it has no old ones
    assert old_instructions(provenance) == ()
    grand = {"instructions": ["c"], "parent": {"instructions": ["a", "b"], "parent": provenance}}
    assert set(old_instructions(grand)) == {"a", "b", *own}


def test_the_shipped_base_knows_its_sentences():
    known = load_policy(BASE).provenance["instructions"]
    assert "pick up the red cube" in known
    assert not any("stack" in text or "place" in text for text in known)


def test_of_too_many_sentences_evenly_spread_ones_are_noted():
    texts = [f"{number:05}" for number in range(2 * MAX_INSTRUCTIONS + 2)]
    noted = noted_instructions(texts)
    assert len(noted) <= MAX_INSTRUCTIONS
    assert noted[1] == "00003"


def test_people_are_told_how_many_sentences_there_are():
    brief = in_brief({"instructions": ["a", "b"], "parent": {"instructions": ["c"]}})
    assert brief == {"instructions": "2, e.g. 'a'", "parent": {"instructions": "1, e.g. 'c'"}}


@pytest.mark.parametrize(
    ("sentences", "fault"),
    [
        ("checkpoint", "objectives.lwf.sentences: found none; expected .* checkpoint records"),
        ("no/such/file.txt", r"sentences: found no/such/file.txt \(.*No such file"),
        ((), "sentences: found none; expected"),
        (("a " * 400,), "objectives.lwf.sentences, instruction: found .* tokens"),
    ],
)
def test_sentences_that_cannot_be_asked_are_refused(run_config, sentences, fault):
    config = run_config(objectives={"lwf": {"sentences": sentences}})
    (told,) = assemble.check(config)
    with pytest.raises(UserError, match=fault):
        assemble.train(config)
    with pytest.raises(UserError, match=fault):
        raise UserError(told)


def test_a_file_of_sentences_is_read_and_those_of_the_new_data_are_left_out(run_config, tmp_path):
    path = tmp_path / "old.txt"
    new = open_dataset(list(run_config().data.path))[0].instruction
    path.write_text(f"reach for it\n\n{new}\n", encoding="utf-8")
    config = run_config(training={"steps": 1}, objectives={"lwf": {"sentences": str(path)}})
    result = assemble.train(config)
    assert "lwf" in result.metrics[0]
    path.write_text(f"{new}\n", encoding="utf-8")
    with pytest.raises(UserError, match="none that the data do not say as well"):
        assemble.train(config.model_copy(update={"output_dir": str(tmp_path / "other")}))
