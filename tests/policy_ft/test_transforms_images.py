"""Resizes equal those of the models' reference code, computed here in another way."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from data_tools.conventions import CameraSpec
from data_tools.episode import Observation
from data_tools.storage.frames.images import resize_center_pad
from policy_ft.transforms import stacked
from policy_ft.transforms.images import (
    FLOAT_RESIZES,
    FloatResize,
    resize_float,
    to_model_images,
)

# (rows, columns) of the camera and of the model: odd borders, tall and wide, larger and smaller
SIZES = [
    ((48, 64), (32, 32)),
    ((480, 640), (224, 224)),
    ((181, 320), (224, 224)),
    ((101, 67), (32, 32)),
    ((5, 7), (33, 32)),
    ((32, 32), (32, 32)),
]


def triangle_weights(old: int, new: int) -> np.ndarray:
    """float64[new, old]: PIL's bilinear filter, a triangle as wide as the step when shrinking."""
    step = old / new
    width = max(step, 1.0)
    weights = np.zeros((new, old))
    for i in range(new):
        center = (i + 0.5) * step
        first, last = max(int(center - width + 0.5), 0), min(int(center + width + 0.5), old)
        places = np.arange(first, last)
        row = np.clip(1 - np.abs((places + 0.5 - center) / width), 0, None)
        weights[i, first:last] = row / row.sum()
    return weights


