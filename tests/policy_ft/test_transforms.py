"""The laws of the one path: invertible, the same from every side, and saved whole."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from data_tools.actions import scaling
from data_tools.conventions import CameraSpec
from data_tools.episode import Observation
from data_tools.stats import exact_stats
from data_tools.storage.frames.images import resize_center_pad
from policy_ft.data.windows import WindowDataset
from policy_ft.transforms import Statistics, Transforms, prompt_text, stacked

KINDS = ("identity", "mean_std", "quantiles", "min_max")


def observation_of(rng, size=32):
    images = {
        name: rng.integers(0, 256, (size, size, 3), dtype=np.uint8) for name in ("front", "wrist")
    }
    return Observation(images, rng.normal(size=4).astype(np.float32), "push the red block")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("delta", [(), ("x", "y")])
def test_decode_inverts_encode_to_a_millionth_of_each_columns_scale(kind, delta, fitted):
    transforms = fitted(action_normalization=kind, delta_actions=delta)
    rng = np.random.default_rng(3)
    for _ in range(20):
        observation = observation_of(rng)
        actions = rng.normal(size=(4, 3)) * [0.1, 10.0, 1.0]
        # of the values themselves: float32 holds a value to 6e-8 of its size
        scale = np.abs(actions).max(0) + np.abs(observation.state).max()
        decoded = transforms.decode(transforms.encode(observation, actions)["actions"], observation)
        assert (np.abs(decoded - actions) <= 1e-6 * scale).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("delta", [(), ("x", "y")])
def test_far_from_zero_decoding_errs_by_scale_and_one_rounding(kind, delta, fitted):
    """Columns at 300 that vary by 0.02: an error of 1e-6 of 300 would be 15 % of that."""
    rng = np.random.default_rng(4)
    transforms = fitted(action_normalization=kind, delta_actions=delta)
    actions = (300.0 + rng.normal(size=(200, 3)) * [0.02, 0.5, 2.0]).astype(np.float32)
    observation = replace(observation_of(rng), state=np.full(4, 299.9, np.float32))
    seen = actions.astype(np.float64)
    seen[:, : len(delta)] -= observation.state[: len(delta)].astype(np.float64)
    stats = exact_stats(seen)
    statistics = transforms.statistics.model_copy(update={"actions": stats})
    transforms = replace(transforms, statistics=statistics)
    scale = scaling(stats, kind).scale
    for chunk in actions.reshape(-1, 4, 3):
        decoded = transforms.decode(transforms.encode(observation, chunk)["actions"], observation)
        bound = 1e-6 * scale + np.spacing(chunk) / 2
        assert (np.abs(decoded.astype(np.float64) - chunk) <= bound).all()


@pytest.mark.parametrize("seed", range(10))
def test_decode_inverts_encode_for_random_statistics_and_constant_columns(seed, fitted):
    rng = np.random.default_rng(seed)
    transforms = fitted(action_normalization=KINDS[seed % 4])
    spread = rng.normal(size=(100, 3)) * 10.0 ** rng.integers(-3, 3, 3) + rng.normal(size=3)
    spread[:, seed % 3] = 0.7
    statistics = Statistics(
        fingerprint="f", state=transforms.statistics.state, actions=exact_stats(spread)
    )
    transforms = replace(transforms, statistics=statistics)
    observation = observation_of(rng)
    decoded = transforms.decode(transforms.encode(observation, spread[:4])["actions"], observation)
    assert (np.abs(decoded - spread[:4]) <= 1e-6 * (np.abs(spread).max(0))).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_column_never_blows_up(kind, fitted):
    transforms = fitted(action_normalization=kind)
    actions = np.array([[0.0, 0.0, -1.0 + 1e-3]])  # the gripper column is -1 in all data
    sample = transforms.encode(observation_of(np.random.default_rng(0)), actions)
    assert np.abs(sample["actions"][:, 2]).max() <= 1.01


def test_a_delta_action_is_relative_to_the_state_at_the_start_of_the_chunk(fitted):
    """State x = 0.5 and targets 0.6, 0.8: deltas 0.1 and 0.3, not 0.1 and 0.2."""
    transforms = fitted(action_normalization="identity", delta_actions=("x",))
    observation = replace(
        observation_of(np.random.default_rng(0)), state=np.array([0.5, 9, 9, 9], np.float32)
    )
    sample = transforms.encode(observation, np.array([[0.6, 0.2, 1.0], [0.8, 0.4, 1.0]]))
    np.testing.assert_allclose(sample["actions"][:2, 0], [0.1, 0.3], atol=1e-7)
    np.testing.assert_allclose(sample["actions"][:2, 1], [0.2, 0.4], atol=1e-7)


def test_a_recorded_frame_and_a_live_one_are_encoded_bit_for_bit_alike(fitted, episodes):
    transforms = fitted(delta_actions=("x", "y"))
    windows = WindowDataset(episodes, (0, 1, 2), transforms)
    for sample_id in range(len(windows)):
        recorded = stacked([windows[sample_id]])
        name, step = windows.locate(sample_id)
        episode = next(e for e in (episodes[i] for i in range(4)) if e.name == name)
        live = Observation(
            images={camera: episode.image(camera, step) for camera in ("wrist", "front")},
            state=episode.state()[step].copy(),
            instruction=str(episode.instruction),
        )
        there = transforms.encode_batch(recorded, "cpu")
        here = transforms.encode_batch(stacked([transforms.encode(live)]), "cpu")
        for field in ("images", "image_mask", "prompt_tokens", "prompt_mask", "state"):
            assert torch.equal(getattr(there, field), getattr(here, field)), field


def test_images_reach_the_model_as_rgb_rows_and_columns_in_minus_one_to_one(fitted):
    observation = observation_of(np.random.default_rng(0))
    red = np.zeros((32, 32, 3), np.uint8)
    red[4, 7] = (255, 51, 0)
    sample = fitted().encode(replace(observation, images={**observation.images, "wrist": red}))
    inputs = fitted().encode_batch(stacked([sample]), "cpu")
    assert inputs.images.shape == (1, 2, 3, 32, 32)  # the empty third slot is not sent
    assert inputs.camera_slots == (0, 1)
    # 255 / 127.5 - 1 = 1, 51 / 127.5 - 1 = -0.6, 0 is -1
    torch.testing.assert_close(inputs.images[0, 1, :, 4, 7], torch.tensor([1.0, -0.6, -1.0]))
    assert inputs.images.is_contiguous()
    assert inputs.image_mask.tolist() == [[True, True]]
    assert sample["image_mask"].tolist() == [True, True, False]


def test_padding_is_zero_and_masked(fitted):
    transforms = fitted()
    actions = np.array([[0.1, 0.2, -1.0], [0.3, 0.4, -1.0]])
    sample = transforms.encode(observation_of(np.random.default_rng(0)), actions)
    assert sample["action_mask"].tolist() == [True, True, False, False]
    assert transforms.action_dim_mask.tolist() == [True, True, True, False]
    assert (sample["actions"][2:] == sample["actions"][1]).all()
    assert (sample["actions"][:, 3] == 0).all()
    assert sample["state"][4] == 0
    assert sample["state"].dtype == sample["actions"].dtype == np.float32


def test_a_given_action_mask_is_kept(fitted):
    sample = fitted().encode(
        observation_of(np.random.default_rng(0)), np.zeros((3, 3)), np.array([True, False, True])
    )
    assert sample["action_mask"].tolist() == [True, False, True, False]


def test_encoding_changes_nothing_in_place(fitted):
    observation = observation_of(np.random.default_rng(0))
    for array in (*observation.images.values(), observation.state):
        array.flags.writeable = False
    actions = np.zeros((4, 3))
    actions.flags.writeable = False
    transforms = fitted(delta_actions=("x",))
    transforms.decode(transforms.encode(observation, actions)["actions"], observation)


def test_prompts_that_differ_in_case_and_white_space_are_one_prompt(fitted):
    observation = observation_of(np.random.default_rng(0))
    plain, shouted = (
        fitted().encode(replace(observation, instruction=text))["prompt_tokens"]
        for text in ("push the red block", "  Push the\n RED block ")
    )
    assert plain.tolist() == shouted.tolist()
    assert plain[0] == 1
    assert prompt_text("  Push the\n RED block ", "cased") == "Push the RED block"


def test_prompts_of_a_batch_are_cut_to_the_longest_real_one(fitted):
    transforms = fitted()
    observation = observation_of(np.random.default_rng(0))
    samples = [
        transforms.encode(replace(observation, instruction=t))
        for t in ("red", "push the red block")
    ]
    inputs = transforms.encode_batch(stacked(samples), "cpu")
    assert inputs.prompt_tokens.shape == (2, 8)
    assert inputs.prompt_mask.sum(1).tolist() == [int(s["prompt_mask"].sum()) for s in samples]


def test_saved_transforms_load_to_equal_ones(fitted, tmp_path):
    transforms = fitted(delta_actions=("x",), action_normalization="quantiles")
    transforms.save(tmp_path)
    loaded = Transforms.load(tmp_path)
    assert loaded == transforms
    observation = observation_of(np.random.default_rng(5))
    for name, array in transforms.encode(observation, np.ones((4, 3))).items():
        np.testing.assert_array_equal(loaded.encode(observation, np.ones((4, 3)))[name], array)


def test_transforms_survive_pickling(fitted):
    transforms = fitted()
    observation = observation_of(np.random.default_rng(5))
    transforms.encode(observation)
    copy = pickle.loads(pickle.dumps(transforms))
    np.testing.assert_array_equal(
        copy.encode(observation)["prompt_tokens"], transforms.encode(observation)["prompt_tokens"]
    )


def test_resizing_keeps_the_aspect_ratio_and_pads_with_black_around_the_centre():
    """A 100 x 200 image for 64 x 64: 32 x 64 pixels from row 16 on."""
    resized = resize_center_pad(np.full((100, 200, 3), 200, np.uint8), 64, 64)
    assert (resized[:16] == 0).all()
    assert (resized[48:] == 0).all()
    assert (resized[16:48] == 200).all()


def test_resizing_is_antialiased():
    """Stripes of one pixel, ten times too fine for the result, become grey."""
    stripes = np.zeros((320, 320, 3), np.uint8)
    stripes[:, ::2] = 255
    resized = resize_center_pad(stripes, 32, 32)
    assert resized.min() > 110
    assert resized.max() < 145


def test_an_image_of_the_right_size_is_not_touched():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert resize_center_pad(image, 32, 32) is image


def test_cameras_of_another_size_are_resized_when_the_settings_say_so(fitted):
    transforms = fitted(resize="pil_bilinear_center_pad")
    wide = tuple(CameraSpec(name=n, height=48, width=64) for n in ("front", "wrist"))
    conventions = transforms.conventions.model_copy(update={"cameras": wide})
    transforms = replace(transforms, conventions=conventions)
    observation = observation_of(np.random.default_rng(0))
    images = {name: np.full((48, 64, 3), 9, np.uint8) for name in ("front", "wrist")}
    slot = transforms.encode(replace(observation, images=images))["image_0"]
    assert (slot[:4] == 0).all()
    assert (slot[4:28] == 9).all()
    assert (slot[28:] == 0).all()
