"""The laws of the VLA model: what sees what, what is shared, and what every parameter is for."""

from dataclasses import replace

import pytest
import torch

from policy_ft.config.model import DecoderConfig, ExpertConfig, ModelConfig, TimmVisionConfig
from policy_ft.models.build import build_model
from policy_ft.models.flow_path import interpolate, time_embedding, time_from_uniform
from policy_ft.models.inputs import ModelInput, trimmed_prompt_length
from policy_ft.models.solvers import Euler
from policy_ft.models.vla import VLAModel
from tests.policy_ft.losses import dormant, flow_errors

TOWER = {
    "norm_layer": "groupnorm1",
    "channels": [32, 32, 32, 32],
    "stem_chs": 32,
    "layers": [1, 1, 1, 1],
}


def tiny_config(*, film: bool = True, family: str = "llama", **vision: object) -> ModelConfig:
    tower = {"tower": "resnetv2_18", "tower_args": TOWER, "feature_level": 3} | vision
    return ModelConfig(
        image_height=32,
        image_width=32,
        num_cameras=2,
        max_prompt_tokens=8,
        state_dim=3,
        action_dim=4,
        action_horizon=5,
        vision=TimmVisionConfig(film=film, **tower),
        language=DecoderConfig(
            family=family,
            vocab_size=300,
            width=32,
            depth=3,
            mlp_width=48,
            num_heads=4,
            num_kv_heads=2,
            head_dim=8,
        ),
        expert=ExpertConfig(width=24, mlp_width=40),
    )


