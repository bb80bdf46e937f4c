"""A policy of one image size is used for others: by resizing images, or by resizing the model."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from data_tools.episode import Observation
from data_tools.formats.reader import open_dataset
from eval_envs.collect import collect
from policy_ft import assemble
from policy_ft.checkpoints.native import save_policy, weights_hash
from policy_ft.config.model import ModelConfig, SiglipVisionConfig, TimmVisionConfig
from policy_ft.config.resize import ModelResize
from policy_ft.config.run import RunConfig
from policy_ft.errors import UserError
from policy_ft.formats.conversion.convert import convert
from policy_ft.formats.load import load_policy
from policy_ft.models.build import build_model
from policy_ft.models.solvers import SampleRequest
from policy_ft.policy import Policy
from policy_ft.quickstart import BASE

OTHER = ModelResize(image_height=64, image_width=48)
TOWERS: dict[str, TimmVisionConfig | SiglipVisionConfig] = {
    "siglip": SiglipVisionConfig(
        kind="siglip", patch_size=8, width=24, depth=2, num_heads=2, mlp_width=40
    ),
    "transformer with a class token": TimmVisionConfig(
        tower="vit_tiny_patch16_224",
        tower_args={"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
        feature_level=1,
    ),
    "windows": TimmVisionConfig(
        tower="swin_tiny_patch4_window7_224",
        tower_args={
            "img_size": 32,
            "window_size": 2,
            "embed_dim": 24,
            "depths": [1, 1],
            "num_heads": [2, 2],
        },
        feature_level=1,
        film=True,
    ),
}
POSITIONS = {
    "siglip": "backbone.vision.embeddings.position_embedding.weight",
    "transformer with a class token": "backbone.vision.body.model.pos_embed",
}


@pytest.fixture
def base(small_model, fitted, tmp_path) -> Callable[[str], Policy]:
    """base(tower): a policy for images of 32 x 32, saved in tmp_path/base, with random weights."""

    def make(tower: str) -> Policy:
        config = ModelConfig.model_validate(small_model(vision=TOWERS[tower]))
        model = build_model(config).eval()
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
        policy = Policy(model, fitted(), config)
        save_policy(policy, tmp_path / "base")
        return policy

    return make


def seen(policy: Policy) -> Observation:
    rng = np.random.default_rng(0)
    return Observation(
        {
            c.name: rng.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8)
            for c in policy.conventions.cameras
        },
        rng.normal(size=len(policy.conventions.state.names)).astype(np.float32),
        "push the red block",
    )


def interpolated(places: torch.Tensor, grid: tuple[int, int], wanted: tuple[int, int]):
    """float[n, w] of one grid as another's: what the field does, written out."""
    image = places.T.reshape(1, -1, *grid)
    grown = functional.interpolate(image, wanted, mode="bicubic", antialias=True)
    return grown.flatten(2)[0].T


@pytest.mark.parametrize("tower", TOWERS)
def test_a_resized_model_acts_on_images_of_its_size_and_is_saved_with_it(base, tmp_path, tower):
    before = base(tower)
    after = load_policy(tmp_path / "base", resize=OTHER)
    assert {(c.height, c.width) for c in after.conventions.cameras} == {(64, 48)}
    (chunk,) = after.act(
        [seen(after)], SampleRequest(np.zeros((1, *after.chunk_shape), np.float32))
    )
    save_policy(after, tmp_path / "resized")
    again = load_policy(tmp_path / "resized")
    assert again.load_report.reshaped == ()
    np.testing.assert_array_equal(
        again.act([seen(again)], SampleRequest(np.zeros((1, *again.chunk_shape), np.float32)))[0],
        chunk,
    )
    reshaped = {each.name for each in after.load_report.reshaped}
    assert reshaped == {"backbone.image_positions", *filter(None, [POSITIONS.get(tower)])}
    stored, live = before.model.state_dict(), after.model.state_dict()
    for name in stored.keys() - reshaped:
        assert torch.equal(stored[name], live[name])
    old, new = before.model.backbone.vision.grid, after.model.backbone.vision.grid
    for mine, theirs in zip(
        live["backbone.image_positions"], stored["backbone.image_positions"], strict=True
    ):
        torch.testing.assert_close(mine, interpolated(theirs, old, new))


def test_a_class_token_keeps_its_position_and_the_others_are_interpolated(base, tmp_path):
    tower = "transformer with a class token"
    before, after = base(tower), load_policy(tmp_path / "base", resize=OTHER)
    stored, live = (each.model.state_dict()[POSITIONS[tower]][0] for each in (before, after))
    assert (len(stored), len(live)) == (1 + 4 * 4, 1 + 8 * 6)
    assert torch.equal(live[0], stored[0])
    torch.testing.assert_close(live[1:], interpolated(stored[1:], (4, 4), (8, 6)))


def test_the_size_that_a_model_has_changes_no_bit(base, tmp_path):
    policy = base("siglip")
    same = load_policy(tmp_path / "base", resize=ModelResize(image_height=32, image_width=32))
    assert weights_hash(same.model) == weights_hash(policy.model)
    assert same.load_report.reshaped == ()