def pil_by_hand(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Columns first, rounded to uint8, then rows, as PIL does it; weights in float64."""
    across = np.einsum("oc,yck->yok", triangle_weights(image.shape[1], width), image)
    across = np.floor(across + 0.5).clip(0, 255)
    down = np.einsum("oy,yck->ock", triangle_weights(image.shape[0], height), across)
    return np.floor(down + 0.5).clip(0, 255)


@pytest.mark.parametrize(("size", "model"), SIZES)
def test_the_uint8_resize_is_pils_filter_centred_by_openpis_rule(size, model):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    (rows, columns), (height, width) = size, model
    ratio = max(columns / width, rows / height)
    inner = (int(rows / ratio), int(columns / ratio))
    top, left = int((height - inner[0]) / 2), int((width - inner[1]) / 2)

    resized = resize_center_pad(image, height, width)

    assert resized.shape == (height, width, 3)
    content = resized[top : top + inner[0], left : left + inner[1]].astype(int)
    difference = np.abs(content - pil_by_hand(image, *inner))
    assert difference.max() <= 1  # PIL's weights have 22 bits: a tie may fall the other way
    assert (difference > 0).mean() < 0.02
    outside = resized.copy()
    outside[top : top + inner[0], left : left + inner[1]] = 0
    assert (outside == 0).all()


@pytest.mark.parametrize(("size", "model"), SIZES)
def test_the_uint8_resize_equals_pasting_pils_own_result_on_black(size, model):
    image = np.random.default_rng(2).integers(0, 256, (*size, 3), dtype=np.uint8)
    (rows, columns), (height, width) = size, model
    ratio = max(columns / width, rows / height)
    inner = (int(columns / ratio), int(rows / ratio))
    canvas = Image.new("RGB", (width, height), 0)
    place = (max(0, int((width - inner[0]) / 2)), max(0, int((height - inner[1]) / 2)))
    canvas.paste(Image.fromarray(image).resize(inner, resample=Image.BILINEAR), place)
    np.testing.assert_array_equal(resize_center_pad(image, height, width), np.asarray(canvas))


def bilinear_by_hand(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """float64[height, width, 3]: four neighbours, pixel centres at halves, no antialiasing."""

    def corners(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        place = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, None)
        low = np.floor(place).astype(int)
        return low, np.minimum(low + 1, old - 1), place - low

    y0, y1, dy = corners(image.shape[0], height)
    x0, x1, dx = corners(image.shape[1], width)
    dy, dx = dy[:, None, None], dx[None, :, None]
    top = image[y0][:, x0] * (1 - dx) + image[y0][:, x1] * dx
    bottom = image[y1][:, x0] * (1 - dx) + image[y1][:, x1] * dx
    return top * (1 - dy) + bottom * dy


@pytest.mark.parametrize(("size", "model"), SIZES)
@pytest.mark.parametrize("kind", FLOAT_RESIZES)
def test_float_resizes_are_bilinear_without_antialiasing_and_padded_as_named(kind, size, model):
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    (rows, columns), (height, width) = size, model
    ratio = max(columns / width, rows / height)
    inner = (int(rows / ratio), int(columns / ratio))
    top, left = height - inner[0], width - inner[1]
    if kind != "torch_bilinear_lefttop_pad":
        top, left = top // 2, left // 2
    # LeRobot 0.4.4 pads -1 in [0, 1], which the scaling makes -3
    expected = np.full((height, width, 3), -3.0 if kind.endswith("minus_three") else -1.0)
    content = bilinear_by_hand(image / 255.0, *inner) * 2 - 1
    expected[top : top + inner[0], left : left + inner[1]] = content

    images = to_model_images([torch.from_numpy(image)[None]], height, width, kind)

    # torch computes the places of pixels in float32, which at 640 columns are off by 1e-4 of one
    np.testing.assert_allclose(images[0, 0].permute(1, 2, 0).numpy(), expected, atol=2e-4)
    unit = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous().float() / 255.0
    reference = torch.nn.functional.interpolate(unit, inner, mode="bilinear", align_corners=False)
    found = images[0, :, :, top : top + inner[0], left : left + inner[1]]
    torch.testing.assert_close(found, reference * 2 - 1, rtol=0, atol=1e-6)


def test_float_resize_equals_interpolate_bit_by_bit():
    """SmolVLA's own path on a contiguous float image: 100 x 200 becomes 32 x 64 below 32 rows."""
    unit = torch.rand(2, 3, 100, 200, generator=torch.Generator().manual_seed(0))
    resized = torch.nn.functional.interpolate(
        unit, (32, 64), mode="bilinear", align_corners=False, antialias=False
    )
    found = resize_float(unit, 64, 64, FloatResize(is_centred=False, padding=0.0))
    assert torch.equal(found[:, :, 32:], resized)
    assert (found[:, :, :32] == 0).all()


def test_cameras_of_one_robot_may_have_different_sizes(fitted):
    transforms = fitted(resize="torch_bilinear_lefttop_pad")
    sizes = {"front": (48, 64), "wrist": (30, 20)}
    cameras = tuple(CameraSpec(name=n, height=h, width=w) for n, (h, w) in sizes.items())
    conventions = transforms.conventions.model_copy(update={"cameras": cameras})
    transforms = replace(transforms, conventions=conventions)
    rng = np.random.default_rng(0)
    images = {n: rng.integers(0, 256, (*size, 3), dtype=np.uint8) for n, size in sizes.items()}
    sample = transforms.encode(Observation(images, np.zeros(4, np.float32), "push"))

    np.testing.assert_array_equal(sample["image_1"], images["wrist"])  # as recorded until then
    inputs = transforms.encode_batch(stacked([sample, sample]), "cpu")

    assert inputs.images.shape == (2, 2, 3, 32, 32)
    wide = bilinear_by_hand(images["front"] / 255.0, 24, 32) * 2 - 1
    np.testing.assert_allclose(inputs.images[0, 0, :, 8:].permute(1, 2, 0), wide, atol=2e-6)
    assert (inputs.images[1, 1, :, :, :11] == -1).all()  # 21 columns of 32, on the right


def test_a_slot_may_stay_empty_between_others(fitted):
    transforms = fitted(cameras=("front", None, "wrist"))
    rng = np.random.default_rng(0)
    images = {n: rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for n in ("front", "wrist")}
    sample = transforms.encode(Observation(images, np.zeros(4, np.float32), "push"))
    inputs = transforms.encode_batch(stacked([sample]), "cpu")
    assert sample["image_mask"].tolist() == [True, False, True]
    assert inputs.camera_slots == (0, 2)
    assert inputs.image_mask.tolist() == [[True, True]]
    back = (inputs.images[0, 1].permute(1, 2, 0) + 1) * 127.5
    np.testing.assert_allclose(back, images["wrist"], atol=1e-3)


def test_the_slots_of_a_batch_are_the_configured_cameras_whatever_it_holds(fitted):
    transforms = fitted(cameras=("front", "wrist"))
    images = {n: np.zeros((32, 32, 3), np.uint8) for n in ("front", "wrist")}
    sample = transforms.encode(Observation(images, np.zeros(4, np.float32), "push"))
    blind = {**sample, "image_mask": np.array([True, False, False])}
    for batch in ([sample, blind], [blind, blind]):
        inputs = transforms.encode_batch(stacked(batch), "cpu")
        assert inputs.camera_slots == (0, 1)
        assert inputs.images.shape == (2, 2, 3, 32, 32)
        assert inputs.image_mask.tolist()[1] == [True, False]


def test_when_every_slot_is_filled_no_slots_are_listed(fitted):
    transforms = fitted()
    shape = transforms.shape.model_copy(update={"num_cameras": 2})
    transforms = replace(transforms, shape=shape)
    images = {n: np.zeros((32, 32, 3), np.uint8) for n in ("front", "wrist")}
    sample = transforms.encode(Observation(images, np.zeros(4, np.float32), "push"))
    assert transforms.encode_batch(stacked([sample]), "cpu").camera_slots is None