def randomized(model: VLAModel) -> VLAModel:
    """The model with random values where it starts at zero or one, which would hide mistakes."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


@pytest.fixture(scope="module")
def model() -> VLAModel:
    return randomized(build_model(tiny_config()))


def example(batch: int = 3, seed: int = 0) -> ModelInput:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([3, 8, 5])[:batch]
    return ModelInput(
        images=torch.rand(batch, 2, 3, 32, 32, generator=generator) * 2 - 1,
        image_mask=torch.ones(batch, 2, dtype=torch.bool),
        prompt_tokens=torch.randint(1, 300, (batch, 8), generator=generator),
        prompt_mask=torch.arange(8) < lengths[:, None],
        state=torch.randn(batch, 3, generator=generator),
    )


def draws(batch: int, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return (
        torch.randn(batch, 5, 4, generator=generator),
        torch.randn(batch, count, 5, 4, generator=generator),
        torch.rand(batch, count, generator=generator),
    )


def test_draws_that_share_a_prefix_equal_draws_alone(model: VLAModel) -> None:
    actions, noise, time = draws(3, 4)
    together = flow_errors(model, example(), actions, noise, time)
    assert together.shape == (3, 4, 5, 4)
    for k in range(4):
        alone = flow_errors(model, example(), actions, noise[:, k], time[:, k])
        torch.testing.assert_close(together[:, k], alone, rtol=1e-4, atol=1e-5)


def test_padding_tokens_and_absent_cameras_change_nothing(model: VLAModel) -> None:
    actions, noise, time = draws(3, 1)
    inputs = example()
    masked = replace(inputs, image_mask=torch.tensor([[True, False]]).expand(3, -1))
    expected = flow_errors(model, masked, actions, noise, time)

    scrambled = replace(
        masked,
        images=torch.stack((masked.images[:, 0], torch.rand_like(masked.images[:, 1])), dim=1),
        prompt_tokens=torch.where(masked.prompt_mask, masked.prompt_tokens, 299),
    )
    torch.testing.assert_close(
        flow_errors(model, scrambled, actions, noise, time), expected, rtol=0, atol=1e-6
    )
    dropped = replace(masked, images=masked.images[:, :1], image_mask=masked.image_mask[:, :1])
    torch.testing.assert_close(
        flow_errors(model, dropped, actions, noise, time), expected, rtol=1e-4, atol=1e-5
    )


def test_trimming_the_prompt_changes_nothing(model: VLAModel) -> None:
    actions, noise, time = draws(1, 1)
    inputs = example(batch=1)
    length = trimmed_prompt_length(inputs.prompt_mask, bucket=4)
    assert length == 4
    trimmed = replace(
        inputs,
        prompt_tokens=inputs.prompt_tokens[:, :length],
        prompt_mask=inputs.prompt_mask[:, :length],
    )
    torch.testing.assert_close(
        flow_errors(model, trimmed, actions, noise, time),
        flow_errors(model, inputs, actions, noise, time),
        rtol=1e-4,
        atol=1e-5,
    )


def test_state_token_does_not_see_actions_but_actions_see_each_other(model: VLAModel) -> None:
    inputs, (_, noise, _) = example(batch=1), draws(1, 1)
    prefix = model.backbone(inputs)
    noisy = noise.clone().requires_grad_()
    time = torch.full((1, 1), 0.5)
    velocity = model.expert(prefix, inputs.state, noisy, time)
    velocity[0, 0, 0].sum().backward()
    assert (noisy.grad[0, 0].abs().sum(-1) > 0).all()

    context = model.expert.context(prefix, draws=2, horizon=2)
    suffix = context.joint_mask[0, 0, :, prefix.mask.shape[1] :].int().tolist()
    assert suffix == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 1, 1, 1],
        [0, 0, 0, 1, 1, 1],
    ]


def test_every_parameter_but_the_dormant_ones_gets_a_gradient() -> None:
    model = randomized(build_model(tiny_config()))
    actions, noise, time = draws(3, 2)
    flow_errors(model, example(), actions, noise, time).mean().backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == dormant(model)
    reached = {n: p.grad.abs().sum() for n, p in model.named_parameters() if p.grad is not None}
    # the final norm's gate multiplies nothing, but it shares one matrix with scale and shift
    assert not [name for name, total in reached.items() if total == 0]


def test_a_detached_prefix_keeps_expert_gradients_out_of_the_backbone(model: VLAModel) -> None:
    inputs, (_, noise, time) = example(), draws(3, 1)
    model.zero_grad()
    model.expert(model.backbone(inputs).detached(), inputs.state, noise, time).sum().backward()
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    assert model.expert.action_in_proj.weight.grad is not None


def test_groups_partition_the_parameters(model: VLAModel) -> None:
    groups = model.groups()
    names = [name for members in groups.values() for name in members]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    expected = {
        "projector", "language.embed", "language.norm", "language.layers.0", "language.layers.2",
        "expert.layers.0", "expert.layers.2", "expert.norm", "vision.film",
        "heads.state_in", "heads.action_in", "heads.time", "heads.action_out",
    }  # fmt: skip
    assert expected <= set(groups)
    assert {name.split(".")[0] for name in groups} == {
        "vision",
        "projector",
        "language",
        "expert",
        "heads",
    }


def test_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = build_model(tiny_config(), seed=3)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    second = build_model(tiny_config(), seed=3)
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )


def test_meta_device_gives_shapes_without_memory() -> None:
    with torch.device("meta"):
        ghost = build_model(tiny_config())
    real = build_model(tiny_config())
    assert {n: p.shape for n, p in ghost.named_parameters()} == {
        n: p.shape for n, p in real.named_parameters()
    }
    assert all(parameter.is_meta for parameter in ghost.parameters())


def test_film_starts_as_the_identity_and_then_listens() -> None:
    plain, film = build_model(tiny_config(film=False)), build_model(tiny_config(film=True))
    film.backbone.vision.body.load_state_dict(plain.backbone.vision.body.state_dict())
    images, language = torch.rand(2, 3, 32, 32), torch.randn(2, 32)
    expected = plain.backbone.vision(images)
    assert torch.equal(film.backbone.vision(images, language), expected)
    randomized(film)
    first = film.backbone.vision(images, language)
    assert not torch.allclose(first, film.backbone.vision(images, language + 1.0))


def test_film_without_language_is_refused(model: VLAModel) -> None:
    with pytest.raises(ValueError, match="Pass `language`"):
        model.backbone.vision(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("tower", "arguments", "level"),
    [
        (
            "vit_tiny_patch16_224",
            {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
            1,
        ),
        ("convnext_atto", {"depths": [1, 1, 1, 1], "dims": [16, 24, 24, 24]}, 1),
    ],
)
def test_any_timm_tower_can_be_modulated(tower: str, arguments: dict, level: int) -> None:
    config = tiny_config(tower=tower, tower_args=arguments, feature_level=level)
    model = randomized(build_model(config))
    actions, noise, time = draws(3, 1)
    flow_errors(model, example(), actions, noise, time).mean().backward()
    for film in model.backbone.vision.film:
        assert film.dense.weight.grad.abs().sum() > 0


def test_unknown_tower_is_refused_with_its_name() -> None:
    with pytest.raises(ValueError, match=r"found tower 'resnet_nope'.*timm.list_models"):
        build_model(tiny_config(tower="resnet_nope", tower_args={}))


def test_sampling_is_the_euler_integral_of_the_trained_velocity(model: VLAModel) -> None:
    inputs, (_, noise, _) = example(), draws(3, 1)
    x = noise[:, 0]
    with torch.no_grad():
        for step in range(10):
            time = torch.full((3, 1), 1.0 - step / 10)
            # the model's loss at actions = 0 is (velocity - noise)^2, so the velocity is read from
            # the expert itself
            x = x - model.expert(model.backbone(inputs), inputs.state, x[:, None], time)[:, 0] / 10
    torch.testing.assert_close(model.sample_actions(inputs, noise[:, 0]), x, rtol=1e-5, atol=1e-6)


def test_integration_of_a_straight_flow_is_exact() -> None:
    noise, actions = torch.randn(2, 2, 5, 4, dtype=torch.float64)
    found = Euler(7)(lambda x, time: noise - actions, noise)
    torch.testing.assert_close(found, actions, rtol=0, atol=1e-12)


def test_interpolation_ends_in_noise_at_one_and_actions_at_zero() -> None:
    actions, noise = torch.randn(2, 1, 5, 4), torch.randn(2, 2, 5, 4)
    assert torch.equal(interpolate(actions, noise, torch.ones(2, 2)), noise)
    assert torch.equal(
        interpolate(actions, noise, torch.zeros(2, 2)), actions.expand(-1, 2, -1, -1)
    )


def test_flow_time_follows_the_beta_distribution() -> None:
    uniform = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    time = time_from_uniform(uniform)
    # the mean of Beta(1.5, 1) is 1.5 / 2.5 = 0.6 and its median 0.5 ** (2 / 3)
    assert time.mean().item() == pytest.approx(0.6 * 0.999 + 0.001, abs=1e-4)
    assert time.median().item() == pytest.approx(0.5 ** (2 / 3) * 0.999 + 0.001, abs=1e-4)
    assert time.min() > 0.001
    assert time.max() <= 1.0


def test_time_embedding_worked_example() -> None:
    # width 4: periods 0.004 and 4; at time 1 the angles are 2 pi * 250 and pi / 2
    embedding = time_embedding(torch.tensor([1.0]), 4)
    torch.testing.assert_close(embedding, torch.tensor([[0.0, 1.0, 1.0, 0.0]]), rtol=0, atol=1e-6)


def test_bf16_autocast_stays_close_to_float32(model: VLAModel) -> None:
    actions, noise, time = draws(3, 2)
    exact = flow_errors(model, example(), actions, noise, time).mean()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = flow_errors(model, example(), actions, noise, time)
    assert rounded.dtype == torch.float32
    assert rounded.mean().item() == pytest.approx(exact.item(), rel=0.02)


def test_padded_columns_stay_on_the_path_of_training() -> None:
    """Of 16 columns three are real: the others enter every step as time * noise."""
    config = tiny_config().model_copy(update={"action_dim": 16})
    model = randomized(build_model(config))
    real = torch.arange(16) < 3
    noise = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(3))
    seen: list[torch.Tensor] = []
    model.expert.action_in_proj.register_forward_hook(
        lambda _module, arguments, _output: seen.append(arguments[0][:, 0])
    )
    chunks = model.sample_actions(example(2), noise, Euler(4), real)
    for step, x in enumerate(seen):
        expected = (1.0 - step / 4) * noise[..., ~real]
        torch.testing.assert_close(x[..., ~real], expected, rtol=0, atol=1e-6)
    assert chunks[..., ~real].abs().max() < 1e-6
    with torch.no_grad():
        model.expert.action_out_proj.weight[3:].mul_(50.0)
    held, followed = (
        model.sample_actions(example(2), noise, Euler(4), mask) for mask in (real, None)
    )
    assert torch.equal(held[..., real], chunks[..., real])
    assert not torch.equal(followed[..., real], chunks[..., real])
