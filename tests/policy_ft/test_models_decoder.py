"""The decoder against transformers: the same weights give the same numbers."""

import pytest
import torch
from torch import nn

from policy_ft.models.backbones.decoder import (
    FAMILIES,
    Decoder,
    decoder_config_from_transformers,
)
from policy_ft.models.prefix import Prefix
from policy_ft.models.torchvision_guard import ensure_torchvision_imports

ensure_torchvision_imports()
import transformers  # noqa: E402  it imports torchvision, which must have been mended by then

FAMILY_CONFIGS = {
    "llama": transformers.LlamaConfig,
    "qwen2": transformers.Qwen2Config,
    "qwen3": transformers.Qwen3Config,
    "gemma": transformers.GemmaConfig,
}
FAMILY_MODELS = {
    "llama": transformers.LlamaModel,
    "qwen2": transformers.Qwen2Model,
    "qwen3": transformers.Qwen3Model,
    "gemma": transformers.GemmaModel,
}
TINY = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}


def randomize(module: nn.Module) -> None:
    """Random values everywhere: norm scales and biases at their initial one or zero would hide
    mistakes.
    """
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)


def reference_and_ours(family: str) -> tuple[nn.Module, Decoder]:
    torch.manual_seed(0)
    config = FAMILY_CONFIGS[family](**TINY)
    reference = FAMILY_MODELS[family](config).eval()
    randomize(reference)
    ours = Decoder(decoder_config_from_transformers(config.to_dict()))
    ours.load_state_dict(reference.state_dict())
    return reference, ours


def causal_inputs(batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    tokens = torch.randint(0, TINY["vocab_size"], (batch, length))
    mask = torch.ones(length, length, dtype=torch.bool).tril().expand(batch, 1, -1, -1)
    return tokens, mask, torch.arange(length).expand(batch, -1)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_hidden_states_and_gradients_equal_transformers(family: str, float64_stays: None) -> None:
    """In float64: in float32 some processors round the embedding's gradient by more than 1e-3."""
    reference, ours = reference_and_ours(family)
    reference.double()
    ours.double()
    tokens, mask, positions = causal_inputs(2, 11)
    expected = reference(input_ids=tokens).last_hidden_state
    found = ours.hidden_states(ours.embed(tokens), mask, positions)
    assert found.dtype == expected.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)

    weight = torch.randn_like(expected)
    (expected * weight).sum().backward()
    (found * weight).sum().backward()
    reference_gradients = dict(reference.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(
            parameter.grad, reference_gradients[name].grad, rtol=1e-5, atol=1e-5, msg=name
        )


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_keys_and_values_equal_transformers_cache(family: str) -> None:
    reference, ours = reference_and_ours(family)
    tokens, mask, positions = causal_inputs(2, 7)
    cache = reference(input_ids=tokens, use_cache=True).past_key_values
    keys, values = ours.keys_values(ours.embed(tokens), mask, positions)
    assert len(keys) == TINY["num_hidden_layers"]
    for layer, (key, value) in enumerate(zip(keys, values, strict=True)):
        torch.testing.assert_close(key, cache.layers[layer].keys, rtol=1e-4, atol=2e-5)
        torch.testing.assert_close(value, cache.layers[layer].values, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_dormant_parameters_are_exactly_those_keys_and_values_ignore(family: str) -> None:
    _, ours = reference_and_ours(family)
    tokens, mask, positions = causal_inputs(1, 5)
    keys, values = ours.keys_values(ours.embed(tokens), mask, positions)
    sum(part.sum() for part in (*keys, *values)).backward()
    untouched = {name for name, parameter in ours.named_parameters() if parameter.grad is None}
    assert untouched == set(ours.dormant)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_tokens_behind_a_prefix_are_those_of_the_whole_sequence(
    family: str, float64_stays: None
) -> None:
    """Values and gradients, behind prefixes of 5 real tokens and of 3 with padding between."""
    _, ours = reference_and_ours(family)
    ours.double()
    tokens = torch.randint(0, TINY["vocab_size"], (2, 9))
    real = torch.tensor([[True] * 5, [True, True, False, True, False]])
    whole = torch.cat((real, torch.ones(2, 4, dtype=torch.bool)), dim=1)
    positions = (whole.cumsum(1) - 1).clamp(min=0)
    is_prefix = torch.arange(9) < 5
    seen = is_prefix[None, :] | (torch.arange(9)[None, :] <= torch.arange(9)[:, None])
    mask = whole[:, None, None, :] & (seen & (~is_prefix[:, None] | is_prefix[None, :]))
    expected = ours.hidden_states(ours.embed(tokens), mask, positions)[:, 5:]
    weight = torch.randn_like(expected)
    named = dict(ours.named_parameters())
    expected_gradients = torch.autograd.grad((expected * weight).sum(), list(named.values()))

    keys, values = ours.keys_values(
        ours.embed(tokens[:, :5]), real[:, None, None, :], positions[:, :5]
    )
    prefix = Prefix(keys=keys, values=values, mask=real, length=real.sum(1))
    found = ours.continued(ours.embed(tokens[:, 5:]), prefix)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    gradients = torch.autograd.grad((found * weight).sum(), list(named.values()))
    for name, gradient, wanted in zip(named, gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-5, msg=name)
        assert gradient.abs().sum() > 0, name  # the last block and the norm learn, too


def test_activation_checkpointing_changes_no_bit_of_streams_and_gradients() -> None:
    _, ours = reference_and_ours("qwen3")
    tokens, mask, positions = causal_inputs(2, 9)

    def gradients() -> list[torch.Tensor]:
        keys, values = ours.keys_values(
            ours.embed(tokens[:, :5]), mask[..., :5, :5], positions[:, :5]
        )
        real = torch.ones(2, 5, dtype=torch.bool)
        prefix = Prefix(keys=keys, values=values, mask=real, length=real.sum(1))
        behind = ours.continued(ours.embed(tokens[:, 5:]), prefix)
        whole = ours.hidden_states(ours.embed(tokens), mask, positions)
        torch.testing.assert_close(behind, whole[:, 5:], rtol=1e-4, atol=1e-4)
        loss = behind.square().sum() + whole.square().sum()
        return [loss, *torch.autograd.grad(loss, list(ours.parameters()))]

    expected = gradients()
    ours.checkpoint_activations = True
    assert all(torch.equal(a, b) for a, b in zip(gradients(), expected, strict=True))


def test_other_families_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"found 'mistral'; expected one of \['gemma', 'llama'"):
        decoder_config_from_transformers({"model_type": "mistral"})


def test_rope_scaling_is_refused() -> None:
    config = FAMILY_CONFIGS["llama"](**TINY).to_dict() | {
        "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    }
    with pytest.raises(ValueError, match="Choose a checkpoint without rope scaling"):
        decoder_config_from_transformers(config)
