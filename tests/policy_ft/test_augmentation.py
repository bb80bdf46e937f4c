"""Augmentation: where pixels go, what colours become, and that the sample alone decides."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from policy_ft import assemble
from policy_ft.config.augmentation import AugmentationConfig, ImageAugmentation
from policy_ft.data.augmentation import Augmentation, source_maps, vary_images
from policy_ft.errors import UserError
from tests.policy_ft.test_training_step import Stepper

STRONG = {"crop": 0.8, "rotation_deg": 20, "brightness": 0.3, "contrast": 0.4, "saturation": 0.5}


@pytest.fixture
def stepper(policy, episodes) -> Stepper:
    return Stepper(policy, episodes)


@pytest.fixture
def batch(stepper):
    (batch,) = stepper.batches()
    return batch


def varied(stepper, batch, seed: int = 0, **settings):
    windows = stepper.windows
    config = AugmentationConfig(**settings)
    return Augmentation(config, windows.transforms, seed, windows.instruction)(batch)


def test_the_defaults_change_nothing(stepper, batch):
    same = varied(stepper, batch).inputs
    for name in ("images", "state", "prompt_tokens", "prompt_mask"):
        assert torch.equal(getattr(same, name), getattr(batch.inputs, name))


@pytest.mark.parametrize(("height", "width"), [(48, 48), (40, 64)])
def test_a_marker_lands_where_the_map_says_to_half_a_pixel(height, width):
    how = ImageAugmentation(crop=0.9, rotation_deg=15)
    draws = torch.rand(16, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    row, column = 0.4 * height, 0.55 * width
    blob = torch.exp(-((y - row) ** 2 + (x - column) ** 2) / 8.0)
    images = (2.0 * blob - 1.0).expand(16, 3, -1, -1)
    found = (vary_images(images, how, draws) + 1.0) / 2.0
    maps = source_maps(how, draws, height, width).double().numpy()
    source = np.array([(2 * column + 1) / width - 1, (2 * row + 1) / height - 1])
    for image, matrix, draw in zip(found[:, 0].double(), maps, draws, strict=True):
        place = np.linalg.solve(matrix[:, :2], source - matrix[:, 2])
        pixels = ((place + 1) * np.array([width, height]) - 1) / 2
        mass = image.sum()
        centre = np.array([(image * x).sum() / mass, (image * y).sum() / mass])
        np.testing.assert_allclose(centre, pixels, atol=0.5)
        # a turn keeps lengths in pixels, whatever the shape of the image
        size = np.array([width, height]) / 2
        turn = size[:, None] * matrix[:, :2] / size[None] / how.crop
        np.testing.assert_allclose(turn @ turn.T, np.eye(2), atol=1e-5)
        angle = np.deg2rad(how.rotation_deg * draw[2].item())
        np.testing.assert_allclose(turn[1, 0], np.sin(angle), atol=1e-5)


def test_a_crop_shows_a_part_of_the_image_and_nothing_else():
    ramp = torch.linspace(-1, 1, 64).expand(8, 3, 64, 64)
    draws = torch.rand(8, 6, generator=torch.Generator().manual_seed(1)) * 2 - 1
    found = vary_images(ramp, ImageAugmentation(crop=0.5), draws)
    for image, draw in zip(found, draws, strict=True):
        middle = 0.5 * draw[0].item()
        assert image[0, 0, 0].item() == pytest.approx(middle - 0.5, abs=0.03)
        assert image[0, 0, -1].item() == pytest.approx(middle + 0.5, abs=0.03)


def test_colours_are_those_of_the_formulas_in_float64():
    how = ImageAugmentation(brightness=0.3, contrast=0.4, saturation=0.5)
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(5, 3, 8, 8, generator=generator) * 2 - 1
    draws = torch.rand(5, 6, generator=generator) * 2 - 1
    found = vary_images(images, how, draws)
    grey = np.array([0.299, 0.587, 0.114])
    for image, draw, result in zip(images.double(), draws.double(), found, strict=True):
        unit = np.clip((image.numpy() + 1) / 2 * (1 + 0.3 * draw[3].item()), 0, 1)
        mean = np.tensordot(grey, unit, 1).mean()
        unit = np.clip(mean + (unit - mean) * (1 + 0.4 * draw[4].item()), 0, 1)
        own = np.tensordot(grey, unit, 1)
        unit = np.clip(own + (unit - own) * (1 + 0.5 * draw[5].item()), 0, 1)
        np.testing.assert_allclose(result, 2 * unit - 1, atol=1e-5)


def test_each_sample_is_varied_by_itself_whatever_its_neighbours(stepper, batch):
    settings = {**STRONG, "state_noise": 0.1}
    whole = varied(stepper, batch, **settings).inputs
    rows = [3, 1]
    part = replace(
        batch,
        inputs=batch.inputs.rows(rows),
        sample_id=batch.sample_id[rows],
        epoch=batch.epoch[rows],
    )
    found = varied(stepper, part, **settings).inputs
    torch.testing.assert_close(found.images, whole.images[rows], rtol=0, atol=1e-6)
    assert torch.equal(found.state, whole.state[rows])
    again = varied(stepper, replace(batch, epoch=batch.epoch + 1), **settings).inputs
    other = varied(stepper, batch, seed=1, **settings).inputs
    for different in (again, other):
        assert not torch.allclose(different.images, whole.images, atol=1e-2)


def test_cameras_are_varied_apart_and_absent_ones_not_at_all(stepper, batch):
    mask = batch.inputs.image_mask.clone()
    mask[0, 0] = False
    batch = replace(batch, inputs=replace(batch.inputs, image_mask=mask))
    found = varied(stepper, batch, **STRONG, cameras={"wrist": {}}).inputs.images
    images = batch.inputs.images
    assert torch.equal(found[:, 1], images[:, 1])
    assert torch.equal(found[0, 0], images[0, 0])
    assert not torch.allclose(found[1:, 0], images[1:, 0], atol=1e-2)


def test_state_noise_has_its_size_and_spares_padding_and_dropout_gives_the_mean(stepper, batch):
    many = replace(batch, epoch=batch.epoch)
    shifts = []
    for epoch in range(200):
        each = replace(many, epoch=torch.full_like(batch.epoch, epoch))
        shifts.append(varied(stepper, each, state_noise=0.2).inputs.state - batch.inputs.state)
    width = len(stepper.windows.transforms.conventions.state.names)
    shift = torch.stack(shifts)
    assert shift[..., :width].std().item() == pytest.approx(0.2, rel=0.05)
    assert shift[..., width:].abs().max().item() == 0.0 if shift.shape[-1] > width else True
    assert not varied(stepper, batch, state_dropout=1.0).inputs.state.any()


def test_instructions_are_left_out_or_said_otherwise(stepper, batch, tmp_path):
    transforms = stepper.windows.transforms
    none = varied(stepper, batch, instruction_dropout=1.0).inputs
    expected = transforms.with_instructions(batch.inputs, [""] * 8)
    assert torch.equal(none.prompt_tokens, expected.prompt_tokens)
    path = tmp_path / "alike.yaml"
    own = {stepper.windows.instruction(sample) for sample in batch.sample_id.tolist()}
    alike = {text: ["go", "stay"] for text in own}
    path.write_text("\n".join(f'"{k}": {v}' for k, v in alike.items()), encoding="utf-8")
    found = varied(stepper, batch, paraphrases=str(path)).inputs
    allowed = [transforms.with_instructions(batch.inputs, [text] * 8) for text in ("go", "stay")]
    changed = [
        any(torch.equal(row[mask], each.prompt_tokens[0][each.prompt_mask[0]]) for each in allowed)
        for row, mask in zip(found.prompt_tokens, found.prompt_mask, strict=True)
    ]
    assert 0 < sum(changed) < 8


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"cameras": {"wirst": {}}}, "augmentation.cameras.wirst: found no such .*'wrist'"),
        ({"paraphrases": "none.yaml"}, "augmentation.paraphrases, none.yaml: found .*No such file"),
    ],
)
def test_what_cannot_be_varied_is_refused_before_training(run_config, settings, fault):
    config = run_config(data={"augmentation": settings})
    (told,) = assemble.check(config)
    with pytest.raises(UserError, match=fault):
        raise UserError(told)
    with pytest.raises(UserError, match=fault):
        assemble.train(config)


def test_validation_sees_the_data_as_it_was_recorded(run_config, tmp_path):
    losses = []
    for name, settings in {"plain": "off", "varied": STRONG}.items():
        config = run_config(
            output_dir=str(tmp_path / name),
            training={"steps": 1},
            optimizer={"lr": 1e-12, "final_lr": 0.0},
            data={"augmentation": settings},
        )
        rows = assemble.train(config).metrics
        losses.append([row["loss"] for row in rows])
    assert losses[0][-1] == pytest.approx(losses[1][-1], rel=1e-6)
    assert losses[0][0] != pytest.approx(losses[1][0], rel=1e-6)


def test_a_cache_of_what_varies_is_refused(run_config):
    with pytest.raises(ValidationError, match=r"feature_cache_gb: found 1.0 with data.augm"):
        run_config(training={"feature_cache_gb": 1}, data={"augmentation": {"crop": 0.9}})
