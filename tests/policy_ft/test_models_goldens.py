"""pi0, pi0.5 and SmolVLA compute what their own code computes, on small random weights.

References: openpi's JAX model (pi0, pi0.5) and LeRobot 0.4.4 (SmolVLA), in float32 on a CPU, with
missing cameras and prompts of 5, 20 and 48 tokens.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from policy_ft.models.solvers import Euler
from tests.policy_ft.losses import dormant, flow_errors

FAMILIES = ("pi0", "pi05", "smolvla")
TOLERANCE = 1e-4
MakeGolden = Callable[[str], Any]


def flow_loss(golden: Any, **changes: Any) -> torch.Tensor:
    arrays = golden.arrays
    return flow_errors(
        golden.model,
        replace(golden.inputs, **changes),
        arrays["actions"],
        noise=arrays["loss_noise"],
        time=arrays["loss_time"],
    )


def in_float64(golden: Any) -> Any:
    inputs = golden.inputs
    wide = {name: getattr(inputs, name).double() for name in ("images", "state")}
    arrays = {
        name: value.double() if value.is_floating_point() else value
        for name, value in golden.arrays.items()
    }
    golden.model.double()
    return replace(golden, inputs=replace(inputs, **wide), arrays=arrays)


@pytest.mark.parametrize("family", FAMILIES)
def test_sampled_actions_are_those_of_the_reference(golden: MakeGolden, family: str) -> None:
    given = golden(family)
    actions = given.model.sample_actions(
        given.inputs, given.arrays["sample_noise"], solver=Euler(10)
    )
    expected = given.arrays["sampled_actions_10_steps"]
    assert expected.abs().max() > 3.0
    torch.testing.assert_close(actions, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_are_those_of_the_reference(golden: MakeGolden, family: str) -> None:
    given = golden(family)
    loss = flow_loss(given)
    if family == "smolvla":
        expected = given.arrays["loss_per_element"]
    else:
        expected, loss = given.arrays["loss_per_step"], loss.mean(dim=-1)
    torch.testing.assert_close(loss, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_structure_names_the_family(golden: MakeGolden, family: str) -> None:
    assert golden(family).config.family == family


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_absent_may_be_left_out(
    golden: MakeGolden, family: str, float64_stays: None
) -> None:
    """Dropping an empty camera slot and padded tokens changes no loss and no gradient.

    In float64: losses reach 30, where float32 rounds by more than a law can be told from a slip.
    """
    given = in_float64(golden(family))
    inputs, first = given.inputs, given.inputs.image_mask.clone()
    first[:, 1:] = False
    short = 24
    prompt_mask = inputs.prompt_mask.clone()
    prompt_mask[:, short:] = False
    whole = flow_loss(given, image_mask=first, prompt_mask=prompt_mask)
    whole.mean().backward()
    gradients = {name: p.grad for name, p in given.model.named_parameters() if p.grad is not None}
    other = in_float64(golden(family))
    trimmed = flow_loss(
        other,
        images=inputs.images[:, :1],
        image_mask=first[:, :1],
        camera_slots=(0,),
        prompt_tokens=inputs.prompt_tokens[:, :short],
        prompt_mask=prompt_mask[:, :short],
    )
    trimmed.mean().backward()
    torch.testing.assert_close(trimmed, whole, rtol=0, atol=1e-10)
    for name, parameter in other.model.named_parameters():
        if name in gradients:
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_learns_or_is_declared_dormant(golden: MakeGolden, family: str) -> None:
    given = golden(family)
    flow_loss(given).mean().backward()
    still = {name for name, p in given.model.named_parameters() if p.grad is None}
    assert still == dormant(given.model)


@pytest.mark.parametrize("family", FAMILIES)
def test_checkpointed_activations_change_no_gradient(golden: MakeGolden, family: str) -> None:
    plain, checkpointed = golden(family), golden(family)
    checkpointed.model.checkpoint_activations()
    losses = [flow_loss(each).mean() for each in (plain, checkpointed)]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=0)
    for (name, ours), theirs in zip(
        checkpointed.model.named_parameters(), plain.model.parameters(), strict=True
    ):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_draws_that_share_a_prefix_cost_each_other_nothing(golden: MakeGolden, family: str) -> None:
    given = golden(family)
    noise = torch.stack([given.arrays["loss_noise"], given.arrays["sample_noise"]], dim=1)
    time = torch.stack([given.arrays["loss_time"], given.arrays["loss_time"] * 0.5], dim=1)
    both = flow_errors(given.model, given.inputs, given.arrays["actions"], noise, time)
    for draw in range(2):
        alone = flow_errors(
            given.model, given.inputs, given.arrays["actions"], noise[:, draw], time[:, draw]
        )
        torch.testing.assert_close(both[:, draw], alone, rtol=0, atol=2e-5)


def test_shifted_positions_repeat_the_fault_of_transformers_4(golden: MakeGolden) -> None:
    given = golden("smolvla")
    faulty = flow_loss(given)
    embeddings = given.model.backbone.vision.embeddings
    embeddings.shifted = False
    exact = flow_loss(given)
    rows = torch.tensor([0, 0, 1, 2])
    with torch.no_grad():
        weight = embeddings.position_embedding.weight
        weight.copy_(weight.view(4, 4, -1)[rows][:, rows].flatten(0, 1))
    torch.testing.assert_close(flow_loss(given), faulty, rtol=0, atol=1e-6)
    assert (exact - faulty).abs().max() > 1e-2
