"""The running average of the weights."""

import copy

import pytest
import torch
from torch import Tensor, nn

from policy_ft.tuning.averaging import Ema


def average_of(model: nn.Module, decay: float) -> Ema:
    return Ema(dict(model.named_parameters()), decay)


def averages(ema: Ema, model: nn.Module) -> dict[str, Tensor]:
    with ema.swapped():
        return {name: p.detach().clone() for name, p in model.named_parameters()}


def stepped(model: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator))


def test_the_average_equals_its_definition():
    """Decay 0.3: the warm-up gives 1/10, 2/11, 3/12, and 4/13 = 0.3077 is capped at 0.3."""
    model = nn.Linear(1, 1, bias=False)
    weights = [1.0, 2.0, -1.0, 4.0, 8.0]
    model.weight.data.fill_(weights[0])
    ema = average_of(model, 0.3)
    expected = weights[0]
    for weight, decay in zip(weights[1:], [0.1, 2 / 11, 0.25, 0.3], strict=True):
        model.weight.data.fill_(weight)
        ema.update()
        expected = decay * expected + (1 - decay) * weight
        assert averages(ema, model)["weight"].item() == pytest.approx(expected, rel=1e-6)


def test_swapping_computes_with_the_averages_and_gives_the_weights_back():
    model, generator = nn.Linear(2, 2), torch.Generator().manual_seed(0)
    ema = average_of(model, 0.9)
    stepped(model, generator)
    ema.update()
    own, average = model.weight.detach().clone(), averages(ema, model)["weight"]
    with ema.swapped():
        assert torch.equal(model.weight, average)
    assert torch.equal(model.weight, own)
    assert torch.equal(averages(ema, model)["weight"], average)


def test_swapping_ends_when_the_block_raises():
    model = nn.Linear(2, 2)
    ema = average_of(model, 0.9)
    stepped(model, torch.Generator().manual_seed(0))
    own = model.weight.detach().clone()
    with pytest.raises(KeyError), ema.swapped():
        raise KeyError
    assert torch.equal(model.weight, own)


def test_a_restored_average_goes_on_with_the_same_bits():
    model, generator = nn.Linear(3, 3), torch.Generator().manual_seed(0)
    ema = average_of(model, 0.5)
    for _ in range(3):
        stepped(model, generator)
        ema.update()
    twin_model = copy.deepcopy(model)
    own = {name: p.detach().clone() for name, p in model.named_parameters()}
    twin_model.load_state_dict(averages(ema, model))
    twin = average_of(twin_model, 0.5)
    twin.restart(ema.num_updates)
    twin_model.load_state_dict(own)
    for each, average in ((model, ema), (twin_model, twin)):
        stepped(each, torch.Generator().manual_seed(1))
        average.update()
    assert torch.equal(averages(ema, model)["weight"], averages(twin, twin_model)["weight"])