def test_published_positions_are_interpolated(lerobot_directory, golden, tmp_path):
    """From 16 x 16 patches of 14 pixels to 8 x 20."""
    directory = lerobot_directory(tmp_path / "published", "pi0")
    policy = load_policy(directory, resize=ModelResize(image_height=112, image_width=280))
    name = POSITIONS["siglip"]
    stored, live = (m.state_dict()[name] for m in (golden("pi0").model, policy.model))
    torch.testing.assert_close(live, interpolated(stored.float(), (16, 16), (8, 20)))
    (reshaped,) = policy.load_report.reshaped
    assert reshaped.name == name
    shape = policy.transforms.shape
    assert (shape.image_height, shape.image_width) == (112, 280)
    (chunk,) = policy.act(
        [seen(policy)], SampleRequest(np.zeros((1, *policy.chunk_shape), np.float32))
    )
    save_policy(policy, tmp_path / "resized")
    with pytest.raises(UserError, match=r"112 x 280 pixels; expected 224 x 224.*to lerobot"):
        convert(tmp_path / "resized", "openpi", tmp_path / "openpi")
    convert(tmp_path / "resized", "lerobot", tmp_path / "lerobot")
    again = load_policy(tmp_path / "lerobot")
    found = again.act([seen(again)], SampleRequest(np.zeros((1, *policy.chunk_shape), np.float32)))[
        0
    ]
    np.testing.assert_array_equal(found, chunk)


def test_a_size_that_patches_do_not_tile_is_told(base, tmp_path):
    base("siglip")
    with pytest.raises(UserError, match="found 60 x 32; expected multiples of 8"):
        load_policy(tmp_path / "base", resize=ModelResize(image_height=60))


def test_a_tower_of_one_size_says_so_and_what_to_do_instead(small_model, fitted, tmp_path):
    """The layers of an MLP-Mixer that mix places have one weight a place."""
    vision = TimmVisionConfig(tower="mixer_s32_224", tower_args={"img_size": 32}, feature_level=0)
    config = ModelConfig.model_validate(small_model(vision=vision))
    save_policy(Policy(build_model(config), fitted(), config), tmp_path / "base")
    with pytest.raises(UserError, match=r"mlp_tokens.*set policy.image_resize \(kind pretrained"):
        load_policy(tmp_path / "base", resize=ModelResize(image_height=64, image_width=64))


@pytest.fixture(scope="module")
def larger(tmp_path_factory) -> str:
    """Demonstrations whose images are larger than the shipped base takes: 96 x 96, not 64 x 64."""
    path = tmp_path_factory.mktemp("larger") / "reach.hdf5"
    env_args = {"image_size": 96}
    return str(collect(path, task="reach", num_episodes=3, seed=0, env_args=env_args))


def fine_tuning(run_config: Callable[..., RunConfig], data: str, **policy: Any) -> RunConfig:
    evaluation = {"env_args": {"task": "reach", "image_size": 96}, "episodes": 1}
    values = run_config(
        data={"path": data},
        training={"steps": 1, "batch_size": 2},
        validation={"every": 1, "num_windows": 1},
        evaluation={**evaluation, "replan_steps": 4, "every": 1},
    ).model_dump(mode="json")
    return RunConfig.model_validate(
        {**values, "policy": {"kind": "pretrained", "path": str(BASE), **policy}}
    )


ROUTES = {
    "images": {"image_resize": "pil_bilinear_center_pad"},
    "model": {"resize": {"image_height": 96, "image_width": 96}},
}


@pytest.mark.parametrize("statistics", ["checkpoint", "data"])
def test_images_of_another_size_than_the_base_takes_are_told_with_two_routes(
    run_config, larger, statistics
):
    faults = assemble.check(fine_tuning(run_config, larger, statistics=statistics))
    assert len(faults) == 2
    for fault, camera in zip(faults, ("front", "wrist"), strict=True):
        assert fault.startswith(f"conventions, camera {camera!r}: found 96 x 96 pixels; expected ")
        assert "policy.image_resize (kind pretrained) to pil_bilinear_center_pad" in fault
        assert "policy.resize.image_height (kind pretrained)" in fault


@pytest.mark.parametrize("statistics", ["checkpoint", "data"])
@pytest.mark.parametrize("route", ROUTES)
def test_each_route_trains_rolls_out_and_loads_the_shipped_base(
    run_config, larger, route, statistics
):
    config = fine_tuning(run_config, larger, statistics=statistics, **ROUTES[route])
    told: list[str] = []
    assert assemble.check(config, tell=told.append) == []
    noted = [line for line in told if "96 x 96 pixels in the data, 64 x 64 before" in line]
    assert len(noted) == (2 if (route, statistics) == ("images", "checkpoint") else 0)
    policy = load_policy(assemble.train(config).last_checkpoint)
    side = {"images": 64, "model": 96}[route]
    assert (policy.config.image_height, policy.config.image_width) == (side, side)
    assert {(c.height, c.width) for c in policy.conventions.cameras} == {(96, 96)}
    assert np.isfinite(policy.act([seen(policy)])[0]).all()


def test_images_are_never_resized_in_another_way_than_the_checkpoint_did(
    run_config, lerobot_directory, tmp_path
):
    directory = lerobot_directory(tmp_path / "published", "pi0")
    values = run_config().model_dump(mode="json")
    block = {"kind": "pretrained", "path": str(directory), "image_resize": "none"}
    with pytest.raises(UserError, match=r"trained with 'torch_bilinear_center_pad'.*Leave it out"):
        assemble.build_policy(
            RunConfig.model_validate({**values, "policy": block}),
            open_dataset(values["data"]["path"]),
        )
